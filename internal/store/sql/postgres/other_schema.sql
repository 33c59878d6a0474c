-- Finds tables of this program that are not in the first schema of the search path. Tables
-- are created in the first schema, but found in any. It returns both schemas, or no row.
SELECT current_schema(), relnamespace::regnamespace FROM pg_class
WHERE oid = coalesce(to_regclass('lockd_schema_version'), to_regclass('resource_locks'))
    AND relnamespace <> (SELECT oid FROM pg_namespace WHERE nspname = current_schema());
