-- Inserts a waiter, or updates one that was detached or connected again: it keeps its ticket.
--   $1, $2, …  the columns
INSERT INTO lock_waiters ({{lock_waiters.columns}})
VALUES ({{lock_waiters.parameters}})
ON CONFLICT (resource_id, ticket) DO UPDATE SET {{lock_waiters.assignments}};
