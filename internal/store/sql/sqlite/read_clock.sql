-- Reads the clock of the last server.
SELECT boot_id, zero_us FROM service_clock;
