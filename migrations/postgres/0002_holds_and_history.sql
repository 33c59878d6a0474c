-- +goose Up

-- Who, why, and how a hold may end. released_at: its process has released it, but its minimum
-- keeps the resource taken.
ALTER TABLE resource_locks
    ADD COLUMN request_id     text,
    ADD COLUMN reason         text,
    ADD COLUMN metadata       text,
    ADD COLUMN renewed_at     timestamptz,
    ADD COLUMN renewals       bigint NOT NULL DEFAULT 0,
    ADD COLUMN min_hold_until timestamptz,
    ADD COLUMN released_at    timestamptz;

-- For the renewal of all holds of a process.
CREATE INDEX resource_locks_process ON resource_locks (process_id, resource_name COLLATE "C") WHERE is_active;

-- Append-only; the oldest are deleted in batches.
CREATE TABLE lock_events (
    id            bigserial PRIMARY KEY,
    kind          text        NOT NULL,
    at            timestamptz NOT NULL,
    resource_name text        NOT NULL,
    process_id    text        NOT NULL,
    fencing_token bigint      NOT NULL,
    locked_at     timestamptz NOT NULL,
    renewals      bigint      NOT NULL,
    reason        text,
    ended_by      text
);
CREATE INDEX lock_events_resource ON lock_events (resource_name, id);
CREATE INDEX lock_events_process ON lock_events (process_id, id);
