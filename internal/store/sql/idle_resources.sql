-- Reads a window of rows, and which of them have been idle since before a time.
--   $1  that time
--   $2  the id after which the window starts
--   $3  the maximum number of rows
SELECT id, resource_name, NOT is_active AND ended_at < $1
FROM resource_locks
WHERE id > $2
ORDER BY id
LIMIT $3 + 0;
