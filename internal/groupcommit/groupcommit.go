// Package groupcommit lets concurrent callers share transactions. The commands that
// arrive while one transaction commits become the next batch. A lone command is committed
// without delay, unless its caller permits one. The package contains no SQL: the commit
// function given to New runs one transaction for a batch.
//
// # Promises
//
//  1. Do returns a result only after the transaction that decided it has committed. This
//     includes refusals: a refusal may depend on an earlier command of the same batch.
//  2. Commands run in the order in which Do accepted them, within a batch and across
//     batches.
//  3. A refused command (Result.Err) does not affect the other commands of its batch.
//  4. If the commit function fails for a batch of several commands, or panics, each
//     command runs again in a transaction of its own, in order. So one bad command fails
//     alone. Commands must therefore be safe to decide again. Two failures are returned
//     to the whole batch instead: one for which Config.Fatal is true, because single
//     commands would fail as well, and [ErrOutcomeUnknown], because the batch may have
//     been committed.
//  5. If a caller's context ends while its command is queued, the command is removed and
//     Do returns the context's error. If the command is already being committed, Do
//     returns ErrOutcomeUnknown.
//  6. The queue is bounded. If it is full, Do returns [ErrFull] without waiting.
//  7. A delayed command joins the next batch, which starts at the latest when the delay
//     has passed. It does not delay any other command.
//  8. Stop rejects new commands with [ErrStopped], finishes the accepted ones, and then
//     returns.
//
// The committer cannot know the outcome of a transaction whose commit failed. A commit
// function that does not know the outcome either must wrap ErrOutcomeUnknown.
package groupcommit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

var (
	// ErrFull is returned by Do when the queue is full. The command was not run.
	ErrFull = errors.New("groupcommit: the queue is full")
	// ErrStopped is returned by Do before Start and after Stop. The command was not run.
	ErrStopped = errors.New("groupcommit: not running")
	// ErrOutcomeUnknown is wrapped by a commit function that does not know whether its
	// transaction was committed.
	ErrOutcomeUnknown = errors.New("groupcommit: the outcome of the commit is unknown")
)

// Result is the result of one command of a committed batch: its value, or the error that
// refused it.
type Result[R any] struct {
	Value R
	Err   error
}

// CommitFunc runs one transaction that decides all commands in their order. It returns
// one result for each command. An error means that nothing was committed, unless it wraps
// ErrOutcomeUnknown. The function must limit its own time.
type CommitFunc[C, R any] func(batch []C) ([]Result[R], error)

// Committer runs commands of type C in batches. It runs between Start and Stop.
type Committer[C, R any] struct {
	commit CommitFunc[C, R]
	cfg    Config

	mu      sync.Mutex
	queue   []*call[C, R]
	due     time.Time // when the queue must be committed; zero: now
	running bool
	wake    chan struct{} // holds a token if the queue or running may have changed
	loop    sync.WaitGroup
}

// call is one call of Do.
type call[C, R any] struct {
	cmd    C
	result Result[R]     // valid once done is closed
	done   chan struct{} // closed when the result is known
}

func (c *call[C, R]) finish(result Result[R]) {
	c.result = result
	close(c.done)
}

// Config is the configuration of a Committer.
type Config struct {
	MaxBatch int // the maximum number of commands in one transaction
	MaxQueue int // the maximum number of queued commands

	// Fatal reports whether a failure of the commit function, which committed nothing,
	// has a cause that no single command is to blame for. If nil, no failure is fatal.
	Fatal func(error) bool
}

// New returns a committer that does nothing before Start.
func New[C, R any](commit CommitFunc[C, R], cfg Config) *Committer[C, R] {
	if cfg.Fatal == nil {
		cfg.Fatal = func(error) bool { return false }
	}
	return &Committer[C, R]{commit: commit, cfg: cfg, wake: make(chan struct{}, 1)}
}

// Start starts the loop that commits. Start must be called at most once.
func (c *Committer[C, R]) Start() {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	c.loop.Go(c.run)
}

// Stop rejects new commands, waits until all accepted commands are finished, and ends the
// loop. It may be called any number of times, also without Start.
func (c *Committer[C, R]) Stop() {
	c.mu.Lock()
	c.running = false
	c.mu.Unlock()
	c.signal()
	c.loop.Wait()
}

// Do queues the command and waits for its result. It is safe for concurrent use.
func (c *Committer[C, R]) Do(ctx context.Context, cmd C) (R, error) {
	return c.DoWithin(ctx, cmd, 0)
}

// DoWithin is like Do, but the command does not trigger a commit by itself until
// maxDelay has passed. It joins any batch that commits earlier.
func (c *Committer[C, R]) DoWithin(ctx context.Context, cmd C, maxDelay time.Duration) (R, error) {
	var zero R
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	call := &call[C, R]{cmd: cmd, done: make(chan struct{})}

	c.mu.Lock()
	switch {
	case !c.running:
		c.mu.Unlock()
		return zero, ErrStopped
	case len(c.queue) >= c.cfg.MaxQueue:
		c.mu.Unlock()
		return zero, ErrFull
	}
	switch {
	case maxDelay == 0:
		c.due = time.Time{}
		c.signal()
	case len(c.queue) == 0:
		c.due = time.Now().Add(maxDelay)
		time.AfterFunc(maxDelay, c.signal)
	}
	c.queue = append(c.queue, call)
	c.mu.Unlock()

	select {
	case <-call.done:
		return call.result.Value, call.result.Err
	case <-ctx.Done():
		if c.dequeue(call) {
			return zero, ctx.Err()
		}
		select {
		case <-call.done: // the result raced with the end of the context
			return call.result.Value, call.result.Err
		default:
			return zero, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
		}
	}
}

func (c *Committer[C, R]) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Committer[C, R]) run() {
	for {
		// Runnable callers queue their commands first and join this batch. A lone caller
		// pays nothing for this.
		runtime.Gosched()
		batch, running := c.nextBatch()
		switch {
		case len(batch) > 0:
			c.runBatch(batch)
		case !running:
			return
		default:
			<-c.wake
		}
	}
}

// dequeue removes a call from the queue. It reports whether the call was still queued.
func (c *Committer[C, R]) dequeue(canceled *call[C, R]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, canceled)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	return true
}

// nextBatch removes the next batch from the queue, if it is due.
func (c *Committer[C, R]) nextBatch() (batch []*call[C, R], running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running && !c.due.IsZero() && time.Now().Before(c.due) {
		return nil, true
	}
	c.due = time.Time{}
	n := min(len(c.queue), c.cfg.MaxBatch)
	batch = slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch, c.running
}

// runBatch finishes all calls of a batch, one by one if the whole batch fails.
func (c *Committer[C, R]) runBatch(batch []*call[C, R]) {
	err := c.transact(batch)
	if err == nil {
		return
	}
	if len(batch) == 1 || c.cfg.Fatal(err) || errors.Is(err, ErrOutcomeUnknown) {
		failAll(batch, err)
		return
	}
	for i := range batch {
		switch err := c.transact(batch[i : i+1]); {
		case err == nil:
		case c.cfg.Fatal(err):
			failAll(batch[i:], err)
			return
		default:
			failAll(batch[i:i+1], err)
		}
	}
}

// failAll finishes all calls with the same error.
func failAll[C, R any](calls []*call[C, R], err error) {
	for _, call := range calls {
		call.finish(Result[R]{Err: err})
	}
}

// transact runs one transaction for the calls and finishes them if it commits.
func (c *Committer[C, R]) transact(calls []*call[C, R]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("groupcommit: panic: %v\n%s", p, debug.Stack())
		}
	}()
	cmds := make([]C, len(calls))
	for i, call := range calls {
		cmds[i] = call.cmd
	}
	results, err := c.commit(cmds)
	if err != nil {
		return err
	}
	if len(results) != len(calls) {
		return fmt.Errorf("%w: %d results for %d commands", ErrOutcomeUnknown, len(results), len(calls))
	}
	for i, call := range calls {
		call.finish(results[i])
	}
	return nil
}
