-- +goose Up

-- A database of the Python version already has this table; a new one gets it in the same form, so that one path follows.
CREATE TABLE IF NOT EXISTS resource_locks (
    id            INTEGER PRIMARY KEY,
    resource_name VARCHAR NOT NULL UNIQUE,
    process_id    VARCHAR NOT NULL,
    locked_at     DATETIME,
    expires_at    DATETIME,
    is_active     BOOLEAN
);

-- Timestamps are text in UTC of one width, '2024-01-15 10:30:00.123456', so that they compare as text.
-- A row is the latest hold of its resource. is_active states whether it still is one, ended_at
-- when it ended.
CREATE TABLE locks_new (
    id            INTEGER PRIMARY KEY,
    resource_name TEXT    NOT NULL UNIQUE,
    process_id    TEXT    NOT NULL,
    locked_at     TEXT    NOT NULL CHECK (length(locked_at) = 26),
    expires_at    TEXT             CHECK (length(expires_at) = 26),
    is_active     BOOLEAN NOT NULL,
    ended_at      TEXT             CHECK (length(ended_at) = 26),
    fencing_token INTEGER NOT NULL
);

-- SQLAlchemy wrote fractions of up to six digits, SQLite's CURRENT_TIMESTAMP none, and either may carry a 'T' or a time
-- zone. strftime knows all these forms but only milliseconds, so it gets the text without the fraction.
-- A text that it does not know: locked_at becomes 1970; an expiry becomes none, because a hold must not end by mistake.
INSERT INTO locks_new
SELECT id, resource_name, process_id,
       coalesce(locked, '1970-01-01 00:00:00.000000'),
       expires,
       active,
       CASE WHEN NOT active THEN coalesce(locked, '1970-01-01 00:00:00.000000') END,
       1
FROM (
    SELECT id, resource_name, process_id, coalesce(is_active, 0) <> 0 AS active,
           strftime('%Y-%m-%d %H:%M:%S', locked_base || locked_zone) || '.' || substr(substr(locked_rest, 1, length(locked_rest) - length(locked_zone)) || '000000', 1, 6) AS locked,
           strftime('%Y-%m-%d %H:%M:%S', expires_base || expires_zone) || '.' || substr(substr(expires_rest, 1, length(expires_rest) - length(expires_zone)) || '000000', 1, 6) AS expires
    FROM (
        SELECT *, ltrim(locked_rest, '0123456789') AS locked_zone, ltrim(expires_rest, '0123456789') AS expires_zone
        FROM (
            SELECT *,
                   CASE instr(locked_at, '.') WHEN 0 THEN locked_at ELSE substr(locked_at, 1, instr(locked_at, '.') - 1) END AS locked_base,
                   CASE instr(locked_at, '.') WHEN 0 THEN '' ELSE substr(locked_at, instr(locked_at, '.') + 1) END AS locked_rest,
                   CASE instr(expires_at, '.') WHEN 0 THEN expires_at ELSE substr(expires_at, 1, instr(expires_at, '.') - 1) END AS expires_base,
                   CASE instr(expires_at, '.') WHEN 0 THEN '' ELSE substr(expires_at, instr(expires_at, '.') + 1) END AS expires_rest
            FROM resource_locks
        )
    )
);

DROP TABLE resource_locks;
ALTER TABLE locks_new RENAME TO resource_locks;

-- For the sweeper, which ends expired holds in small batches.
CREATE INDEX resource_locks_expiry ON resource_locks (expires_at) WHERE is_active;

-- The highest fencing token among deleted rows: a name that is used again starts above it,
-- whatever the clock says.
CREATE TABLE token_floor (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    fencing_token INTEGER NOT NULL
);
INSERT INTO token_floor VALUES (1, 0);
