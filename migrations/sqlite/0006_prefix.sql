-- +goose Up

-- SQLite compares names byte by byte, so the unique index on resource_name already serves ranges and order.
SELECT 1;
