-- Reads places that are not kept any more.
--   $1  the time: the place of a detached waiter is kept until its away_until
--   $2  the id of this server, which is alive
--   $3  the places of a server's waiters are not kept if the server has been dead since then
--   $4  the maximum number of places
SELECT r.resource_name, w.process_id, w.request_id
FROM lock_waiters AS w
JOIN resource_locks AS r ON r.id = w.resource_id
LEFT JOIN lock_servers AS s ON s.id = w.server_id
WHERE w.away_until <= $1
    OR w.away_until IS NULL AND w.server_id <> $2 AND (s.id IS NULL OR s.alive_until <= $3)
LIMIT $4 + 0;
