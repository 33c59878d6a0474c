-- Renews the lease of this server, also if the other servers have deleted its row. The commit
-- does not wait for a disk or a standby.
--   $1  the id of this server
INSERT INTO lock_servers (id, alive_until)
SELECT $1::bigint, clock_timestamp() + {{lease}}
WHERE set_config('synchronous_commit', 'off', true) = 'off'
ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until;
