// Package wire defines the JSON of the HTTP API once, for the server and for its clients: every answer is a [Success] or a
// [Failure], and failures are told apart by their Code, never by their text.
package wire

import (
	"encoding/json"
	"time"
)

// Code names a kind of failure. Codes are stable.
type Code string

const (
	CodeAlreadyLocked    Code = "already_locked"         // 409: somebody holds the resource
	CodeWaitTimeout      Code = "wait_timeout"           // 409: the request has waited as long as it asked to
	CodeSuperseded       Code = "superseded"             // 409: a later request with the same request_id has taken the place of this one
	CodeReserved         Code = "reserved"               // 409: the resource is free, and its next waiter is about to get it
	CodeNotHeld          Code = "not_held"               // 404: the process never held the resource, as far as the history reaches
	CodeTokenMismatch    Code = "token_mismatch"         // 404: there is a hold, but not the one of this fencing token
	CodeAlreadyReleased  Code = "already_released"       // 404: the process has released it before; a repeated release may end well here
	CodeForceReleased    Code = "force_released"         // 404: its hold was broken by a force-release
	CodeExpired          Code = "expired"                // 404: its hold has expired
	CodeNotLocked        Code = "not_locked"             // 404: nobody holds the resource
	CodeValidation       Code = "validation_error"       // 422: Detail lists each fault
	CodeNotFound         Code = "not_found"              // 404: no such path
	CodeMethodNotAllowed Code = "method_not_allowed"     // 405
	CodeBodyTooLarge     Code = "body_too_large"         // 413
	CodeUnsupportedMedia Code = "unsupported_media_type" // 415: a body needs Content-Type: application/json
	CodeInternal         Code = "internal_error"         // 500: a fault of the server; RequestID finds it in the log
	CodeUnavailable      Code = "database_unavailable"   // 503: nothing was changed, try again
	CodeOverloaded       Code = "overloaded"             // 503: nothing was changed, try again
	CodePlaceLost        Code = "place_lost"             // 503: nothing was acquired; the place in the queue was lost meanwhile, try again
	CodeQueueFull        Code = "queue_full"             // 503: there is no place left for a request that has to wait
	CodeStopping         Code = "shutting_down"          // 503: nothing was changed, try another server
	CodeOutcomeUnknown   Code = "outcome_unknown"        // 503: it may or may not have happened
)

// Reason names why the server ended the waiting of a request, or a hold that its process had not released. In the history
// it is the reason of gave_up, and of a released that was not asked for. Reasons are stable.
type Reason string

const (
	ReasonWaitTimeout    Reason = "wait_timeout"      // the request waited as long as it had asked to
	ReasonClientGone     Reason = "client_gone"       // nobody was there any more to be answered: the client had disconnected, or been answered 503
	ReasonServerStopping Reason = "server_stopping"   // the server was stopped while the request waited
	ReasonDidNotComeBack Reason = "did_not_come_back" // the place was kept, and nobody repeated the request in time
)

// DatabaseHeader is the header of every answer with the random id of the server's database: 32 lower-case hexadecimal
// digits. Servers with the same id share their locks, unless one of the databases is a copy, which keeps the id of its
// original.
const DatabaseHeader = "Lock-Database"

// Success is the envelope of every successful answer about locks.
type Success[T any] struct {
	Success bool   `json:"success" example:"true" validate:"required"`
	Message string `json:"message" validate:"required"`
	Data    T      `json:"data" validate:"required"`
}

// Failure is the body of every answer that is not successful, except for status 422, see ValidationFailure.
type Failure struct {
	Detail    string `json:"detail" validate:"required"`
	Code      Code   `json:"code" validate:"required"`
	RequestID string `json:"request_id,omitempty"`
}

// Conflict is the body of status 409. Holder is null when the resource is free but reserved for a waiter. RetryAfterSeconds
// is present when the holder's expiry is known, and is 1 while a place is kept.
type Conflict struct {
	Detail string `json:"detail" example:"Resource 'database_backup' is already locked by process 'other_process'" validate:"required"`
	Code   Code   `json:"code" example:"already_locked" validate:"required"`
	Holder *Hold  `json:"holder" extensions:"x-nullable" validate:"required"`

	Waiters           int      `json:"waiters" example:"2" validate:"required"`      // how many wait for the resource
	WaitedSeconds     *float64 `json:"waited_seconds,omitempty" example:"30.000214"` // with the code wait_timeout
	RetryAfterSeconds *float64 `json:"retry_after_seconds,omitempty" example:"299.876544"`
	PlaceKeptUntil    *Time    `json:"place_kept_until,omitempty" swaggertype:"string" format:"date-time" example:"2024-01-15T10:31:40.123456+00:00"` // with the code wait_timeout: repeat the request_id before then
	Position          *int     `json:"position,omitempty" example:"1"`                                                                                // of the place that is kept; 1: the next
}

// Hold is who holds a resource, since when, until when and why.
type Hold struct {
	ProcessID string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken int64           `json:"fencing_token" example:"1705314600123456" validate:"required"`
	Reason       *string         `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`
	Metadata     json.RawMessage `json:"metadata" swaggertype:"object" extensions:"x-nullable" validate:"required"`
}

// Times are a hold's. A client that goes by expires_in_seconds needs no clock of its own.
type Times struct {
	LockedAt         Time     `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" validate:"required"`
	ExpiresAt        *Time    `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds *float64 `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"`
}

// ValidationFailure is the body of status 422, in FastAPI's form.
type ValidationFailure struct {
	Detail []Fault `json:"detail" validate:"required"`
	Code   Code    `json:"code" example:"validation_error" validate:"required"`
}

// Fault says what is wrong with one field and what would be right.
type Fault struct {
	Loc  []any  `json:"loc" swaggertype:"array,string" example:"body,resource_name" validate:"required"`
	Msg  string `json:"msg" example:"Field required" validate:"required"`
	Type string `json:"type" example:"missing" validate:"required"`
}

// AcquireRequest is the body of POST /locks/request. Null counts as absent.
type AcquireRequest struct {
	ResourceName   string          `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID      string          `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds     *float64        `json:"ttl_seconds,omitempty" example:"300" extensions:"x-nullable"`                                         // absent: the server's default, usually that the lock never expires
	RequestID      *string         `json:"request_id,omitempty" example:"6f1c9a52-run-7" minLength:"1" maxLength:"255" extensions:"x-nullable"` // repeat the same id and process to get the same hold again after a lost answer
	Reason         *string         `json:"reason,omitempty" example:"nightly backup" maxLength:"500" extensions:"x-nullable"`                   // shown to whoever wants the resource
	Metadata       json.RawMessage `json:"metadata,omitempty" swaggertype:"object" extensions:"x-nullable"`                                     // an object of at most 4 KiB and 8 levels
	WaitSeconds    *float64        `json:"wait_seconds,omitempty" example:"30" minimum:"0" extensions:"x-nullable"`                             // how long the request may wait for its turn; absent or 0: not at all
	MinHoldSeconds *float64        `json:"min_hold_seconds,omitempty" example:"30" minimum:"0" extensions:"x-nullable"`                         // the resource stays taken at least this long, even if released before
}

// Acquired is the data of a granted lock.
type Acquired struct {
	LockID       int64  `json:"lock_id" example:"1" validate:"required"` // the resource's row, not this hold
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken  int64   `json:"fencing_token" example:"1705314600123456" validate:"required"` // grows with each hold of the resource
	WaitedSeconds float64 `json:"waited_seconds" example:"0" validate:"required"`               // in the queue, by the clock of the locks
	Repeated      bool    `json:"repeated,omitempty"`                                           // true: an earlier request with this request_id was granted this hold; its TTL was not renewed
}

// Released is the data of a released lock.
type Released struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	ReleasedAt   Time   `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" validate:"required"`
	FreeAt       *Time  `json:"free_at,omitempty" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:30.123456+00:00"` // there when the minimum hold keeps the resource taken until then
}

// ReleaseRequest is the body of POST /locks/release. Null counts as absent.
type ReleaseRequest struct {
	ResourceName string `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	FencingToken *int64 `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be that of the current hold
}

// ForceReleaseRequest is the body of POST /locks/force-release. Null counts as absent.
type ForceReleaseRequest struct {
	ResourceName string  `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	Reason       string  `json:"reason" example:"the host is gone" minLength:"1" maxLength:"500" validate:"required"`
	ProcessID    *string `json:"process_id,omitempty" example:"ops" maxLength:"255" extensions:"x-nullable"` // who asks; absent: the caller's address
	FencingToken *int64  `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be that of the current hold
}

// RenewRequest is the body of POST /locks/renew.
type RenewRequest struct {
	ResourceName string   `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID    string   `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds   *float64 `json:"ttl_seconds" example:"300" extensions:"x-nullable" validate:"required"`      // counted from now; null: the lock never expires
	FencingToken *int64   `json:"fencing_token,omitempty" example:"1705314600123456" extensions:"x-nullable"` // if given, it must be that of the current hold
}

// Renewed is the data of a renewed lock.
type Renewed struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	Times
	FencingToken int64 `json:"fencing_token" example:"1705314600123456" validate:"required"`
	Renewals     int   `json:"renewals" example:"3" validate:"required"` // how often this hold has been renewed
}

// RenewAllRequest is the body of POST /locks/renew-all.
type RenewAllRequest struct {
	ProcessID  string    `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds float64   `json:"ttl_seconds" example:"300" validate:"required"`
	Holds      []HoldRef `json:"holds,omitzero" extensions:"x-nullable"` // if given, no other holds are renewed: with an empty list none
}

// ReleaseAllRequest is the body of POST /locks/release-all.
type ReleaseAllRequest struct {
	ProcessID string    `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	Holds     []HoldRef `json:"holds,omitzero" extensions:"x-nullable"` // if given, no other holds are released: with an empty list none
}

// HoldRef names a hold as its process knows it.
type HoldRef struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	FencingToken int64  `json:"fencing_token" example:"1705314600123456" validate:"required"`
}

// RenewedAll is the data of a heartbeat.
type RenewedAll struct {
	ProcessID     string    `json:"process_id" example:"process_123" validate:"required"`
	Renewed       int       `json:"renewed" example:"2" validate:"required"`
	WithoutExpiry int       `json:"without_expiry" example:"0" validate:"required"` // holds that never expire, and so were left alone
	Lost          []HoldRef `json:"lost" validate:"required"`                       // of the listed holds, those that the process has no more
}

// ReleasedAll is the data of the end of all holds of a process.
type ReleasedAll struct {
	ProcessID string    `json:"process_id" example:"process_123" validate:"required"`
	Released  int       `json:"released" example:"2" validate:"required"`
	Lost      []HoldRef `json:"lost" validate:"required"` // of the listed holds, those that the process had no more
}

// ForceReleased is the data of a broken lock: whose it was.
type ForceReleased struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ReleasedAt   Time   `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:33:00.123456+00:00" validate:"required"`
	Reason       string `json:"reason" example:"the host is gone" validate:"required"`
	By           string `json:"by" example:"ops" validate:"required"`
	Holder       Hold   `json:"holder" validate:"required"`
}

// Validity is the data of the check of a fencing token.
type Validity struct {
	Valid               bool     `json:"valid" example:"true" validate:"required"`
	ResourceName        string   `json:"resource_name" example:"database_backup" validate:"required"`
	FencingToken        int64    `json:"fencing_token" example:"1705314600123456" validate:"required"`
	CurrentFencingToken *int64   `json:"current_fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds    *float64 `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"` // of the current hold
}

// Status is the data of a resource's status. All but the first two fields and waiters are null while it
// is not locked.
type Status struct {
	ResourceName     string          `json:"resource_name" example:"database_backup" validate:"required"`
	IsLocked         bool            `json:"is_locked" example:"true" validate:"required"`
	LockedBy         *string         `json:"locked_by" example:"process_123" extensions:"x-nullable" validate:"required"`
	LockedAt         *Time           `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresAt        *Time           `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresInSeconds *float64        `json:"expires_in_seconds" example:"299.876544" extensions:"x-nullable" validate:"required"`
	FencingToken     *int64          `json:"fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	Waiters          int             `json:"waiters" example:"2" validate:"required"` // how many wait for it
	Reason           *string         `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`
	Metadata         json.RawMessage `json:"metadata" swaggertype:"object" extensions:"x-nullable" validate:"required"`
	Renewals         *int            `json:"renewals" example:"3" extensions:"x-nullable" validate:"required"`
	MinHoldUntil     *Time           `json:"min_hold_until" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:30.123456+00:00" extensions:"x-nullable" validate:"required"`
	ReleasedAt       *Time           `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:10.123456+00:00" extensions:"x-nullable" validate:"required"` // set: its process has released it, and only the minimum hold keeps it taken
}

// Queue is the data of a resource's queue: a page of those who wait, in their order.
type Queue struct {
	ResourceName string   `json:"resource_name" example:"database_backup" validate:"required"`
	Waiters      []Waiter `json:"waiters" validate:"required"`
	NextCursor   *string  `json:"next_cursor" example:"MTAwMA" extensions:"x-nullable" validate:"required"` // where to go on, null at the end
}

// Waiter is one entry of the queue.
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
	TotalLocks int     `json:"total_locks" example:"1" validate:"required"` // in this answer
	Locks      []Lock  `json:"locks" validate:"required"`
	NextCursor *string `json:"next_cursor,omitempty" example:"MTAwMA" extensions:"x-nullable"` // with a limit: where to go on, null at the end
}

// Lock is one entry of that list.
type Lock struct {
	ID           int64  `json:"id" example:"1" validate:"required"`
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	Hold
}

// History is the data of the history, newest first.
type History struct {
	Events     []Event `json:"events" validate:"required"`
	NextCursor *string `json:"next_cursor" example:"MTAwMA" extensions:"x-nullable" validate:"required"` // where to go on, null at the end
}

// Event is one entry of the history. Those that end a hold tell how long it lasted, those that end waiting how long that took.
type Event struct {
	ID            int64    `json:"id" example:"42" validate:"required"`
	Event         string   `json:"event" enums:"acquired,granted,released,force_released,expired,queued,gave_up" example:"released" validate:"required"`
	At            Time     `json:"at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:33:00.123456+00:00" validate:"required"`
	ResourceName  string   `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID     string   `json:"process_id" example:"process_123" validate:"required"` // the holder, or who waits
	FencingToken  *int64   `json:"fencing_token" example:"1705314600123456" extensions:"x-nullable" validate:"required"`
	HeldSeconds   *float64 `json:"held_seconds" example:"180" extensions:"x-nullable" validate:"required"`
	WaitedSeconds *float64 `json:"waited_seconds" example:"12.5" extensions:"x-nullable" validate:"required"`
	Renewals      *int     `json:"renewals" example:"3" extensions:"x-nullable" validate:"required"`
	Reason        *string  `json:"reason" example:"nightly backup" extensions:"x-nullable" validate:"required"`      // acquired, granted, queued: the reason of the request; force_released: why it was broken; gave_up: client_gone, wait_timeout, server_stopping or did_not_come_back; released: null, or client_gone, wait_timeout or server_stopping if the server ended the hold; expired: null
	By            *string  `json:"by" example:"ops" extensions:"x-nullable" validate:"required"`                     // who broke it
	HoldReason    *string  `json:"hold_reason" example:"nightly backup" extensions:"x-nullable" validate:"required"` // of the end of a hold: why it was taken
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

// Time is a UTC moment, always written with six digits of fraction: 2024-01-15T10:30:00.123456+00:00.
type Time time.Time

// MarshalJSON writes the moment in its one form.
func (t Time) MarshalJSON() ([]byte, error) {
	return appendTime(make([]byte, 0, len(`"2024-01-15T10:30:00.123456+00:00"`)), t), nil
}

// UnmarshalJSON reads any RFC 3339 moment.
func (t *Time) UnmarshalJSON(text []byte) error {
	return (*time.Time)(t).UnmarshalJSON(text)
}

// OptionalTime is null for the zero time.
func OptionalTime(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return (*Time)(&t)
}
