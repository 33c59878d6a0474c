-- Deletes the servers that have been dead for long and have no waiters.
--   $1  the id of this server, which is alive
--   $2  the time since which they have been dead
DELETE FROM lock_servers
WHERE id <> $1 AND alive_until < $2 AND id NOT IN (SELECT server_id FROM lock_waiters);
