-- Reads the names of resources whose hold has expired and has not been ended.
--   $1  the time
--   $2  the maximum number of names
SELECT resource_name FROM resource_locks
WHERE is_active AND expires_at <= $1
ORDER BY expires_at
LIMIT $2 + 0;
