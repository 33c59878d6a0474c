-- Commits as durably as a transaction of the committer does. The row stands for no server.
--   $1  the id of this server
INSERT INTO lock_servers (id, alive_until)
SELECT -($1::bigint), clock_timestamp()
WHERE set_config('synchronous_commit',
    replace(current_setting('synchronous_commit'), 'off', 'on'), true) <> 'off'
ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until;
