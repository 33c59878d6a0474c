-- Ends the lease of this server. The commit does not wait for a disk or a standby.
--   $1  the id of this server
UPDATE lock_servers SET alive_until = clock_timestamp()
WHERE id = $1 AND set_config('synchronous_commit', 'off', true) = 'off';
