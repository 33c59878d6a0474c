package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that say the command could not be carried out now. They come from a Store wrapped with their cause.
var (
	// ErrUnavailable: the database cannot be reached or cannot write; nothing was changed. Try again later.
	ErrUnavailable = errors.New("the database is not available")
	// ErrOverloaded: too many commands are waiting; nothing was changed. Try again later.
	ErrOverloaded = errors.New("too many requests are waiting for the database")
	// ErrStopping: the server is shutting down; nothing was changed. Try another server, or later.
	ErrStopping = errors.New("the server is shutting down")
	// ErrOutcomeUnknown: the command was sent to the database and no answer came. It may or may not have happened.
	ErrOutcomeUnknown = errors.New("the database did not confirm the change: it may or may not have happened")
	// ErrClientGone: the client disconnected while its request waited. The request holds nothing.
	ErrClientGone = fmt.Errorf("the client disconnected: %w", context.Canceled)
)

// HeldError refuses an acquire: somebody holds the resource, or it is free and somebody else is the next to get it.
type HeldError struct {
	Resource string
	Holder   Hold   // zero when nobody holds it
	Next     string // the process that a free resource is reserved for
	Waiters  int    // how many wait
	Now      time.Time

	TimedOut   bool // it has waited for as long as it was allowed to
	Waited     time.Duration
	KeptUntil  time.Time // with TimedOut: its place is kept until then for a request with the same RequestID; zero: it is not
	Position   int       // of the kept place, from 1; 0: unknown
	Superseded bool      // a later request with the same RequestID has taken its place
}

func (e *HeldError) Error() string {
	switch {
	case e.Superseded:
		return fmt.Sprintf("A later request with the same request_id has taken the place of this one in the queue of resource '%s'", e.Resource)
	case e.Holder == (Hold{}) && e.Next == "":
		return fmt.Sprintf("Resource '%s' was not granted", e.Resource)
	case e.Holder == (Hold{}):
		return fmt.Sprintf("Resource '%s' is reserved for process '%s', which waits for it", e.Resource, e.Next)
	case e.TimedOut:
		return fmt.Sprintf("Resource '%s' is still locked by process '%s'", e.Resource, e.Holder.ProcessID)
	}
	return fmt.Sprintf("Resource '%s' is already locked by process '%s'", e.Resource, e.Holder.ProcessID)
}

// PlaceLostError refuses an acquire that waited: its place was taken by a later request with the same RequestID, or was
// given up, while its server had no connection to the database. Nothing was acquired; the request may be repeated.
type PlaceLostError struct {
	Resource string
}

func (e *PlaceLostError) Error() string {
	return fmt.Sprintf("The place in the queue of resource '%s' was lost while this server could not reach the database: "+
		"repeat the request", e.Resource)
}

// QueueFullError refuses an acquire that would have to wait: there is no place left for a waiter.
type QueueFullError struct {
	Resource string
	Waiters  int // how many wait for the resource
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("Too many requests wait already: there is no place left in the queue of resource '%s'", e.Resource)
}

// NotHeldError refuses a release or a renewal: the process does not hold the resource.
type NotHeldError struct {
	Resource  string
	ProcessID string
	Why       Why
}

func (e *NotHeldError) Error() string {
	return fmt.Sprintf("No active lock found for resource '%s' by process '%s'", e.Resource, e.ProcessID) + e.Why.words()
}

// Why tells what is known about a hold that is not there.
type Why int

// The reasons why a process does not hold a resource.
const (
	Unknown         Why = iota // it never held it, or the history does not reach back that far
	OtherToken                 // it holds it, but by another acquisition than the token says
	AlreadyReleased            // it has released it
	Broken                     // its hold was force-released
	HasExpired                 // its hold has expired
)

// words end the sentence of a refusal. A repeated release, and one that comes after the
// expiry, get the seed's sentence as it is.
func (w Why) words() string {
	switch w {
	case OtherToken:
		return " with this fencing token"
	case Broken:
		return ": it was force-released"
	default:
		return ""
	}
}

// NotLockedError refuses a force-release: nobody holds the resource.
type NotLockedError struct {
	Resource string
}

func (e *NotLockedError) Error() string {
	return fmt.Sprintf("Resource '%s' is not locked", e.Resource)
}

// OtherHoldError refuses the force-release of a certain hold: the resource is held by another
// one.
type OtherHoldError struct {
	Resource string
	Holder   Hold
}

func (e *OtherHoldError) Error() string {
	return fmt.Sprintf("Resource '%s' is not locked with this fencing token, but by process '%s' with the fencing token %d",
		e.Resource, e.Holder.ProcessID, e.Holder.Token)
}

// InvalidError refuses a request that does not keep to the limits. It lists every fault at once.
type InvalidError struct {
	Faults []Fault
}

// Fault is one field's fault.
type Fault struct {
	Field   string // as the API names it; within a list "holds.0.resource_name"
	Rule    string // the broken rule, by its stable name in the API
	Message string // what would be right
}

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.Field + ": " + f.Message
	}
	return strings.Join(parts, "; ")
}
