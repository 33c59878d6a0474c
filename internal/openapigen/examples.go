package main

import (
	"encoding/json"
	"time"

	"resource-lock-manager/internal/wire"
)

var (
	lockedAt   = wire.Time(time.Date(2024, 1, 15, 10, 30, 0, 123456000, time.UTC))
	releasedAt = wire.Time(time.Date(2024, 1, 15, 10, 33, 0, 123456000, time.UTC))
	expiresAt  = wire.Time(time.Date(2024, 1, 15, 10, 35, 0, 123456000, time.UTC))

	resource = "database_backup"
	process  = "process_123"
	token    = int64(1705314600123456)
	reason   = "nightly backup"
	stuck    = "the host is gone"
	ops      = "ops"
	cursor   = "MTAwMA"
	ttl      = 300.0
	left     = 299.5
	held     = 180.0
	renewals = 3
	none     = 0

	times  = wire.Times{LockedAt: lockedAt, ExpiresAt: &expiresAt, ExpiresInSeconds: &left}
	holder = wire.Hold{
		ProcessID: process, Times: times, FencingToken: token, Reason: &reason,
		Metadata: json.RawMessage(`{"host":"db-1"}`),
	}
)

// paths are in the order in which a new user tries them. Operations that end a lock come
// last.
var paths = []string{
	"/locks/request", "/locks/status", "/locks/all-locked", "/locks/queue", "/locks/history", "/locks/renew",
	"/locks/renew-all",
	"/locks/validate", "/locks/release", "/locks/release-all", "/locks/force-release", "/health", "/livez", "/readyz",
}

// parameters are the example values of required query parameters.
var parameters = map[string]any{
	"resource_name": resource, "process_id": process, "fencing_token": token,
	"reason": stuck,
}

// bodies are the example bodies of requests. They only have the fields that a new user
// needs.
var bodies = map[string]any{
	"/locks/request":       wire.AcquireRequest{ResourceName: resource, ProcessID: process, TTLSeconds: &ttl},
	"/locks/renew":         wire.RenewRequest{ResourceName: resource, ProcessID: process, TTLSeconds: &ttl},
	"/locks/renew-all":     wire.RenewAllRequest{ProcessID: process, TTLSeconds: ttl},
	"/locks/release":       wire.ReleaseRequest{ResourceName: resource, ProcessID: process},
	"/locks/release-all":   wire.ReleaseAllRequest{ProcessID: process},
	"/locks/force-release": wire.ForceReleaseRequest{ResourceName: resource, Reason: stuck},
}

// responses are the example bodies of the statuses of each path.
var responses = map[string]map[int]any{
	"/locks/request": {
		200: success("Lock acquired successfully for resource 'database_backup'", wire.Acquired{
			LockID: 1, ResourceName: resource, ProcessID: process, Times: times, FencingToken: token,
		}),
	},
	"/locks/release": {
		200: success("Lock released successfully for resource 'database_backup'", wire.Released{
			ResourceName: resource, ProcessID: process, ReleasedAt: releasedAt,
		}),
	},
	"/locks/renew": {
		200: success("Lock renewed successfully for resource 'database_backup'", wire.Renewed{
			ResourceName: resource, ProcessID: process, Times: times, FencingToken: token, Renewals: renewals,
		}),
	},
	"/locks/renew-all": {
		200: success("Renewed 2 locks of process 'process_123'", wire.RenewedAll{
			ProcessID: process, Renewed: 2, Lost: []wire.HoldRef{{ResourceName: "file_upload", FencingToken: token}},
		}),
	},
	"/locks/release-all": {
		200: success("Released 2 locks of process 'process_123'",
			wire.ReleasedAll{ProcessID: process, Released: 2, Lost: []wire.HoldRef{}}),
	},
	"/locks/force-release": {
		200: success("Lock force-released for resource 'database_backup'", wire.ForceReleased{
			ResourceName: resource, ReleasedAt: releasedAt, Reason: stuck, By: ops, Holder: holder,
		}),
		404: wire.Failure{Detail: "Resource 'database_backup' is not locked", Code: wire.CodeNotLocked},
	},
	"/locks/status": {
		200: success("Resource 'database_backup' status retrieved successfully", wire.Status{
			ResourceName: resource, IsLocked: true, LockedBy: &process, LockedAt: &lockedAt, ExpiresAt: &expiresAt,
			ExpiresInSeconds: &left, FencingToken: &token, Waiters: 2, Reason: &reason, Metadata: holder.Metadata,
			Renewals: &none,
		}),
	},
	"/locks/queue": {
		200: success("Retrieved 1 waiter of resource 'database_backup'", wire.Queue{
			ResourceName: resource,
			Waiters: []wire.Waiter{
				{Position: 1, ProcessID: "process_456", WaitingSince: lockedAt, WaitedSeconds: held, Reason: &reason},
			},
		}),
	},
	"/locks/validate": {
		200: success("Fencing token is valid for resource 'database_backup'", wire.Validity{
			Valid: true, ResourceName: resource, FencingToken: token, CurrentFencingToken: &token,
			ExpiresInSeconds: &left,
		}),
	},
	"/locks/all-locked": {
		200: success("Retrieved 1 active locks", wire.AllLocked{
			TotalLocks: 1, Locks: []wire.Lock{{ID: 1, ResourceName: resource, Hold: holder}}, NextCursor: &cursor,
		}),
	},
	"/locks/history": {
		200: success("Retrieved 2 events", wire.History{Events: []wire.Event{
			{
				ID: 2, Event: "force_released", At: releasedAt, ResourceName: resource, ProcessID: process,
				FencingToken: &token, HeldSeconds: &held, Renewals: &renewals, Reason: &stuck, By: &ops,
				HoldReason: &reason,
			},
			{
				ID: 1, Event: "acquired", At: lockedAt, ResourceName: resource, ProcessID: process, FencingToken: &token,
				Reason: &reason,
			},
		}}),
	},
	"/health": {200: wire.Health{Status: "healthy", Service: "Resource Lock Manager"}},
	"/livez":  {200: wire.Probe{Status: "ok"}},
	"/readyz": {200: wire.Probe{Status: "ok"}},
}

func success[T any](message string, data T) wire.Success[T] {
	return wire.Success[T]{Success: true, Message: message, Data: data}
}

// failures are the example bodies that all paths share.
var failures = map[int]any{
	404: wire.Failure{
		Detail: "No active lock found for resource 'database_backup' by process 'process_123'",
		Code:   wire.CodeNotHeld,
	},
	409: wire.Conflict{
		Detail: "Resource 'database_backup' is already locked by process 'other_process'",
		Code:   wire.CodeAlreadyLocked,
		Holder: &wire.Hold{ProcessID: "other_process", Times: times, FencingToken: token, Reason: &reason},

		Waiters:           2,
		RetryAfterSeconds: &left,
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
	500: wire.Failure{
		Detail: "Internal Server Error", Code: wire.CodeInternal,
		RequestID: "H3Y4KSVTZXUIBYNTSXHXTB2J7B",
	},
	503: wire.Failure{Detail: "The database is not available", Code: wire.CodeUnavailable},
}
