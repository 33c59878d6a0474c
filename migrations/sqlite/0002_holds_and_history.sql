-- +goose Up

-- Who, why, and how a hold may end. released_at: its process has released it, but its minimum
-- keeps the resource taken.
ALTER TABLE resource_locks ADD COLUMN request_id     TEXT;
ALTER TABLE resource_locks ADD COLUMN reason         TEXT;
ALTER TABLE resource_locks ADD COLUMN metadata       TEXT;
ALTER TABLE resource_locks ADD COLUMN renewed_at     TEXT CHECK (length(renewed_at) = 26);
ALTER TABLE resource_locks ADD COLUMN renewals       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resource_locks ADD COLUMN min_hold_until TEXT CHECK (length(min_hold_until) = 26);
ALTER TABLE resource_locks ADD COLUMN released_at    TEXT CHECK (length(released_at) = 26);

-- For the renewal of all holds of a process.
CREATE INDEX resource_locks_process ON resource_locks (process_id, resource_name) WHERE is_active;

-- Append-only; the oldest are deleted in batches. An id is never used twice, so the order by id is the order of events.
CREATE TABLE lock_events (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    kind          TEXT    NOT NULL,
    at            TEXT    NOT NULL CHECK (length(at) = 26),
    resource_name TEXT    NOT NULL,
    process_id    TEXT    NOT NULL,
    fencing_token INTEGER NOT NULL,
    locked_at     TEXT    NOT NULL CHECK (length(locked_at) = 26),
    renewals      INTEGER NOT NULL,
    reason        TEXT,
    ended_by      TEXT
);
CREATE INDEX lock_events_resource ON lock_events (resource_name, id);
CREATE INDEX lock_events_process ON lock_events (process_id, id);
