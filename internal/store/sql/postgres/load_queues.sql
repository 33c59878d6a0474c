-- Reads the first connected waiters of resources, and certain places wherever in the queue
-- they are, in the order of the queue.
--   $1  JSON array of the ids of the resources
--   $2  the id of this server: its waiters are connected
--   $3  the time: a waiter of another server is connected if that server is alive then
--   $4  the maximum number of first waiters of each resource
--   $5  JSON array of places, each {"resource_id": …, "process_id": …, "request_id": …}
SELECT {{lock_waiters.columns}}, s.alive_until
FROM (
    SELECT w.* FROM json_array_elements_text($1::json) AS r (id)
    CROSS JOIN LATERAL (
        SELECT w.* FROM lock_waiters AS w
        LEFT JOIN lock_servers AS s ON s.id = w.server_id
        WHERE w.away_until IS NULL AND (w.server_id = $2 OR s.alive_until > $3)
            AND w.resource_id = r.id::bigint
        ORDER BY w.ticket LIMIT $4 + 0
    ) AS w
    UNION
    SELECT w.*
    FROM json_to_recordset($5::json) AS p (resource_id bigint, process_id text, request_id text)
    JOIN lock_waiters AS w ON w.resource_id = p.resource_id
        AND w.request_id = p.request_id AND w.process_id = p.process_id
) AS w
LEFT JOIN lock_servers AS s ON s.id = w.server_id
ORDER BY w.ticket;
