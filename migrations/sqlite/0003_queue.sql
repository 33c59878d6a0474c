-- +goose Up

-- The servers that requests wait on. The server that has the file open has no alive_until; the
-- others are dead since alive_until.
CREATE TABLE lock_servers (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    alive_until TEXT CHECK (length(alive_until) = 26)
);

-- The queues. Tickets grow, for each resource, in the order in which waiters came.
-- away_until: the connection has ended, and the place is kept until then.
CREATE TABLE lock_waiters (
    resource_id   INTEGER NOT NULL,
    ticket        INTEGER NOT NULL,
    server_id     INTEGER NOT NULL,
    connection    INTEGER NOT NULL,
    process_id    TEXT    NOT NULL,
    request_id    TEXT    NOT NULL,
    waiting_since TEXT    NOT NULL CHECK (length(waiting_since) = 26),
    away_until    TEXT             CHECK (length(away_until) = 26),
    ttl_us        INTEGER NOT NULL,
    min_hold_us   INTEGER NOT NULL,
    reason        TEXT,
    metadata      TEXT,
    PRIMARY KEY (resource_id, ticket)
) WITHOUT ROWID;
CREATE UNIQUE INDEX lock_waiters_request ON lock_waiters (resource_id, request_id, process_id);

-- The number of waiters: at 0 the queue need not be read. queued_at and connection describe the
-- request of the hold.
ALTER TABLE resource_locks ADD COLUMN waiters     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resource_locks ADD COLUMN away        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resource_locks ADD COLUMN last_ticket INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resource_locks ADD COLUMN queued_at   TEXT CHECK (length(queued_at) = 26);
ALTER TABLE resource_locks ADD COLUMN connection  INTEGER NOT NULL DEFAULT 0;
