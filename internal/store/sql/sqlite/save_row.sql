-- Inserts or updates the row of a resource. It changes no row if another program has
-- inserted a row for the resource since this transaction read it: that row has another id.
--   $1, $2, …  the columns; a new row has no id
INSERT INTO resource_locks ({{resource_locks.columns}})
VALUES ({{resource_locks.parameters}})
ON CONFLICT (resource_name) DO UPDATE SET {{resource_locks.assignments}}
WHERE resource_locks.id = excluded.id;
