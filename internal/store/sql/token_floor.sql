-- Reads the highest token of all deleted resources: a new resource starts above it.
SELECT fencing_token FROM token_floor;
