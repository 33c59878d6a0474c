-- +goose Up

-- The clock by which holds expire, as its server left it: the moment at which CLOCK_BOOTTIME was zero, in microseconds since
-- 1970. The next server goes on from there, as long as the machine has not been booted since.
CREATE TABLE service_clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    boot_id TEXT    NOT NULL,
    zero_us INTEGER NOT NULL
);
