-- +goose Up

-- A database of the Python version already has this table; a new one gets it in the same form, so that one path follows.
CREATE TABLE IF NOT EXISTS resource_locks (
    id            serial PRIMARY KEY,
    resource_name varchar NOT NULL UNIQUE,
    process_id    varchar NOT NULL,
    locked_at     timestamptz,
    expires_at    timestamptz,
    is_active     boolean
);

-- In UTC, "AT TIME ZONE" leaves the instant alone whether the Python version stored it with a time zone or without.
SET LOCAL TIME ZONE 'UTC';

UPDATE resource_locks SET is_active = coalesce(is_active, false), locked_at = coalesce(locked_at, 'epoch')
WHERE is_active IS NULL OR locked_at IS NULL;

-- A row is the latest hold of its resource. is_active states whether it still is one, ended_at
-- when it ended.
ALTER TABLE resource_locks
    ALTER COLUMN id            TYPE bigint,
    ALTER COLUMN resource_name TYPE text,
    ALTER COLUMN process_id    TYPE text,
    ALTER COLUMN locked_at     DROP DEFAULT,
    ALTER COLUMN locked_at     TYPE timestamptz USING locked_at AT TIME ZONE 'UTC',
    ALTER COLUMN locked_at     SET NOT NULL,
    ALTER COLUMN expires_at    TYPE timestamptz USING expires_at AT TIME ZONE 'UTC',
    ALTER COLUMN is_active     SET NOT NULL,
    ADD COLUMN   ended_at      timestamptz,
    ADD COLUMN   fencing_token bigint NOT NULL DEFAULT 1;
ALTER TABLE resource_locks ALTER COLUMN fencing_token DROP DEFAULT;
UPDATE resource_locks SET ended_at = locked_at WHERE NOT is_active;

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER SEQUENCE %s AS bigint', pg_get_serial_sequence('resource_locks', 'id'));
    -- SQLAlchemy made the name unique by an index of its own; a second one would cost every write.
    DROP INDEX IF EXISTS ix_resource_locks_id;
    IF NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = 'resource_locks'::regclass AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL
          AND a.attname = 'resource_name'
    ) THEN
        CREATE UNIQUE INDEX resource_locks_resource_name_key ON resource_locks (resource_name);
    END IF;
END $$;
-- +goose StatementEnd

-- For the sweeper, which ends expired holds in small batches.
CREATE INDEX resource_locks_expiry ON resource_locks (expires_at) WHERE is_active;

-- The highest fencing token among deleted rows: a name that is used again starts above it,
-- whatever the clock says.
CREATE TABLE token_floor (
    id            integer PRIMARY KEY CHECK (id = 1),
    fencing_token bigint NOT NULL
);
INSERT INTO token_floor VALUES (1, 0);
