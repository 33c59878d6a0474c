-- Locks and reads the rows of resources, in the order of their names. The outer SELECT reads
-- the clock once for each row, after the row was locked. The LEFT JOIN returns the time even
-- if there is no row.
--   $1  JSON array of the names
WITH locked AS MATERIALIZED (
    SELECT {{resource_locks.columns}} FROM resource_locks
    WHERE resource_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
    ORDER BY resource_name COLLATE "C" FOR UPDATE
)
SELECT clock_timestamp(), {{resource_locks.optional}}
FROM (SELECT 1) AS one LEFT JOIN locked ON true;
