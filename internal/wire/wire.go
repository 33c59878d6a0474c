// Package wire defines the JSON of the HTTP API once, for the server and for its clients.
// Every response is a [Success] or a [Failure]. Clients distinguish failures by their
// Code, never by their text.
package wire

import (
	"encoding/json"
	"time"
)

// Code names a kind of failure. Codes are stable.
type Code string

const (
	CodeAlreadyLocked    Code = "already_locked"         // 409: the resource is held
	CodeWaitTimeout      Code = "wait_timeout"           // 409: the request has waited for its wait_seconds
	CodeSuperseded       Code = "superseded"             // 409: a later request with the same request_id has taken the place of this one
	CodeReserved         Code = "reserved"               // 409: the resource is free, and its next waiter will be granted it
	CodeNotHeld          Code = "not_held"               // 404: the process never held the resource, as far back as the history reaches
	CodeTokenMismatch    Code = "token_mismatch"         // 404: there is a hold, but with another fencing token
	CodeAlreadyReleased  Code = "already_released"       // 404: the process has already released it; a repeated release may treat this as success
	CodeForceReleased    Code = "force_released"         // 404: its hold was force-released
	CodeExpired          Code = "expired"                // 404: its hold has expired
	CodeNotLocked        Code = "not_locked"             // 404: the resource is not held
	CodeValidation       Code = "validation_error"       // 422: Detail lists each fault
	CodeNotFound         Code = "not_found"              // 404: no such path
	CodeMethodNotAllowed Code = "method_not_allowed"     // 405
	CodeBodyTooLarge     Code = "body_too_large"         // 413
	CodeUnsupportedMedia Code = "unsupported_media_type" // 415: a body needs Content-Type: application/json
	CodeInternal         Code = "internal_error"         // 500: an internal error; RequestID finds it in the log
	CodeUnavailable      Code = "database_unavailable"   // 503: nothing was changed, retry
	CodeOverloaded       Code = "overloaded"             // 503: nothing was changed, retry
	CodePlaceLost        Code = "place_lost"             // 503: nothing was acquired, and the place in the queue was lost; retry
	CodeQueueFull        Code = "queue_full"             // 503: the request would have to wait, and no more requests may wait
	CodeStopping         Code = "shutting_down"          // 503: nothing was changed, retry on another server
	CodeOutcomeUnknown   Code = "outcome_unknown"        // 503: the change may or may not have happened
)

// Reason is why the server ended the wait of a request, or a hold that its process had
// not released. In the history it is the reason of gave_up, and of a released event that
// no client asked for. Reasons are stable.
type Reason string

const (
	ReasonWaitTimeout    Reason = "wait_timeout"      // the request waited for its wait_seconds
	ReasonClientGone     Reason = "client_gone"       // the client disconnected, or it was sent a 503
	ReasonServerStopping Reason = "server_stopping"   // the server was stopped while the request waited
	ReasonDidNotComeBack Reason = "did_not_come_back" // the place was kept, and the client did not retry in time
)

// DatabaseHeader is the header of every response with the random id of the server's
// database: 32 lower-case hexadecimal digits. Servers with the same id share their locks.
// The exception is a copy of a database, which keeps the id of its original.
const DatabaseHeader = "Lock-Database"

// Success is the envelope of every successful response about locks.
type Success[T any] struct {
	Success bool   `json:"success" example:"true" validate:"required"`
	Message string `json:"message" validate:"required"`
	Data    T      `json:"data" validate:"required"`
}

// Failure is the body of every response that is not successful, except for the statuses
// 409 (see Conflict) and 422 (see ValidationFailure).
type Failure struct {
	Detail    string `json:"detail" validate:"required"`
	Code      Code   `json:"code" validate:"required"`
	RequestID string `json:"request_id,omitempty"`
}

// Conflict is the body of status 409. Holder is null if the resource is free but reserved
// for a waiter. RetryAfterSeconds is given if the holder's lock expires, and is 1 while a
// place is kept.
type Conflict struct {
	Detail string `json:"detail" example:"Resource 'database_backup' is already locked by process 'other_process'" validate:"required"`
	Code   Code   `json:"code" example:"already_locked" validate:"required"`
	Holder *Hold  `json:"holder" extensions:"x-nullable" validate:"required"`

	Waiters           int      `json:"waiters" example:"2" validate:"required"`      // the number of waiters
	WaitedSeconds     *float64 `json:"waited_seconds,omitempty" example:"30.000214"` // with the code wait_timeout
	RetryAfterSeconds *float64 `json:"retry_after_seconds,omitempty" example:"299.876544"`
	PlaceKeptUntil    *Time    `json:"place_kept_until,omitempty" swaggertype:"string" format:"date-time" example:"2024-01-15T10:31:40.123456+00:00"` // with the code wait_timeout: retry with the same request_id before then
	Position          *int     `json:"position,omitempty" example:"1"`                                                                                // of the kept place; 1: the next
}

// Hold describes the holder of a resource, with the time and the reason of the hold.
type Hold struct {
	ProcessID string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken int64           `json:"fencing_token" example:"1705314600123456" validate:"required"`
	Reason       *string         `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`
	Metadata     json.RawMessage `json:"metadata" swaggertype:"object" extensions:"x-nullable" validate:"required"`
}

// Times are the times of a hold. A client that uses expires_in_seconds does not depend on
// its own clock.
type Times struct {
	LockedAt         Time     `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" validate:"required"`
	ExpiresAt        *Time    `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds *float64 `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"`
}

// ValidationFailure is the body of status 422, in the format of FastAPI.
type ValidationFailure struct {
	Detail []Fault `json:"detail" validate:"required"`
	Code   Code    `json:"code" example:"validation_error" validate:"required"`
}

// Fault states what is wrong with one field, and what would be right.
type Fault struct {
	Loc  []any  `json:"loc" swaggertype:"array,string" example:"body,resource_name" validate:"required"`
	Msg  string `json:"msg" example:"Field required" validate:"required"`
	Type string `json:"type" example:"missing" validate:"required"`
}

// AcquireRequest is the body of POST /locks/request. Null is the same as absent.
type AcquireRequest struct {
	ResourceName   string          `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID      string          `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds     *float64        `json:"ttl_seconds,omitempty" example:"300" extensions:"x-nullable"`                                         // absent: the server's default; usually the lock never expires
	RequestID      *string         `json:"request_id,omitempty" example:"6f1c9a52-run-7" minLength:"1" maxLength:"255" extensions:"x-nullable"` // send the same id and process again to get the same hold after a lost response
	Reason         *string         `json:"reason,omitempty" example:"nightly backup" maxLength:"500" extensions:"x-nullable"`                   // shown to other clients that want the resource
	Metadata       json.RawMessage `json:"metadata,omitempty" swaggertype:"object" extensions:"x-nullable"`                                     // a JSON object with at most 4 KiB and 8 levels
	WaitSeconds    *float64        `json:"wait_seconds,omitempty" example:"30" minimum:"0" extensions:"x-nullable"`                             // how long the request may wait in the queue; absent or 0: not at all
	MinHoldSeconds *float64        `json:"min_hold_seconds,omitempty" example:"30" minimum:"0" extensions:"x-nullable"`                         // the resource stays taken at least this long, even if the lock is released before
}

// Acquired is the data of a granted lock.
type Acquired struct {
	LockID       int64  `json:"lock_id" example:"1" validate:"required"` // the id of the resource, not of this hold
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken  int64   `json:"fencing_token" example:"1705314600123456" validate:"required"` // grows with every hold of the resource
	WaitedSeconds float64 `json:"waited_seconds" example:"0" validate:"required"`               // in the queue, by the same clock as locked_at
	Repeated      bool    `json:"repeated,omitempty"`                                           // true: an earlier request with this request_id was granted this hold, whose TTL was not renewed
}

// Released is the data of a released lock.
type Released struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	ReleasedAt   Time   `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" validate:"required"`
	FreeAt       *Time  `json:"free_at,omitempty" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:30.123456+00:00"` // given if the minimum hold keeps the resource taken until then
}

// ReleaseRequest is the body of POST /locks/release. Null is the same as absent.
type ReleaseRequest struct {
	ResourceName string `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	FencingToken *int64 `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be the token of the current hold
}

// ForceReleaseRequest is the body of POST /locks/force-release. Null is the same as
// absent.
type ForceReleaseRequest struct {
	ResourceName string  `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	Reason       string  `json:"reason" example:"the host is gone" minLength:"1" maxLength:"500" validate:"required"`
	ProcessID    *string `json:"process_id,omitempty" example:"ops" maxLength:"255" extensions:"x-nullable"` // the caller; absent: its address
	FencingToken *int64  `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be the token of the current hold
}

// RenewRequest is the body of POST /locks/renew.
type RenewRequest struct {
	ResourceName string   `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID    string   `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds   *float64 `json:"ttl_seconds" example:"300" extensions:"x-nullable" validate:"required"`      // counted from now; null: the lock never expires
	FencingToken *int64   `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be the token of the current hold
}

// Renewed is the data of a renewed lock.
type Renewed struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken int64 `json:"fencing_token" example:"1705314600123456" validate:"required"`
	Renewals     int   `json:"renewals" example:"3" validate:"required"` // the number of renewals of this hold
}

// RenewAllRequest is the body of POST /locks/renew-all.
type RenewAllRequest struct {
	ProcessID  string    `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds float64   `json:"ttl_seconds" example:"300" validate:"required"`
	Holds      []HoldRef `json:"holds,omitzero" extensions:"x-nullable"` // if given, only these holds are renewed; an empty list: none
}

// ReleaseAllRequest is the body of POST /locks/release-all.
type ReleaseAllRequest struct {
	ProcessID string    `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	Holds     []HoldRef `json:"holds,omitzero" extensions:"x-nullable"` // if given, only these holds are released; an empty list: none
}

// HoldRef identifies a hold of a process.
type HoldRef struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	FencingToken int64  `json:"fencing_token" example:"1705314600123456" validate:"required"`
}

// RenewedAll is the data of the renewal of many locks of a process.
type RenewedAll struct {
	ProcessID     string    `json:"process_id" example:"process_123" validate:"required"`
	Renewed       int       `json:"renewed" example:"2" validate:"required"`
	WithoutExpiry int       `json:"without_expiry" example:"0" validate:"required"` // the number of holds that were left alone because they never expire
	Lost          []HoldRef `json:"lost" validate:"required"`                       // those listed holds that the process no longer has
}

// ReleasedAll is the data of the release of many locks of a process.
type ReleasedAll struct {
	ProcessID string    `json:"process_id" example:"process_123" validate:"required"`
	Released  int       `json:"released" example:"2" validate:"required"`
	Lost      []HoldRef `json:"lost" validate:"required"` // those listed holds that the process no longer had
}

// ForceReleased is the data of a force-released lock and its former holder.
type ForceReleased struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ReleasedAt   Time   `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:33:00.123456+00:00" validate:"required"`
	Reason       string `json:"reason" example:"the host is gone" validate:"required"`
	By           string `json:"by" example:"ops" validate:"required"`
	Holder       Hold   `json:"holder" validate:"required"`
}

// Validity is the data of a check of a fencing token.
type Validity struct {
	Valid               bool     `json:"valid" example:"true" validate:"required"`
	ResourceName        string   `json:"resource_name" example:"database_backup" validate:"required"`
	FencingToken        int64    `json:"fencing_token" example:"1705314600123456" validate:"required"`
	CurrentFencingToken *int64   `json:"current_fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds    *float64 `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"` // of the current hold
}

// Status is the data of a resource's status. While the resource is not locked, all fields
// but the first two and waiters are null.
type Status struct {
	ResourceName     string          `json:"resource_name" example:"database_backup" validate:"required"`
	IsLocked         bool            `json:"is_locked" example:"true" validate:"required"`
	LockedBy         *string         `json:"locked_by" example:"process_123" extensions:"x-nullable" validate:"required"`
	LockedAt         *Time           `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresAt        *Time           `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds *float64        `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"`
	FencingToken     *int64          `json:"fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	Waiters          int             `json:"waiters" example:"2" validate:"required"` // the number of waiters
	Reason           *string         `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`
	Metadata         json.RawMessage `json:"metadata" swaggertype:"object" extensions:"x-nullable" validate:"required"`
	Renewals         *int            `json:"renewals" example:"3" extensions:"x-nullable" validate:"required"`
	MinHoldUntil     *Time           `json:"min_hold_until" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:30.123456+00:00" extensions:"x-nullable" validate:"required"`
	ReleasedAt       *Time           `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:10.123456+00:00" extensions:"x-nullable" validate:"required"` // not null: its process has released the lock, and only the minimum hold keeps the resource taken
}

// Queue is the data of a resource's queue: one page of its waiters, in their order.
type Queue struct {
	ResourceName string   `json:"resource_name" example:"database_backup" validate:"required"`
	Waiters      []Waiter `json:"waiters" validate:"required"`
	NextCursor   *string  `json:"next_cursor" example:"MTAwMA" extensions:"x-nullable" validate:"required"` // the cursor of the next page; null: this is the last page
}

// Waiter is one entry of a queue.
type Waiter struct {
	Position      int             `json:"position" example:"1" validate:"required"` // 1: the next
	ProcessID     string          `json:"process_id" example:"process_456" validate:"required"`
	WaitingSince  Time            `json:"waiting_since" swaggertype:"string" format:"date-time" example:"2024-01-15T10:31:00.123456+00:00" validate:"required"`
	WaitedSeconds float64         `json:"waited_seconds" example:"12.5" validate:"required"`
	Reason        *string         `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`
	Metadata      json.RawMessage `json:"metadata" swaggertype:"object" extensions:"x-nullable" validate:"required"`
}

// AllLocked is the data of the list of locked resources.
type AllLocked struct {
	TotalLocks int     `json:"total_locks" example:"1" validate:"required"` // the number of locks in this response
	Locks      []Lock  `json:"locks" validate:"required"`
	NextCursor *string `json:"next_cursor,omitempty" example:"MTAwMA" extensions:"x-nullable"` // with a limit: the cursor of the next page; null: this is the last page
}

// Lock is one entry of the list of locked resources.
type Lock struct {
	ID           int64  `json:"id" example:"1" validate:"required"`
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	Hold
}

// History is the data of the history, newest first.
type History struct {
	Events     []Event `json:"events" validate:"required"`
	NextCursor *string `json:"next_cursor" example:"MTAwMA" extensions:"x-nullable" validate:"required"` // the cursor of the next page; null: this is the last page
}

// Event is one entry of the history. The end of a hold states its duration in
// held_seconds. The end of a wait states its duration in waited_seconds.
type Event struct {
	ID            int64    `json:"id" example:"42" validate:"required"`
	Event         string   `json:"event" enums:"acquired,granted,released,force_released,expired,queued,gave_up" example:"released" validate:"required"`
	At            Time     `json:"at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:33:00.123456+00:00" validate:"required"`
	ResourceName  string   `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID     string   `json:"process_id" example:"process_123" validate:"required"` // the process that holds or waits
	FencingToken  *int64   `json:"fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	HeldSeconds   *float64 `json:"held_seconds" example:"180" extensions:"x-nullable" validate:"required"`
	WaitedSeconds *float64 `json:"waited_seconds" example:"12.5" extensions:"x-nullable" validate:"required"`
	Renewals      *int     `json:"renewals" example:"3" extensions:"x-nullable" validate:"required"`
	Reason        *string  `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`      // acquired, granted, queued: the reason of the request; force_released: why the lock was force-released; gave_up: client_gone, wait_timeout, server_stopping or did_not_come_back; released: null, or client_gone, wait_timeout or server_stopping if the server ended the hold; expired: null
	By            *string  `json:"by" example:"ops" extensions:"x-nullable" validate:"required"`                     // force_released: the caller
	HoldReason    *string  `json:"hold_reason" example:"nightly backup" extensions:"x-nullable" validate:"required"` // end of a hold: the reason that was given for the hold
}

// Health is the body of GET /health.
type Health struct {
	Status  string `json:"status" example:"healthy" validate:"required"`
	Service string `json:"service" example:"Resource Lock Manager" validate:"required"`
}

// Probe is the body of GET /livez and GET /readyz.
type Probe struct {
	Status string `json:"status" example:"ok" validate:"required"`
}

// Time is a time in UTC, always written with six fractional digits:
// 2024-01-15T10:30:00.123456+00:00.
type Time time.Time

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return appendTime(make([]byte, 0, len(`"2024-01-15T10:30:00.123456+00:00"`)), t), nil
}

// UnmarshalJSON parses any time in RFC 3339.
func (t *Time) UnmarshalJSON(text []byte) error {
	return (*time.Time)(t).UnmarshalJSON(text)
}

// OptionalTime returns nil for the zero time.
func OptionalTime(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return (*Time)(&t)
}
