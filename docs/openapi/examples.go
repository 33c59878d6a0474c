package main

import (
	"time"

	"resource-lock-manager/internal/wire"
)

var (
	lockedAt  = wire.Time(time.Date(2024, 1, 15, 10, 30, 0, 123456000, time.UTC))
	expiresAt = wire.Time(time.Date(2024, 1, 15, 10, 35, 0, 123456000, time.UTC))
	process   = "process_123"
)

// parameters are the example values of query parameters.
var parameters = map[string]any{"resource_name": "database_backup", "process_id": process}

// answers are the example bodies of one path's statuses.
var answers = map[string]map[int]any{
	"/locks/request": {
		200: wire.Success[wire.Acquired]{
			Success: true,
			Message: "Lock acquired successfully for resource 'database_backup'",
			Data: wire.Acquired{
				LockID: 1, ResourceName: "database_backup", ProcessID: process,
				LockedAt: lockedAt, ExpiresAt: &expiresAt, FencingToken: 1705314600123456,
			},
		},
	},
	"/locks/release": {
		200: wire.Success[wire.Released]{
			Success: true,
			Message: "Lock released successfully for resource 'database_backup'",
			Data:    wire.Released{ResourceName: "database_backup", ProcessID: process, ReleasedAt: expiresAt},
		},
	},
	"/locks/status": {
		200: wire.Success[wire.Status]{
			Success: true,
			Message: "Resource 'database_backup' status retrieved successfully",
			Data: wire.Status{
				ResourceName: "database_backup", IsLocked: true, LockedBy: &process, LockedAt: &lockedAt, ExpiresAt: &expiresAt,
			},
		},
	},
	"/locks/all-locked": {
		200: wire.Success[wire.AllLocked]{
			Success: true,
			Message: "Retrieved 1 active locks",
			Data: wire.AllLocked{TotalLocks: 1, Locks: []wire.Lock{
				{ID: 1, ResourceName: "database_backup", ProcessID: process, LockedAt: lockedAt, ExpiresAt: &expiresAt},
			}},
		},
	},
	"/health": {200: wire.Health{Status: "healthy", Service: "Resource Lock Manager"}},
	"/livez":  {200: wire.Probe{Status: "ok"}},
	"/readyz": {200: wire.Probe{Status: "ok"}},
}

// failures are the example bodies that every path shares.
var failures = map[int]any{
	404: wire.Failure{
		Detail: "No active lock found for resource 'database_backup' by process 'process_123'",
		Code:   wire.CodeNotHeld,
	},
	409: wire.Conflict{
		Detail: "Resource 'database_backup' is already locked by process 'other_process'",
		Code:   wire.CodeAlreadyLocked,
		Holder: wire.Holder{ProcessID: "other_process", LockedAt: lockedAt, ExpiresAt: &expiresAt, FencingToken: 1705314600123456},
	},
	413: wire.Failure{Detail: "The body is larger than 65536 bytes", Code: wire.CodeBodyTooLarge},
	415: wire.Failure{
		Detail: "The body must be JSON, declared by the header Content-Type: application/json",
		Code:   wire.CodeUnsupportedMedia,
	},
	422: wire.ValidationFailure{
		Detail: []wire.Fault{{Loc: []any{"query", "resource_name"}, Msg: "Field required", Type: "missing"}},
		Code:   wire.CodeValidation,
	},
	500: wire.Failure{Detail: "Internal Server Error", Code: wire.CodeInternal, RequestID: "H3Y4KSVTZXUIBYNTSXHXTB2J7B"},
	503: wire.Failure{Detail: "The database is not available", Code: wire.CodeUnavailable},
}
