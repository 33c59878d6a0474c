package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Errors to compare with by [errors.Is].
var (
	// ErrHeld is any [HeldError]: the lock was not acquired, because another client holds
	// it.
	ErrHeld = errors.New("the resource is locked")
	// ErrLost is any [LostError]: the lock was acquired, and ended before it was
	// released.
	ErrLost = errors.New("the lock is lost")
	// ErrReleased means that Unlock or Abandon has ended the lock.
	ErrReleased = errors.New("the lock was released")
	// ErrUnavailable is any failure to get a final answer: no server could be reached, or
	// every server answered that it cannot serve requests now.
	ErrUnavailable = errors.New("the lock service does not answer")
	// ErrUnauthorized is any [APIError] with the status 401.
	ErrUnauthorized = errors.New("the lock service wants other credentials")
	// ErrForbidden is any [APIError] with the status 403.
	ErrForbidden = errors.New("the lock service does not permit this")
	// ErrOtherDatabase means that a server uses another database than the server that has
	// answered first. The locks of the two databases are independent of each other.
	ErrOtherDatabase = errors.New("the server has another database of locks")
)

// HeldError reports why a lock was not acquired. It is [ErrHeld]. If the context's
// deadline ended the wait, it is [context.DeadlineExceeded] as well.
type HeldError struct {
	Resource   string
	Code       string        // the API's code: already_locked, reserved, wait_timeout or queue_full
	Holder     *Hold         // nil: unknown, or the resource is about to be granted to a waiter
	Waiters    int           // the number of requests that wait for the resource
	RetryAfter time.Duration // the time until the hold expires unless it is renewed; 0: unknown

	cause error
}

func (e *HeldError) Error() string {
	switch {
	case e.Code == codeQueueFull:
		return fmt.Sprintf("%s: the queue is full", e.Resource)
	case e.Holder == nil:
		return e.Resource + ": reserved for a request that waits"
	case e.Holder.Reason != "":
		return fmt.Sprintf("%s: locked by %s (%s)", e.Resource, e.Holder.Owner, e.Holder.Reason)
	default:
		return fmt.Sprintf("%s: locked by %s", e.Resource, e.Holder.Owner)
	}
}

func (e *HeldError) Is(target error) bool { return target == ErrHeld }

func (e *HeldError) Unwrap() error { return e.cause }

// LossReason is the reason why a lock was lost.
type LossReason string

const (
	LossExpired           LossReason = "expired"            // by the server, or by this machine's clock after a pause
	LossForceReleased     LossReason = "force_released"     // see By and Reason
	LossReleasedElsewhere LossReason = "released_elsewhere" // another process released it with this owner's name
	LossUnreachable       LossReason = "unreachable"        // no renewal succeeded in time
	LossNotHeld           LossReason = "not_held"           // the owner has no hold of the resource, or another one
)

// LostError reports why a lock ended before it was released. It is [ErrLost]. If no
// server could be reached, it wraps the last failure.
type LostError struct {
	Resource     string
	FencingToken int64
	Why          LossReason
	By           string // of LossForceReleased: who force-released it; empty: unknown
	Reason       string // of LossForceReleased: why; empty: unknown

	cause error
}

func (e *LostError) Error() string {
	text := e.Resource + ": the lock is lost: "
	switch e.Why {
	case LossExpired:
		return text + "it has expired"
	case LossForceReleased:
		text += "force-released"
		if e.By != "" {
			text += " by " + e.By
		}
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		return text
	case LossReleasedElsewhere:
		return text + "it was released elsewhere"
	case LossUnreachable:
		return fmt.Sprintf("%sit could not be renewed in time: %v", text, e.cause)
	default:
		return text + "its owner does not have it, or has it with another token"
	}
}

func (e *LostError) Is(target error) bool { return target == ErrLost }

func (e *LostError) Unwrap() error { return e.cause }

// APIError is an unsuccessful answer of the service, or of a proxy in front of it, for
// which this package has no other error.
type APIError struct {
	Status    int           // the HTTP status
	Code      string        // the API's code; empty: the answer is not from the lock service
	Detail    string        // the API's text, or the beginning of an answer that is not from the service
	RequestID string        // the ID of the request in the server's log; empty: unknown
	Fields    []string      // of the status 422: the invalid fields
	retry     time.Duration // the Retry-After header
}

func (e *APIError) Error() string {
	text := fmt.Sprintf("the lock service answered %d", e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e *APIError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrForbidden:
		return e.Status == http.StatusForbidden
	case ErrUnavailable:
		return e.temporary()
	}
	return false
}

// temporary reports whether the same request may succeed later, or at another server.
func (e *APIError) temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout:
		return true
	}
	return false
}

// transportError is a failure to get a complete answer.
type transportError struct {
	server string
	cause  error
	unsent bool // the request was not sent, because the server did not answer the probe before it
}

// newTransportError returns an error without the URL of the request. If ctx has ended,
// its cause is the cause of ctx.
func newTransportError(ctx context.Context, base *url.URL, err error) *transportError {
	if cause, is := errors.AsType[*url.Error](err); is {
		err = cause.Err
	}
	ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if cause := context.Cause(ctx); cause != nil && ended {
		err = cause
	}
	return &transportError{server: base.Redacted(), cause: err}
}

func (e *transportError) Error() string { return e.server + ": " + e.cause.Error() }

func (e *transportError) Is(target error) bool { return target == ErrUnavailable }

func (e *transportError) Unwrap() error { return e.cause }
