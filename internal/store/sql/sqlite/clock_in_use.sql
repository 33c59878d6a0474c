-- Reports whether any resource is held or any place in a queue is kept.
SELECT EXISTS (SELECT 1 FROM resource_locks WHERE is_active)
    OR EXISTS (SELECT 1 FROM lock_waiters);
