-- Lets the transaction commit without waiting for a disk or a standby.
SET LOCAL synchronous_commit = off;
