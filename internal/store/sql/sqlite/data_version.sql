-- Reads a number that changes when another program has changed the database.
PRAGMA data_version;
