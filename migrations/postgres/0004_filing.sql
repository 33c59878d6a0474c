-- +goose Up

-- Not needed on Postgres: its background writer writes changed pages after the commit.
SELECT 1;
