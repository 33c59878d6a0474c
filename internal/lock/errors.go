package lock

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotWaiting refuses a command that ends a wait: the request neither waits nor holds.
var ErrNotWaiting = errors.New("the request neither waits nor holds")

// HeldError refuses an acquire: the resource is held, or it is free and reserved for its
// next waiter.
type HeldError struct {
	Resource string
	Kind     HeldKind
	Holder   *Hold  // nil if the resource is free
	Next     string // the process of the next waiter of a free resource
	Waiters  int    // the number of waiters
	Now      time.Time

	// Of a wait that timed out.
	Waited    time.Duration
	KeptUntil time.Time // its place is kept until then for a retry with the same RequestID; zero: it is not kept
	Position  int       // of the kept place, from 1; 0: unknown
}

// HeldKind is the kind of a HeldError.
type HeldKind int

// The kinds.
const (
	Held       HeldKind = iota // the request does not wait
	TimedOut                   // the request waited for as long as it asked to
	Superseded                 // a later request with the same RequestID has taken its place
)

func (e *HeldError) Error() string {
	switch {
	case e.Kind == Superseded:
		return fmt.Sprintf("A later request with the same request_id has taken the place of this one "+
			"in the queue of resource '%s'", e.Resource)
	case e.Holder == nil && e.Next == "":
		return fmt.Sprintf("Resource '%s' was not granted", e.Resource)
	case e.Holder == nil:
		return fmt.Sprintf("Resource '%s' is reserved for process '%s', which waits for it", e.Resource, e.Next)
	case e.Kind == TimedOut:
		return fmt.Sprintf("Resource '%s' is still locked by process '%s'", e.Resource, e.Holder.ProcessID)
	}
	return fmt.Sprintf("Resource '%s' is already locked by process '%s'", e.Resource, e.Holder.ProcessID)
}

// Refusal returns why the resource cannot be acquired now.
func (r Resource) Refusal(now time.Time, kind HeldKind) *HeldError {
	e := &HeldError{Resource: r.Name, Kind: kind, Now: now, Waiters: r.Waiters}
	if holder, held := r.Holder(now); held {
		e.Holder = &holder
	} else if first := r.First(now); first != nil {
		e.Next = first.Request.ProcessID
	}
	return e
}

// PlaceLostError refuses an acquire that waited: its place was taken by a later request
// with the same RequestID, or removed, while its server had no connection to the
// database. Nothing was acquired. The client may retry.
type PlaceLostError struct {
	Resource string
}

func (e *PlaceLostError) Error() string {
	return fmt.Sprintf("The place in the queue of resource '%s' was lost while this server could not reach the database: "+
		"repeat the request", e.Resource)
}

// QueueFullError refuses an acquire that would have to wait: the queue is full, or the
// server has its maximum number of waiting requests.
type QueueFullError struct {
	Resource string
	Waiters  int // the number of waiters of the resource
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("Too many requests wait already: there is no place left in the queue of resource '%s'", e.Resource)
}

// NotHeldError refuses a release or a renewal: the process does not hold the resource.
type NotHeldError struct {
	Resource  string
	ProcessID string
	Reason    NotHeldReason
}

// Error returns the same sentence for a hold that never was, that was released and that
// has expired: clients of the Python version know it.
func (e *NotHeldError) Error() string {
	text := fmt.Sprintf("No active lock found for resource '%s' by process '%s'", e.Resource, e.ProcessID)
	switch e.Reason {
	case ReasonTokenMismatch:
		return text + " with this fencing token"
	case ReasonForceReleased:
		return text + ": it was force-released"
	default:
		return text
	}
}

// NotHeldReason is why a process does not hold a resource.
type NotHeldReason int

// The reasons.
const (
	ReasonUnknown       NotHeldReason = iota // it never held it, or the history does not reach back that far
	ReasonTokenMismatch                      // it holds the resource with another token
	ReasonReleased                           // it has released it
	ReasonForceReleased                      // its hold was force-released
	ReasonExpired                            // its hold has expired
)

// NotLockedError refuses a force-release: the resource is not held.
type NotLockedError struct {
	Resource string
}

func (e *NotLockedError) Error() string {
	return fmt.Sprintf("Resource '%s' is not locked", e.Resource)
}

// OtherHoldError refuses the force-release of one hold: the resource has another one.
type OtherHoldError struct {
	Resource string
	Holder   Hold
}

func (e *OtherHoldError) Error() string {
	return fmt.Sprintf("Resource '%s' is not locked with this fencing token, but by process '%s' with the fencing token %d",
		e.Resource, e.Holder.ProcessID, e.Holder.Token)
}
