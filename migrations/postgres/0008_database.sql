-- +goose Up

-- The random id of this lock database. It is made once and never changes, so that a client of several servers
-- notices when two of them do not share their locks. A backup and a standby have the same id.
CREATE TABLE lockd_database (
    id          integer PRIMARY KEY CHECK (id = 1),
    database_id text NOT NULL CHECK (database_id ~ '^[0-9a-f]{32}$')
);
INSERT INTO lockd_database VALUES (1, replace(gen_random_uuid()::text, '-', ''));
