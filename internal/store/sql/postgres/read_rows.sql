-- Reads the rows of resources, and the time before. The LEFT JOIN returns the time even if
-- there is no row.
--   $1  JSON array of the names
SELECT statement_timestamp(), {{resource_locks.optional}}
FROM (SELECT 1) AS one
LEFT JOIN resource_locks
    ON resource_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)));
