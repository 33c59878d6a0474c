package client

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"resource-lock-manager/internal/wire"
)

// flight is an attempt to acquire a lock, in a goroutine of its own. It may stay in
// flight when its call is canceled: a server may execute a request whose connection has
// been closed, and only the answer tells.
type flight struct {
	cancel context.CancelCauseFunc
	sent   atomic.Bool // a part of the request may have been sent
	done   chan struct{}

	// The end of the attempt, once done is closed.
	answer   answer
	err      error
	panicked any
}

// errNoReturn is the error of an attempt whose transport has ended the goroutine.
var errNoReturn = errors.New("lock client: the transport has called runtime.Goexit")

// launch starts an attempt that does not end with ctx.
func (c *Client) launch(ctx context.Context, r request) *flight {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{}), err: errNoReturn}
	r.onSent = func() { f.sent.Store(true) }
	go func() {
		defer func() {
			f.panicked = recover()
			cancel(nil)
			close(f.done)
		}()
		f.answer, f.err = c.attempt(ctx, r)
	}()
	return f
}

// wait returns the end of the attempt. It panics if the transport has panicked.
func (f *flight) wait() (answer, error) {
	<-f.done
	if f.panicked != nil {
		panic(f.panicked)
	}
	return f.answer, f.err
}

// send sends an attempt and waits for its answer until extended ends. If ctx was canceled
// and the request may have reached the server, the attempt stays in flight.
func (a *acquisition) send(ctx, extended context.Context, r request) (answer, error) {
	f := a.launch(ctx, r)
	select {
	case <-f.done:
	case <-extended.Done():
		if errors.Is(ctx.Err(), context.Canceled) && f.sent.Load() {
			a.inFlight = f
			return answer{}, ctx.Err()
		}
		f.cancel(context.Cause(extended))
	}
	return f.wait()
}

// releaseUnconfirmed releases the lock that an attempt may have been granted, if its
// answer was lost. It repeats the request, which the server answers with that lock. If an
// attempt still waits at a server, the repeated request supersedes it, which requires
// that it has a wait itself. An attempt in flight may be granted the lock after that, so
// its answer is read, too. A failure is not reported: the lock expires.
func (a *acquisition) releaseUnconfirmed(ctx context.Context) {
	if !a.mayBeLocked {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerGrace)
	defer cancel()
	a.o.MinHold = 0
	body := a.body()
	if a.wait {
		shortest := time.Microsecond.Seconds()
		body.WaitSeconds = &shortest
	}
	retries := a.retries("/locks/request")
	retries.silent = true
	for {
		r := retries.begin(request{method: http.MethodPost, path: "/locks/request", body: body})
		if a.inFlight != nil { // which may occupy the only connection of the transport
			r.timeout = min(r.timeout, answerGrace/2)
		}
		granted, err := a.attempt(ctx, r)
		a.releaseGranted(ctx, granted, err)
		if a.inFlight != nil && a.land(ctx, err) && !mayBeExecuted(err) {
			return
		}
		if err == nil || retries.after(ctx, err) != nil {
			return
		}
	}
}

// land waits for the answer of the attempt in flight, and releases the lock that it was
// granted. superseding is the error of the request that was to supersede it. It reports
// whether a server has answered the attempt.
func (a *acquisition) land(ctx context.Context, superseding error) bool {
	f := a.inFlight
	a.inFlight = nil
	if errors.Is(superseding, ErrUnavailable) {
		// The server withdraws a waiting request when its connection is closed.
		f.cancel(superseding)
	}
	stop := context.AfterFunc(ctx, func() { f.cancel(context.Cause(ctx)) })
	defer stop()
	granted, err := f.wait()
	a.releaseGranted(ctx, granted, err)
	return err == nil || !errors.Is(err, ErrUnavailable)
}

// releaseGranted releases the lock that an attempt was granted, if it was.
func (a *acquisition) releaseGranted(ctx context.Context, granted answer, err error) {
	if err != nil {
		return
	}
	acquired, err := data[wire.Acquired](granted)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerGrace)
	defer cancel()
	_ = a.Release(ctx, a.resource, a.o.Owner, acquired.FencingToken)
}
