-- Lists the columns of every table, each as table.column.
SELECT m.name || '.' || c.name
FROM sqlite_master AS m, pragma_table_info(m.name) AS c
WHERE m.type = 'table';
