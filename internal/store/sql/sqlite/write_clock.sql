-- Stores the clock of this server.
--   $1  the id of the boot for which the steady clock counts
--   $2  when the steady clock was zero, in microseconds since 1970
INSERT INTO service_clock (id, boot_id, zero_us) VALUES (1, $1, $2)
ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, zero_us = excluded.zero_us;
