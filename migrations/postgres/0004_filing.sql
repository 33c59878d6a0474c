-- +goose Up

-- Here events enter the indexes of the history one by one: a server of its own writes what has changed, after the commit.
SELECT 1;
