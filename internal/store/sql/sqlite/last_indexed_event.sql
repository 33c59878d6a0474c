-- Reads the id of the newest event that is in the indexes of the history.
SELECT id FROM lock_events WHERE filed ORDER BY id DESC LIMIT 1;
