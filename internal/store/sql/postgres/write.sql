-- Appends events, and inserts or updates the rows of resources, in one round trip. It returns
-- the ids of the rows. A row that another server has inserted since this transaction read has
-- another id: it is not changed and not returned.
--   $1  JSON array of the events
--   $2  JSON array of the rows; a new row has no id
WITH appended AS (
    INSERT INTO lock_events ({{lock_events.columns}})
    SELECT {{lock_events.from_json}}
    FROM json_to_recordset($1::json) AS row ({{lock_events.recordset}})
)
INSERT INTO resource_locks ({{resource_locks.columns}})
SELECT {{resource_locks.from_json}}
FROM json_to_recordset($2::json) AS row ({{resource_locks.recordset}})
ON CONFLICT (resource_name) DO UPDATE SET {{resource_locks.assignments}}
WHERE resource_locks.id = excluded.id
RETURNING id, resource_name;
