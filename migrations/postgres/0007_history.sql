-- +goose Up

-- What a hold was for, told with its end.
ALTER TABLE lock_events ADD COLUMN hold_reason text;

-- For what happened at some time, or for events of a kind, whichever resource they are about.
CREATE INDEX lock_events_kind ON lock_events (kind, at, id);
