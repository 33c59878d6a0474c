-- +goose Up

-- Here the clock is the database's own.
SELECT 1;
