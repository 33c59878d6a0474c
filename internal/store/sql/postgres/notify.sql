-- Notifies servers when the transaction commits.
--   $1  JSON array of notices, each {"server": …, "name": …} for a resource that may have
--       come to a waiter of the server, or {"server": …, "connection": …} for a waiter whose
--       place another request has taken
SELECT pg_notify(
    'lockd_' || server || CASE WHEN name IS NULL THEN '_superseded' ELSE '' END,
    coalesce(name, connection::text))
FROM json_to_recordset($1::json) AS row (server bigint, name text, connection bigint);
