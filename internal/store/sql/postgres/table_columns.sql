-- Lists the columns of every table in the first schema of the search path, each as
-- table.column.
SELECT c.relname || '.' || a.attname
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped;
