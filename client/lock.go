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
	// tick is how often the clock is read while a lock is held: timers stand still in a
	// suspend.
	tick = time.Second
	// unlockTime is what Unlock has at least, even if its context is over.
	unlockTime = 5 * time.Second
	// detailsTime is how long a loss may be withheld to find out who caused it.
	detailsTime = 500 * time.Millisecond
)

// Lock is a lock that was acquired. Goroutines of its own watch its time and renew it;
// they end with Unlock, Abandon or the loss of the lock, so each lock needs a call of
// Unlock or Abandon. All methods are safe for concurrent use.
//
// A lock is held until Done is closed. That is when Unlock or Abandon is called, when a
// server says that it is lost, or in time before it expires because it could not be
// renewed. A paused program notices that late: what must not happen twice should check
// the fencing token.
type Lock struct {
	c        *Client
	resource string
	o        LockOptions
	token    int64
	began    time.Duration

	stop func() // ends the goroutines
	done chan struct{}

	mu        sync.Mutex
	expiry    time.Duration // by the client's clock
	last      error         // of the renewals since the last one that succeeded
	err       error         // set when done is closed
	abandoned bool

	unlocking chan struct{} // held while Unlock runs; its capacity is 1
	again     *retries      // of all calls of Unlock
	unlocked  bool          // the result of Unlock is final
	result    error         // of the last call of Unlock
}

func newLock(c *Client, resource string, o LockOptions, token int64, began time.Duration) *Lock {
	return &Lock{
		c: c, resource: resource, o: o, token: token, began: began,
		done: make(chan struct{}), unlocking: make(chan struct{}, 1), again: c.retries("/locks/release"),
	}
}

// start begins to keep the lock.
func (l *Lock) start(waited time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.c.observeAcquired(l, waited)
	if l.o.Forever {
		return
	}
	go l.watch(ctx)
	if !l.o.NoRenew {
		go l.keep(ctx)
	}
}

// Name returns the name of the resource.
func (l *Lock) Name() string { return l.resource }

// Owner returns what the API calls process_id.
func (l *Lock) Owner() string { return l.o.Owner }

// FencingToken returns the number of this hold: it is larger than that of every earlier
// hold of the resource, and below 2^53. Pass it on to what the lock protects, so that it
// can refuse a holder that is late.
func (l *Lock) FencingToken() int64 { return l.token }

// Deadline returns when the lock ends unless it is renewed: the time at which it may
// expire, less a margin of 5 percent of TTL, at least a second, at most a sixth of TTL.
// The zero time means that the lock never expires.
func (l *Lock) Deadline() time.Time {
	if l.o.Forever {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.deadline() - l.c.now())
}

// Done returns a channel that is closed when the lock is not to be relied on any more.
// Err says why.
func (l *Lock) Done() <-chan struct{} { return l.done }

// Err returns nil while the lock is held. When Done is closed it returns why, a
// [LostError] or [ErrReleased], and from then on always the same.
func (l *Lock) Err() error {
	l.expire()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Context returns a context that also ends when the lock does; its cause is then Err. The
// caller must call the function when the context is no longer needed, as with
// [context.WithCancel]; that does not release the lock.
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

// Valid asks a server whether this lock still exists. It is repeated until a server
// answers or ctx ends. The lock may end right after the answer.
func (l *Lock) Valid(ctx context.Context) (bool, error) {
	if l.Err() != nil {
		return false, nil
	}
	return l.c.Validate(ctx, l.resource, l.token)
}

// Unlock closes Done, releases the lock and waits for the server to confirm it. It works
// when ctx is over: it goes on for five seconds after that, but no longer than
// [Options.ServerTimeout] and the lock last. It returns nil when the lock was held until
// now, and a [LostError] when it was lost before; this is the last chance to learn that.
// Any other error means that the release is not confirmed and that the lock ends by its
// expiry at the latest; Unlock may be called again then. Once the result is final, every
// further call returns the same. After Abandon it does nothing.
func (l *Lock) Unlock(ctx context.Context) error {
	ctx, cancel := past(ctx, unlockTime, unlockTime)
	defer cancel()
	select {
	case l.unlocking <- struct{}{}:
		defer func() { <-l.unlocking }()
	case <-ctx.Done():
		return causeOf(ctx)
	}
	if l.unlocked {
		return l.result
	}
	l.expire()
	l.mu.Lock()
	l.end(ErrReleased)
	before, isLost := errors.AsType[*LostError](l.err)
	abandoned := l.abandoned
	l.mu.Unlock()
	if abandoned {
		return nil
	}
	err := l.release(ctx, before)
	lost, found := errors.AsType[*LostError](err)
	if found && !isLost {
		lost = l.explain(ctx, lost.Why)
		err = lost
	}
	l.unlocked, l.result = l.unlocked || found || err == nil, err
	switch {
	case err == nil:
		l.c.observeReleased(l, l.c.now()-l.began)
	case found && !isLost:
		l.c.observeLost(l, lost)
	}
	return err
}

// release asks the server to end the hold, unless that is over for sure. A hold that was
// lost because no server answered may still be there.
func (l *Lock) release(ctx context.Context, lost *LostError) error {
	l.mu.Lock()
	left := l.expiry - l.c.now()
	l.mu.Unlock()
	over := !l.o.Forever && left <= 0
	switch {
	case lost != nil && (lost.Why != LossUnreachable || over):
		return lost
	case over: // an earlier call was not confirmed, and now there is nothing to release
		l.unlocked = true
		return l.result
	}
	if !l.o.Forever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	l.again.reset()
	err := l.c.release(ctx, l.resource, l.o.Owner, l.token, l.again)
	if lost != nil {
		return lost
	}
	if found, is := errors.AsType[*LostError](err); is && found.Why == LossReleasedElsewhere && l.again.uncertain {
		return nil // it was this release, whose answer was lost
	}
	return err
}

// Abandon closes Done, ends the renewals and leaves the lock to its expiry: nobody else
// gets it before that. It does not wait for anything.
func (l *Lock) Abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abandoned = l.end(ErrReleased) || l.abandoned
}

// watch closes Done when the time of the lock is over. It does nothing else, so that
// nothing holds it up.
func (l *Lock) watch(ctx context.Context) {
	for !l.expire() {
		l.mu.Lock()
		left := l.stopTime() - l.c.now()
		l.mu.Unlock()
		if sleep(ctx, min(max(left, 0), tick)) != nil {
			return
		}
	}
}

// keep renews the lock until ctx ends or a server says that it is lost.
func (l *Lock) keep(ctx context.Context) {
	next := l.c.now() + l.interval()
	failures := 0
	for {
		if pause := min(next-l.c.now(), tick); pause > 0 {
			if sleep(ctx, pause) != nil {
				return
			}
			continue
		}
		err := l.renew(ctx)
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

// renew makes one attempt. It takes half of the time that is left at most, so that there
// is another one.
func (l *Lock) renew(ctx context.Context) error {
	l.mu.Lock()
	left := l.deadline() - l.o.Grace - l.c.now()
	if left <= 0 { // the program was paused until now
		left += l.o.Grace
	}
	l.mu.Unlock()
	r := l.renewal()
	r.timeout = max(min(l.o.TTL/6, left/2), time.Millisecond)
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

// extend notes that the hold lasts for TTL at least since a request began. A lock that
// has ended stays so.
func (l *Lock) extend(started time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.expiry, l.last = max(l.expiry, started+l.o.TTL), nil
	}
}

// interval is a third of the TTL, spread so that many locks are not renewed at the same
// time.
func (l *Lock) interval() time.Duration {
	return time.Duration(float64(l.o.TTL/3) * (0.9 + 0.2*l.c.jitter()))
}

// backoff is the pause after n failures.
func (l *Lock) backoff(n int) time.Duration {
	bound := min(minPause, l.o.TTL/30) << min(n-1, 10)
	return time.Duration(l.c.jitter() * float64(min(bound, time.Second, l.o.TTL/6)))
}

// margin allows for clocks that do not run evenly, and for the time in which a loss is
// noticed.
func (l *Lock) margin() time.Duration {
	return min(max(time.Second, l.o.TTL/20), l.o.TTL/6)
}

func (l *Lock) deadline() time.Duration { return l.expiry - l.margin() }

// stopTime is when the lock is given up unless it is renewed. Grace is for when no server
// answers: a program that was paused may still renew in it.
func (l *Lock) stopTime() time.Duration {
	if l.last == nil {
		return l.deadline()
	}
	return l.deadline() - l.o.Grace
}

// expire ends the lock if it is time to give it up, and reports whether it has ended. If
// no renewal has failed, the program or its machine was paused, or the lock is not
// renewed at all.
func (l *Lock) expire() bool {
	l.mu.Lock()
	if l.err != nil || l.o.Forever || l.c.now() < l.stopTime() {
		defer l.mu.Unlock()
		return l.err != nil
	}
	lost := l.lost(LossExpired)
	if l.last != nil {
		lost = l.lost(LossUnreachable)
		lost.cause = l.last
	}
	l.end(lost)
	l.mu.Unlock()
	l.c.observeLost(l, lost)
	return true
}

// isLate reports whether the time of a lock that nobody keeps yet is over.
func (l *Lock) isLate() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.o.Forever && l.c.now() >= l.deadline()
}

func (l *Lock) lost(why LossReason) *LostError {
	return &LostError{Resource: l.resource, FencingToken: l.token, Why: why}
}

// explain asks the history who broke a lock. The answer is not waited for long, because
// the holder must stop.
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

func (l *Lock) lose(lost *LostError) {
	l.mu.Lock()
	ended := l.end(lost)
	l.mu.Unlock()
	if ended {
		l.c.observeLost(l, lost)
	}
}

// end closes Done and reports whether this call has done so. The caller holds l.mu.
func (l *Lock) end(err error) bool {
	if l.err != nil {
		return false
	}
	l.err = err
	l.stop()
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
