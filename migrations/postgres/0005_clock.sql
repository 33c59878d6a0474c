-- +goose Up

-- Not needed on Postgres: the clock is that of the database.
SELECT 1;
