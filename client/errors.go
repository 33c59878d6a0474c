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
	// ErrHeld is any [HeldError]: the lock was not acquired, because somebody else has
	// it.
	ErrHeld = errors.New("the resource is locked")
	// ErrLost is any [LostError]: the lock was acquired, and ended before it was
	// released.
	ErrLost = errors.New("the lock is lost")
	// ErrReleased means that Unlock or Abandon has ended the lock.
	ErrReleased = errors.New("the lock was released")
	// ErrUnavailable is any failure to get an answer that settles the matter: no server
	// could be reached, or each said that it cannot serve requests now.
	ErrUnavailable = errors.New("the lock service does not answer")
	// ErrUnauthorized is any [APIError] with the status 401.
	ErrUnauthorized = errors.New("the lock service wants other credentials")
	// ErrForbidden is any [APIError] with the status 403.
	ErrForbidden = errors.New("the lock service does not permit this")
	// ErrOtherDatabase means that a server keeps its locks in another database than the
	// server that the client talked to first. Locks of the two exclude nothing from each
	// other.
	ErrOtherDatabase = errors.New("the server has another database of locks")
)

// HeldError is why a lock was not acquired. It is [ErrHeld]. When the context's deadline
// ended the wait, it is [context.DeadlineExceeded] as well.
type HeldError struct {
	Resource   string
	Code       string        // the API's code: already_locked, reserved, wait_timeout or queue_full
	Holder     *Hold         // who holds the resource; nil: it is free and about to be granted to a waiter, or not known
	Waiters    int           // how many requests wait for it
	RetryAfter time.Duration // when the hold expires unless it is renewed; 0: not known

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

// LossReason is why a lock was lost.
type LossReason string

const (
	LossExpired           LossReason = "expired"            // its time was over: by the server, or by this machine's clock after a pause
	LossForceReleased     LossReason = "force_released"     // somebody broke it: see By and Reason
	LossReleasedElsewhere LossReason = "released_elsewhere" // somebody released it with this owner's name
	LossUnreachable       LossReason = "unreachable"        // no renewal succeeded in time; the server may still show the hold
	LossNotHeld           LossReason = "not_held"           // the owner has no hold of the resource, or another one
)

// LostError is why a lock ended before it was released. It is [ErrLost]. When the servers
// could not be reached, it wraps the last failure.
type LostError struct {
	Resource     string
	FencingToken int64
	Why          LossReason
	By           string // of LossForceReleased: who broke it; empty: not known
	Reason       string // of LossForceReleased: why; empty: not known

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

// APIError is an answer of the service, or of a proxy before it, that is neither success
// nor explained by another error of this package.
type APIError struct {
	Status    int           // the HTTP status
	Code      string        // the API's code; empty: the answer is not the lock service's
	Detail    string        // the API's text, or the beginning of an answer that is not its own
	RequestID string        // finds the request in the server's log; empty: unknown
	Fields    []string      // of the status 422: the fields that are wrong
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
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// transportError is a failure to get a whole answer.
type transportError struct {
	server string
	cause  error
	unsent bool // the request was not sent, because the server gave no sign of life before
}

// newTransportError leaves out the URL of the request, and says what ended it if that was
// not the caller's context.
func newTransportError(ctx context.Context, base *url.URL, err error) *transportError {
	if cause, is := errors.AsType[*url.Error](err); is {
		err = cause.Err
	}
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		err = cause
	}
	return &transportError{server: base.Redacted(), cause: err}
}

func (e *transportError) Error() string { return e.server + ": " + e.cause.Error() }

func (e *transportError) Is(target error) bool { return target == ErrUnavailable }

func (e *transportError) Unwrap() error { return e.cause }
