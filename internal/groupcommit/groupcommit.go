// Package groupcommit lets many callers share one transaction: whatever commands queued up while the last commit ran
// become the next batch. A lone caller never waits for company, unless it says that it can. It knows nothing of SQL; the
// commit function given to New runs one transaction for a batch.
//
// # Promises
//
//  1. Do returns a result only after the transaction that decided it has committed. That goes for refusals too: a
//     refusal may rest on what an earlier command of the same batch did.
//  2. Commands run one after another in the order in which Do accepted them, within a batch and across batches.
//  3. A command's own refusal (Result.Err) leaves its neighbours alone.
//  4. When the commit function fails for a batch of several, or panics, each of its commands runs again in a transaction
//     of its own, in order, so that a poison command fails alone. Commands must therefore be safe to decide again. Two failures are
//     not blamed on a command and are given to the whole batch: [ErrUnavailable], because trying again one by one would
//     only take longer, and [ErrOutcomeUnknown], because what may have been committed must never blindly be run again.
//  5. A caller whose context ends before its command's turn gets the context's error; the command is not run and leaves
//     its place in the queue. Once its turn has begun the caller gets ErrOutcomeUnknown, because it may be committed.
//  6. The queue is bounded. A full queue is an error at once, [ErrFull], instead of latency later.
//  7. A patient command is run with the next one that is not, or when its patience is over. It keeps nobody waiting.
//  8. Stop refuses new commands with [ErrStopped], finishes every command accepted before, and then returns.
//
// What it does not promise: that the outcome of a failed commit function call is known. Saying so, by wrapping
// ErrOutcomeUnknown, is that function's duty.
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
	// ErrFull is returned by Do when the queue is full. Nothing was run.
	ErrFull = errors.New("groupcommit: the queue is full")
	// ErrStopped is returned by Do after Stop was called, and before Start. Nothing was run.
	ErrStopped = errors.New("groupcommit: not running")
	// ErrUnavailable is wrapped by a commit function that could not commit for a reason that no single command is to
	// blame for. Nothing was committed.
	ErrUnavailable = errors.New("groupcommit: nothing can be committed now")
	// ErrOutcomeUnknown is wrapped by a commit function that cannot tell whether its transaction was committed.
	ErrOutcomeUnknown = errors.New("groupcommit: the outcome of the commit is unknown")
)

// Result is one command's part of a committed batch: its value, or the reason why it was refused.
type Result[R any] struct {
	Value R
	Err   error
}

// CommitFunc runs one transaction that decides all commands in their order. It returns one result for each, or an error
// that says that nothing was committed, unless it wraps ErrOutcomeUnknown. It bounds its own time.
type CommitFunc[C, R any] func(batch []C) ([]Result[R], error)

// Committer runs commands of type C in batches. Make one with New; it runs between Start and Stop.
type Committer[C, R any] struct {
	commit   CommitFunc[C, R]
	maxBatch int
	maxQueue int

	mu      sync.Mutex
	queue   []*call[C, R]
	due     time.Time // all in the queue can wait until then; zero: somebody cannot wait
	running bool
	wake    chan struct{} // holds one token while the queue may be non-empty or the state has changed
	done    chan struct{} // closed when the loop has ended
}

// call is one Do.
type call[C, R any] struct {
	cmd    C
	result Result[R]     // once it is answered
	done   chan struct{} // closed when it is
}

func (c *call[C, R]) answer(result Result[R]) {
	c.result = result
	close(c.done)
}

// New returns a committer that gives at most maxBatch commands to one transaction and lets at most maxQueue wait. It does
// nothing before Start.
func New[C, R any](commit CommitFunc[C, R], maxBatch, maxQueue int) *Committer[C, R] {
	return &Committer[C, R]{
		commit:   commit,
		maxBatch: maxBatch,
		maxQueue: maxQueue,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
}

// Start begins to run commands. It is called once.
func (c *Committer[C, R]) Start() {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	go c.loop()
}

// Stop refuses new commands, waits until all accepted ones are finished, and ends the loop. It may be called again, but
// only after Start.
func (c *Committer[C, R]) Stop() {
	c.mu.Lock()
	c.running = false
	c.mu.Unlock()
	c.signal()
	<-c.done
}

// Do queues the command and waits for its result. It is safe for concurrent use.
func (c *Committer[C, R]) Do(ctx context.Context, cmd C) (R, error) {
	return c.DoPatiently(ctx, cmd, 0)
}

// DoPatiently is Do for a command that nobody is in a hurry for: for as long as the patience lasts it waits for one that
// somebody is, to share its transaction.
func (c *Committer[C, R]) DoPatiently(ctx context.Context, cmd C, patience time.Duration) (R, error) {
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
	case len(c.queue) >= c.maxQueue:
		c.mu.Unlock()
		return zero, ErrFull
	}
	switch {
	case patience == 0:
		c.due = time.Time{}
		c.signal()
	case len(c.queue) == 0:
		c.due = time.Now().Add(patience)
		time.AfterFunc(patience, c.signal)
	}
	c.queue = append(c.queue, call)
	c.mu.Unlock()

	select {
	case <-call.done:
		return call.result.Value, call.result.Err
	case <-ctx.Done():
		if c.leave(call) {
			return zero, ctx.Err()
		}
		select {
		case <-call.done: // it crossed with the end of the context: the truth is better than "unknown"
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

func (c *Committer[C, R]) loop() {
	defer close(c.done)
	for {
		// Callers that can run do so first and get on this batch, which costs a lone caller nothing.
		runtime.Gosched()
		batch, running := c.take()
		switch {
		case len(batch) > 0:
			c.run(batch)
		case !running:
			return
		default:
			<-c.wake
		}
	}
}

// leave removes a call from the queue, unless its turn has begun.
func (c *Committer[C, R]) leave(gone *call[C, R]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, gone)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	return true
}

// take removes the next batch from the queue, if it is time for it.
func (c *Committer[C, R]) take() (batch []*call[C, R], running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running && !c.due.IsZero() && time.Now().Before(c.due) {
		return nil, true
	}
	c.due = time.Time{}
	n := min(len(c.queue), c.maxBatch)
	batch = slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch, c.running
}

// run commits a batch and answers its callers.
func (c *Committer[C, R]) run(batch []*call[C, R]) {
	err := c.try(batch)
	if err == nil {
		return
	}
	if len(batch) == 1 || nobodysFault(err) {
		fail(batch, err)
		return
	}
	for i := range batch {
		err := c.try(batch[i : i+1])
		if errors.Is(err, ErrUnavailable) {
			fail(batch[i:], err)
			return
		}
		if err != nil {
			fail(batch[i:i+1], err)
		}
	}
}

// fail answers all calls with the same error.
func fail[C, R any](calls []*call[C, R], err error) {
	for _, call := range calls {
		call.answer(Result[R]{Err: err})
	}
}

// nobodysFault tells the failures for which running the commands one by one would be useless or wrong.
func nobodysFault(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown)
}

// try runs one transaction for the calls and answers them if it committed.
func (c *Committer[C, R]) try(calls []*call[C, R]) (err error) {
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
		call.answer(results[i])
	}
	return nil
}
