-- +goose Up

-- The reason of a hold, recorded with its end.
ALTER TABLE lock_events ADD COLUMN hold_reason text;

-- For queries of the history by time or by kind, without a resource.
CREATE INDEX lock_events_kind ON lock_events (kind, at, id);
