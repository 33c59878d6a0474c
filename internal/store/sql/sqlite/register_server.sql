-- Inserts this server and returns its id. Its lease does not end while it has the file open.
INSERT INTO lock_servers DEFAULT VALUES RETURNING id;
