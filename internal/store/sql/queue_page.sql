-- Reads a page of the connected waiters of a resource, each with its position from 1.
--   $1  the id of this server: its waiters are connected
--   $2  the time: a waiter of another server is connected if that server is alive then
--   $3  the name of the resource
--   $4  the ticket after which the page starts
--   $5  the maximum number of waiters
SELECT w.position, {{lock_waiters.columns}}, s.alive_until
FROM (
    SELECT w.*, row_number() OVER (ORDER BY w.ticket) AS position
    FROM lock_waiters AS w
    LEFT JOIN lock_servers AS s ON s.id = w.server_id
    WHERE w.away_until IS NULL AND (w.server_id = $1 OR s.alive_until > $2)
        AND w.resource_id = (SELECT id FROM resource_locks WHERE resource_name = $3)
) AS w
LEFT JOIN lock_servers AS s ON s.id = w.server_id
WHERE w.ticket > $4
ORDER BY w.ticket
LIMIT $5 + 0;
