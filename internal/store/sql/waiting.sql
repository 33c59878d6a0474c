-- Reads the requests that wait on this server, and whether the resource of each is free.
--   $1  the time
--   $2  the id of this server
SELECT r.resource_name, w.process_id, w.request_id, w.connection,
    NOT (r.is_active AND (r.expires_at IS NULL OR r.expires_at > $1))
FROM lock_waiters AS w
JOIN resource_locks AS r ON r.id = w.resource_id
WHERE w.server_id = $2 AND w.away_until IS NULL;
