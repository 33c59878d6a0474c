-- Inserts this server with a lease that begins now, and returns its id.
INSERT INTO lock_servers (alive_until) VALUES (clock_timestamp() + {{lease}}) RETURNING id;
