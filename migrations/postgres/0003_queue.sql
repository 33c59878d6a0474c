-- +goose Up

-- The servers that requests wait on. A server is dead when its lease has ended: alive_until, by
-- the database's clock, has passed.
CREATE TABLE lock_servers (
    id          bigserial PRIMARY KEY,
    alive_until timestamptz NOT NULL
);

-- The queues. Tickets grow under the lock of the resource's row, so their order is one order for all servers.
-- away_until: the connection has ended, and the place is kept until then.
CREATE TABLE lock_waiters (
    resource_id   bigint      NOT NULL,
    ticket        bigint      NOT NULL,
    server_id     bigint      NOT NULL,
    connection    bigint      NOT NULL,
    process_id    text        NOT NULL,
    request_id    text        NOT NULL,
    waiting_since timestamptz NOT NULL,
    away_until    timestamptz,
    ttl_us        bigint      NOT NULL,
    min_hold_us   bigint      NOT NULL,
    reason        text,
    metadata      text,
    PRIMARY KEY (resource_id, ticket)
);
CREATE UNIQUE INDEX lock_waiters_request ON lock_waiters (resource_id, request_id, process_id);

-- The number of waiters: at 0 the queue need not be read. queued_at and connection describe the
-- request of the hold.
ALTER TABLE resource_locks
    ADD COLUMN waiters     bigint NOT NULL DEFAULT 0,
    ADD COLUMN away        bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_ticket bigint NOT NULL DEFAULT 0,
    ADD COLUMN queued_at   timestamptz,
    ADD COLUMN connection  bigint NOT NULL DEFAULT 0;
