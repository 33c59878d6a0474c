// Package wire defines the JSON of the HTTP API once, for the server and for its clients: every answer is a [Success] or a
// [Failure], and failures are told apart by their Code, never by their text.
package wire

import (
	"time"
)

// Code names a kind of failure. Codes are stable.
type Code string

const (
	CodeAlreadyLocked    Code = "already_locked"         // 409: somebody holds the resource
	CodeNotHeld          Code = "not_held"               // 404: the process has no live hold of the resource
	CodeValidation       Code = "validation_error"       // 422: Detail lists each fault
	CodeNotFound         Code = "not_found"              // 404: no such path
	CodeMethodNotAllowed Code = "method_not_allowed"     // 405
	CodeBodyTooLarge     Code = "body_too_large"         // 413
	CodeUnsupportedMedia Code = "unsupported_media_type" // 415: a body needs Content-Type: application/json
	CodeInternal         Code = "internal_error"         // 500: a fault of the server; RequestID finds it in the log
	CodeUnavailable      Code = "database_unavailable"   // 503: nothing was changed, try again
	CodeOverloaded       Code = "overloaded"             // 503: nothing was changed, try again
	CodeStopping         Code = "shutting_down"          // 503: nothing was changed, try another server
	CodeOutcomeUnknown   Code = "outcome_unknown"        // 503: it may or may not have happened
)

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

// Conflict is the body of status 409.
type Conflict struct {
	Detail string `json:"detail" example:"Resource 'database_backup' is already locked by process 'other_process'" validate:"required"`
	Code   Code   `json:"code" example:"already_locked" validate:"required"`
	Holder Holder `json:"holder" validate:"required"`
}

// Holder is who keeps a resource from the caller.
type Holder struct {
	ProcessID    string `json:"process_id" example:"other_process" validate:"required"`
	LockedAt     Time   `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" validate:"required"`
	ExpiresAt    *Time  `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	FencingToken int64  `json:"fencing_token" example:"1705314600123456" validate:"required"`
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

// AcquireRequest is the body of POST /locks/request.
type AcquireRequest struct {
	ResourceName string   `json:"resource_name" example:"database_backup" minLength:"1" maxLength:"255" validate:"required"`
	ProcessID    string   `json:"process_id" example:"process_123" minLength:"1" maxLength:"255" validate:"required"`
	TTLSeconds   *float64 `json:"ttl_seconds,omitempty" example:"300" extensions:"x-nullable"` // absent or null: the lock never expires
}

// Acquired is the data of a granted lock.
type Acquired struct {
	LockID       int64  `json:"lock_id" example:"1" validate:"required"` // the resource's row, not this hold
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	LockedAt     Time   `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" validate:"required"`
	ExpiresAt    *Time  `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	FencingToken int64  `json:"fencing_token" example:"1705314600123456" validate:"required"` // grows with each hold of the resource
}

// Released is the data of a released lock.
type Released struct {
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	ReleasedAt   Time   `json:"released_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" validate:"required"`
}

// Status is the data of a resource's status. All but the first two fields are null while it is not locked.
type Status struct {
	ResourceName string  `json:"resource_name" example:"database_backup" validate:"required"`
	IsLocked     bool    `json:"is_locked" example:"true" validate:"required"`
	LockedBy     *string `json:"locked_by" example:"process_123" extensions:"x-nullable" validate:"required"`
	LockedAt     *Time   `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" extensions:"x-nullable" validate:"required"`
	ExpiresAt    *Time   `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
}

// AllLocked is the data of the list of locked resources.
type AllLocked struct {
	TotalLocks int    `json:"total_locks" example:"1" validate:"required"`
	Locks      []Lock `json:"locks" validate:"required"`
}

// Lock is one entry of that list.
type Lock struct {
	ID           int64  `json:"id" example:"1" validate:"required"`
	ResourceName string `json:"resource_name" example:"database_backup" validate:"required"`
	ProcessID    string `json:"process_id" example:"process_123" validate:"required"`
	LockedAt     Time   `json:"locked_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:30:00.123456+00:00" validate:"required"`
	ExpiresAt    *Time  `json:"expires_at" swaggertype:"string" format:"date-time" example:"2024-01-15T10:35:00.123456+00:00" extensions:"x-nullable" validate:"required"`
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

const timeLayout = "2006-01-02T15:04:05.000000-07:00"

// MarshalJSON writes the moment in its one form.
func (t Time) MarshalJSON() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(make([]byte, 0, 34), `"`+timeLayout+`"`), nil
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
