-- Records the end of earlier servers: no other server has the file open.
--   $1  the time
UPDATE lock_servers SET alive_until = $1 WHERE alive_until IS NULL;
