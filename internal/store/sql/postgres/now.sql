-- Reads the time of the statement.
SELECT statement_timestamp();
