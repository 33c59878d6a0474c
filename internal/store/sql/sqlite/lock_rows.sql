-- Reads the rows of resources. No lock is needed: the transaction has the write lock.
--   $1  JSON array of the names
SELECT {{resource_locks.columns}} FROM resource_locks
WHERE resource_name IN (SELECT value FROM json_each($1));
