-- Appends an event to the history. It enters the indexes later: see index_events.sql.
--   $1, $2, …  the columns
INSERT INTO lock_events ({{lock_events.columns}}, filed)
VALUES ({{lock_events.parameters}}, false);
