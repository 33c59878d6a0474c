-- Deletes a waiter.
--   $1  the id of the resource
--   $2  the ticket
DELETE FROM lock_waiters WHERE resource_id = $1 AND ticket = $2;
