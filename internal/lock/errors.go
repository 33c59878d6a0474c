package lock

import (
	"errors"
	"fmt"
	"strings"
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
)

// HeldError refuses an acquire: somebody holds the resource.
type HeldError struct {
	Resource string
	Holder   Hold
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("Resource '%s' is already locked by process '%s'", e.Resource, e.Holder.ProcessID)
}

// NotHeldError refuses a release: the process has no live hold of the resource.
type NotHeldError struct {
	Resource  string
	ProcessID string
}

func (e *NotHeldError) Error() string {
	return fmt.Sprintf("No active lock found for resource '%s' by process '%s'", e.Resource, e.ProcessID)
}

// InvalidError refuses a request that does not keep to the limits. It lists every fault at once.
type InvalidError struct {
	Faults []Fault
}

// Fault is one field's fault.
type Fault struct {
	Field   string // as the API names it
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
