-- +goose Up

-- The random id of this lock database. It is made once and never changes, so that a client of several servers
-- notices when two of them do not share their locks. A backup and a copy of the file have the same id.
CREATE TABLE lockd_database (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    database_id TEXT NOT NULL CHECK (length(database_id) = 32 AND database_id NOT GLOB '*[^0-9a-f]*')
);
INSERT INTO lockd_database VALUES (1, lower(hex(randomblob(16))));
