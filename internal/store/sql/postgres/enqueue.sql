-- Inserts waiters, or updates those that were detached or connected again: a waiter keeps its
-- ticket.
--   $1  JSON array of the waiters
INSERT INTO lock_waiters ({{lock_waiters.columns}})
SELECT {{lock_waiters.from_json}}
FROM json_to_recordset($1::json) AS row ({{lock_waiters.recordset}})
ON CONFLICT (resource_id, ticket) DO UPDATE SET {{lock_waiters.assignments}};
