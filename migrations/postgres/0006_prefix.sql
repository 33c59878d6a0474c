-- +goose Up

-- The strongest lock first: to take it after a weaker one could end in a deadlock with a server that writes.
LOCK TABLE resource_locks IN ACCESS EXCLUSIVE MODE;

-- text_pattern_ops compares byte by byte, whatever the collation of the database, so these indexes serve prefixes and the
-- order of names. They serve equality and ON CONFLICT as well as the index that they replace. The column keeps its
-- collation: a server of the version before, which runs beside, has prepared statements that return it.
CREATE UNIQUE INDEX resource_locks_name ON resource_locks (resource_name text_pattern_ops);
DROP INDEX resource_locks_process;
CREATE INDEX resource_locks_process ON resource_locks (process_id, resource_name text_pattern_ops) WHERE is_active;

-- A second unique index would cost every write. It has one of three names, depending on who made the table.
-- +goose StatementBegin
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT i.indexrelid::regclass AS name, c.conname AS of_constraint
        FROM pg_index AS i
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname = 'resource_name'
        LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype = 'u'
        WHERE i.indrelid = 'resource_locks'::regclass AND i.indisunique AND i.indnatts = 1 AND i.indpred IS NULL
          AND i.indexrelid <> 'resource_locks_name'::regclass
    LOOP
        BEGIN
            IF old.of_constraint IS NULL THEN
                EXECUTE format('DROP INDEX %s', old.name);
            ELSE
                EXECUTE format('ALTER TABLE resource_locks DROP CONSTRAINT %I', old.of_constraint);
            END IF;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL; -- somebody's foreign key needs it
        END;
    END LOOP;
END $$;
-- +goose StatementEnd
