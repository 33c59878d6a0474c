-- Enters all events into the indexes of the history that are in none of them.
--   $1  the id up to which all events are in the indexes
UPDATE lock_events SET filed = true WHERE id > $1 AND NOT filed;
