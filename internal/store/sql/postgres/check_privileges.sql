-- Reads the role of the connection and which of the needed privileges it lacks.
WITH needed (name, privilege) AS (
    SELECT name, unnest(string_to_array(privileges, ' ')) FROM (VALUES
        ('resource_locks', 'SELECT INSERT UPDATE DELETE'), ('lock_events', 'SELECT INSERT DELETE'),
        ('lock_waiters', 'SELECT INSERT UPDATE DELETE'), ('lock_servers', 'SELECT INSERT UPDATE DELETE'),
        ('token_floor', 'SELECT UPDATE'), ('lockd_database', 'SELECT')) AS tables (name, privileges)
), missing (what) AS (
    SELECT string_agg(privilege, ', ') || ' on the table ' || name FROM needed
    WHERE NOT has_table_privilege(name, privilege) GROUP BY name
    UNION ALL
    SELECT 'USAGE on the sequence ' || sequence
    FROM (VALUES ('resource_locks'), ('lock_events'), ('lock_servers')) AS tables (name),
        pg_get_serial_sequence(name, 'id') AS sequence
    WHERE NOT has_sequence_privilege(sequence, 'USAGE')
)
SELECT current_user, coalesce(string_agg(what, '; ' ORDER BY what), '') FROM missing;
