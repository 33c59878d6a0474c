-- Reads the time of an event.
--   $1  its id
SELECT at FROM lock_events WHERE id = $1;
