package service

import (
	"context"
	"errors"
	"fmt"
)

// Errors that state that a command could not be executed. A Store returns them wrapped
// with their cause.
var (
	// ErrUnavailable: the database cannot be reached or cannot write. Nothing was
	// changed. Retry later.
	ErrUnavailable = errors.New("the database is not available")
	// ErrOverloaded: too many commands are queued. Nothing was changed. Retry later.
	ErrOverloaded = errors.New("too many requests are waiting for the database")
	// ErrStopping: the server is shutting down. Nothing was changed. Retry on another
	// server, or later.
	ErrStopping = errors.New("the server is shutting down")
	// ErrOutcomeUnknown: the command was sent to the database and no answer came. It may
	// have been executed.
	ErrOutcomeUnknown = errors.New("the database did not confirm the change: it may or may not have happened")
	// ErrClientGone: the client disconnected while its request waited. The request holds
	// nothing.
	ErrClientGone = fmt.Errorf("the client disconnected: %w", context.Canceled)
)
