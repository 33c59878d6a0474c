-- Reads what could make a database useless that can be reached.
SELECT current_database(), current_user, current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('transaction_read_only')::boolean, current_schema(),
    to_regclass('resource_locks') IS NULL,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false);
