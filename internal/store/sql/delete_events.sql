-- Deletes the oldest events. Ids grow with time, so these are the first rows of the table.
--   $1  the time before which they happened
--   $2  the maximum number of events
DELETE FROM lock_events
WHERE at < $1 AND id IN (SELECT id FROM lock_events ORDER BY id LIMIT $2 + 0);
