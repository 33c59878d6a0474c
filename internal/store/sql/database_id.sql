-- Reads the random id that a migration gave to the database.
SELECT database_id FROM lockd_database;
