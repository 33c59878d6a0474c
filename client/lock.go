package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"resource-lock-manager/internal/wire"
)

const (
	// tick is how often the clock is read while a lock is held: timers stand still in a suspend.
	tick = time.Second
	// unlockTime is what Unlock has at least, even if its context is over.
	unlockTime = 5 * time.Second
	// detailsTime is how long a loss may be withheld to find out who caused it.
	detailsTime = 500 * time.Millisecond
)

// Lock is a lock that was acquired. It is renewed by a goroutine of its own, which ends with
// Unlock, Abandon or the loss of the lock; so each lock needs a call of Unlock or Abandon. All
// methods are safe for concurrent use.
//
// A lock is held until Done is closed. That is when Unlock or Abandon was called, when a server
// has said that it is lost, or in time before it expires because it could not be renewed. A
// paused program may notice that late: what must not happen twice should check the fencing token.
type Lock struct {
	c        *Client
	resource string
	o        LockOptions
	token    int64
	began    time.Duration

	stop func()        // ends the renewals
	kept chan struct{} // closed when they have ended
	done chan struct{}

	mu     sync.Mutex
	expiry time.Duration // by the client's clock
	last   error         // of the renewals since the last one that succeeded
	err    error         // set before done is closed

	unlocking sync.Mutex // held while Unlock runs
	unlocked  bool       // Unlock has a result that is final
	result    error      // of Unlock
}

func newLock(c *Client, resource string, o LockOptions, token int64, began time.Duration) *Lock {
	return &Lock{
		c: c, resource: resource, o: o, token: token, began: began,
		kept: make(chan struct{}), done: make(chan struct{}),
	}
}

// start begins to keep the lock.
func (l *Lock) start(waited time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.c.observeAcquired(l, waited)
	if l.o.Forever {
		close(l.kept)
		return
	}
	go l.keep(ctx)
}

// Name returns the name of the resource.
func (l *Lock) Name() string { return l.resource }

// Owner returns what the API calls process_id.
func (l *Lock) Owner() string { return l.o.Owner }

// FencingToken returns the number of this hold: it is larger than that of every earlier hold of
// the resource, and below 2^53. Pass it on to what the lock protects, so that it can refuse a
// holder that is late.
func (l *Lock) FencingToken() int64 { return l.token }

// Deadline returns the time at which somebody else may get the lock at the earliest, less a
// margin, unless it is renewed until then. The zero time means that the lock never expires.
func (l *Lock) Deadline() time.Time {
	if l.o.Forever {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.expiry - l.margin() - l.c.now())
}

// Done returns a channel that is closed when the lock is not to be relied on any more. Err says why.
func (l *Lock) Done() <-chan struct{} { return l.done }

// Err returns nil while the lock is held, then a [LostError] or [ErrReleased]. It may return a
// LostError a moment before Done is closed.
func (l *Lock) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && l.late() {
		return l.overdue()
	}
	return l.err
}

// Context returns a context that also ends when the lock does; its cause is then Err. The caller
// must call the function when the context is no longer needed, as with [context.WithCancel]; that
// does not release the lock.
func (l *Lock) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case <-l.done:
			cancel(l.Err())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Valid asks a server whether this lock still exists. It is repeated until a server answers or ctx
// ends. The lock may end right after the answer.
func (l *Lock) Valid(ctx context.Context) (bool, error) {
	if l.Err() != nil {
		return false, nil
	}
	return l.c.Validate(ctx, l.resource, l.token)
}

// Unlock releases the lock and waits for the server to confirm it. It works when ctx is over: it
// takes at least five seconds before it gives up, and goes on while ctx lasts and the lock has not
// expired. It returns nil when the lock was held until now, and a [LostError] when it was lost
// before; this is the last chance to learn that. Any other error means that the release is not
// confirmed and that the lock ends by its expiry at the latest; Unlock may be called again then.
// Once the result is final, every further call returns the same.
func (l *Lock) Unlock(ctx context.Context) error {
	l.unlocking.Lock()
	defer l.unlocking.Unlock()
	if l.unlocked {
		return l.result
	}
	l.stop()
	<-l.kept
	err := l.release(ctx)
	lost, isLost := errors.AsType[*LostError](err)
	if l.unlocked = isLost || err == nil; l.unlocked {
		l.result = err
	}
	switch {
	case isLost:
		l.end(lost)
	case l.end(ErrReleased) && err == nil:
		l.c.observeReleased(l, l.c.now()-l.began)
	}
	return err
}

// release tells the server, unless the lock is over for sure.
func (l *Lock) release(ctx context.Context) error {
	lost, isLost := errors.AsType[*LostError](l.Err())
	l.mu.Lock()
	left := l.expiry - l.c.now()
	l.mu.Unlock()
	if isLost && (lost.Why != LossUnreachable || left <= 0) {
		return lost
	}
	ctx, cancel := past(ctx, unlockTime, unlockTime)
	defer cancel()
	if !l.o.Forever {
		var over context.CancelFunc
		ctx, over = context.WithTimeout(ctx, left)
		defer over()
	}
	err := l.c.Release(ctx, l.resource, l.o.Owner, l.token)
	if isLost {
		return lost
	}
	return err
}

// Abandon ends the renewals and leaves the lock to its expiry, so that nobody else gets it before
// that. It does not wait for anything.
func (l *Lock) Abandon() {
	l.stop()
	l.end(ErrReleased)
}

// keep renews the lock until ctx ends or the lock is lost.
func (l *Lock) keep(ctx context.Context) {
	defer close(l.kept)
	next := l.c.now() + l.interval()
	failures := 0
	for {
		l.mu.Lock()
		now, stop, late := l.c.now(), l.stopTime(), l.late()
		var overdue *LostError
		if late {
			overdue = l.overdue()
		}
		l.mu.Unlock()
		if late {
			l.lose(overdue)
			return
		}
		pause := min(stop-now, tick)
		if !l.o.NoRenew {
			pause = min(pause, next-now)
		}
		if pause > 0 {
			if sleep(ctx, pause) != nil {
				return
			}
			continue
		}
		err := l.renew(ctx, min(l.o.TTL/6, (stop-now)/2))
		switch why := lossOf(err); {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures, next = 0, l.c.now()+l.interval()
			l.c.observeRenewed(l)
		case why != "":
			l.lose(l.explain(ctx, why))
			return
		default:
			failures++
			l.c.observeRenewFailed(l, err)
			next = l.c.now() + l.backoff(failures)
		}
	}
}

// renew makes one attempt.
func (l *Lock) renew(ctx context.Context, timeout time.Duration) error {
	r := l.renewal()
	r.timeout = timeout
	renewed, err := l.c.attempt(ctx, r)
	if err == nil {
		_, err = data[wire.Renewed](renewed)
	}
	if err != nil {
		l.mu.Lock()
		l.last = err
		l.mu.Unlock()
		return err
	}
	l.extend(renewed.started)
	return nil
}

func (l *Lock) renewal() request { return renewal(l.resource, l.o.Owner, l.token, l.o.TTL) }

// extend notes that the hold lasts for TTL at least since a request began.
func (l *Lock) extend(started time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expiry, l.last = max(l.expiry, started+l.o.TTL), nil
}

// interval is a third of the TTL, spread so that many locks are not renewed at the same time.
func (l *Lock) interval() time.Duration {
	return time.Duration(float64(l.o.TTL/3) * (0.9 + 0.2*l.c.jitter()))
}

// backoff is the pause after n failures.
func (l *Lock) backoff(n int) time.Duration {
	bound := min(minPause, l.o.TTL/30) << min(n-1, 10)
	return time.Duration(l.c.jitter() * float64(min(bound, time.Second, l.o.TTL/6)))
}

// margin allows for clocks that do not run evenly, and for the time in which a loss is noticed.
func (l *Lock) margin() time.Duration {
	return min(max(time.Second, l.o.TTL/20), l.o.TTL/6)
}

// stopTime is when the lock is given up unless it is renewed.
func (l *Lock) stopTime() time.Duration { return l.expiry - l.margin() - l.o.Grace }

// late reports whether it is time to give the lock up.
func (l *Lock) late() bool { return !l.o.Forever && l.c.now() >= l.stopTime() }

// overdue is why a lock is lost that was not renewed in time. If no renewal has failed, the program
// or its machine was paused, or the lock is not renewed at all.
func (l *Lock) overdue() *LostError {
	if l.last == nil {
		return l.lost(LossExpired)
	}
	lost := l.lost(LossUnreachable)
	lost.cause = l.last
	return lost
}

func (l *Lock) lost(why LossReason) *LostError {
	return &LostError{Resource: l.resource, FencingToken: l.token, Why: why}
}

// explain asks the history who broke a lock. The answer is not waited for long, because the holder
// must stop.
func (l *Lock) explain(ctx context.Context, why LossReason) *LostError {
	lost := l.lost(why)
	if why != LossForceReleased {
		return lost
	}
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	for e, err := range l.c.History(ctx, HistoryOptions{Resource: l.resource, Events: []string{string(why)}, Limit: 10}) {
		if err == nil && e.FencingToken == l.token {
			lost.By, lost.Reason = e.By, e.Reason
			break
		}
	}
	return lost
}

func (l *Lock) lose(err *LostError) {
	if l.end(err) {
		l.c.observeLost(l, err)
	}
}

// end closes Done and reports whether this call has done so.
func (l *Lock) end(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.err = err
	close(l.done)
	return true
}

// lossOf returns why a hold is over, as a server has answered; empty: it has not said so.
func lossOf(err error) LossReason {
	api, is := errors.AsType[*APIError](err)
	if !is || api.Status != http.StatusNotFound {
		return ""
	}
	switch wire.Code(api.Code) {
	case wire.CodeExpired:
		return LossExpired
	case wire.CodeForceReleased:
		return LossForceReleased
	case wire.CodeAlreadyReleased:
		return LossReleasedElsewhere
	case wire.CodeNotHeld, wire.CodeTokenMismatch:
		return LossNotHeld
	}
	return ""
}
