-- +goose Up

-- New events are only appended. They enter these indexes many at a time, when they are filed:
-- each index that a single event enters costs a page that has to be written.
DROP INDEX lock_events_resource;
DROP INDEX lock_events_process;
ALTER TABLE lock_events ADD COLUMN filed BOOLEAN NOT NULL DEFAULT true;
CREATE INDEX lock_events_resource ON lock_events (resource_name, id) WHERE filed;
CREATE INDEX lock_events_process ON lock_events (process_id, id) WHERE filed;
