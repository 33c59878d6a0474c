-- Raises the token floor before resources are deleted.
--   $1  the highest token of these resources
UPDATE token_floor SET fencing_token = $1 WHERE fencing_token < $1;
