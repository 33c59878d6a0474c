-- Deletes waiters.
--   $1  JSON array of waiters, of which resource_id and ticket are read
DELETE FROM lock_waiters AS w
USING json_to_recordset($1::json) AS row (resource_id bigint, ticket bigint)
WHERE w.resource_id = row.resource_id AND w.ticket = row.ticket;
