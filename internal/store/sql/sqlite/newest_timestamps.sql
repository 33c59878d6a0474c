-- Reads the newest timestamps of the current holds and of the history.
SELECT max(locked_at), max(renewed_at), max(released_at),
    (SELECT at FROM lock_events ORDER BY id DESC LIMIT 1)
FROM resource_locks WHERE is_active;
