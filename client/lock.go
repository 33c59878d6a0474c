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
	// tick is how often the clock is read while a lock is held, because timers stop in a
	// suspend.
	tick = time.Second
	// unlockTime is the minimum time of Unlock, even if its context has ended.
	unlockTime = 5 * time.Second
	// detailsTime is how long the report of a loss may be delayed to read its cause.
	detailsTime = 500 * time.Millisecond
)

// Lock is an acquired lock. It has goroutines that check its deadline and renew it. They
// end with Unlock, Abandon or the loss of the lock, so the caller must call Unlock or
// Abandon. All methods are safe for concurrent use.
//
// A lock is held until Done is closed: by Unlock or Abandon, when a server reports its
// loss, or before it expires because it could not be renewed. A program that was paused
// detects this late. Work that must not happen twice should check the fencing token.
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
	renewErr  error         // of the last renewal; nil if it succeeded
	err       error         // set when done is closed
	abandoned bool

	unlocking chan struct{} // a mutex of Unlock; its capacity is 1
	retries   *retries      // of all calls of Unlock
	unlocked  bool          // the result of Unlock is final
	result    error         // of the last call of Unlock
}

func newLock(c *Client, resource string, o LockOptions, token int64, began time.Duration) *Lock {
	return &Lock{
		c: c, resource: resource, o: o, token: token, began: began,
		done: make(chan struct{}), unlocking: make(chan struct{}, 1), retries: c.retries("/locks/release"),
	}
}

// start starts the goroutines of the lock.
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

// Owner returns the API's process_id.
func (l *Lock) Owner() string { return l.o.Owner }

// FencingToken returns the number of this hold. It is larger than the number of every
// earlier hold of the resource, and below 2^53. Pass it to the protected system, so that
// it can reject writes of an earlier holder.
func (l *Lock) FencingToken() int64 { return l.token }

// Deadline returns the time at which the lock ends unless it is renewed. It is before the
// expiry by a margin of 5 percent of TTL, at least a second, at most a sixth of TTL. The
// zero time means that the lock never expires.
func (l *Lock) Deadline() time.Time {
	if l.o.Forever {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.deadline() - l.c.now())
}

// Done returns a channel that is closed when the lock is no longer held. Err returns the
// reason.
func (l *Lock) Done() <-chan struct{} { return l.done }

// Err returns nil while the lock is held. After Done is closed it returns a [LostError]
// or [ErrReleased], always the same.
func (l *Lock) Err() error {
	l.expire()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Context returns a context that also ends when the lock ends; its cause is then Err. As
// with [context.WithCancel], the caller must call the function when the context is no
// longer needed. This does not release the lock.
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

// Valid reports whether the server still has this lock. It retries until a server answers
// or ctx ends. The lock may end right after the answer.
func (l *Lock) Valid(ctx context.Context) (bool, error) {
	if l.Err() != nil {
		return false, nil
	}
	return l.c.Validate(ctx, l.resource, l.token)
}

// Unlock closes Done, releases the lock and waits for the server to confirm it. It also
// works if ctx has ended: it continues for five seconds after the end of ctx, but not
// longer than [Options.ServerTimeout] and not after the expiry of the lock.
//
// Unlock returns nil if the lock was held until the call, and a [LostError] if it was
// lost before. Any other error means that the release is not confirmed: the lock ends at
// its expiry at the latest, and Unlock may be called again. Once the result is final,
// further calls return the same result. After Abandon, Unlock does nothing.
func (l *Lock) Unlock(ctx context.Context) error {
	ctx, cancel := extendContext(ctx, unlockTime, unlockTime)
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
	before, lostBefore := errors.AsType[*LostError](l.err)
	abandoned := l.abandoned
	l.mu.Unlock()
	if abandoned {
		return nil
	}
	err := l.release(ctx, before)
	lost, isLost := errors.AsType[*LostError](err)
	if isLost && !lostBefore {
		lost = l.explain(ctx, lost.Why)
		err = lost
	}
	l.unlocked, l.result = l.unlocked || isLost || err == nil, err
	switch {
	case err == nil:
		l.c.observeReleased(l, l.c.now()-l.began)
	case isLost && !lostBefore:
		l.c.observeLost(l, lost)
	}
	return err
}

// release asks the server to end the hold, unless the hold has certainly ended. If it was
// lost because no server answered, the server may still have it.
func (l *Lock) release(ctx context.Context, lost *LostError) error {
	l.mu.Lock()
	left := l.expiry - l.c.now()
	l.mu.Unlock()
	expired := !l.o.Forever && left <= 0
	switch {
	case lost != nil && (lost.Why != LossUnreachable || expired):
		return lost
	case expired: // an earlier call was not confirmed, and now the hold has expired
		l.unlocked = true
		return l.result
	}
	if !l.o.Forever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	l.retries.reset()
	err := l.c.release(ctx, l.resource, l.o.Owner, l.token, l.retries)
	if lost != nil {
		return lost
	}
	found, is := errors.AsType[*LostError](err)
	if is && found.Why == LossReleasedElsewhere && l.retries.mayBeExecuted {
		return nil // an earlier attempt released the lock, and its answer was lost
	}
	return err
}

// Abandon closes Done and ends the renewals without releasing the lock: no other client
// gets it before it expires. Abandon does not block.
func (l *Lock) Abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abandoned = l.end(ErrReleased) || l.abandoned
}

// watch closes Done when the lock reaches its stop time. It does nothing else, so that
// nothing can delay it.
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

// keep renews the lock until ctx ends or a server reports its loss.
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

// renew makes one attempt. The attempt takes at most half of the remaining time, so that
// another one is possible.
func (l *Lock) renew(ctx context.Context) error {
	l.mu.Lock()
	left := l.deadline() - l.o.Grace - l.c.now()
	if left <= 0 { // the program was paused
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
		l.renewErr = err
		l.mu.Unlock()
		return err
	}
	l.extend(renewed.started)
	return nil
}

func (l *Lock) renewal() request { return renewal(l.resource, l.o.Owner, l.token, l.o.TTL) }

// extend sets the expiry to TTL after the start of a successful request. It has no effect
// on a lock that has ended.
func (l *Lock) extend(started time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.expiry, l.renewErr = max(l.expiry, started+l.o.TTL), nil
	}
}

// interval returns a third of the TTL with a random deviation, so that many locks are not
// renewed at the same time.
func (l *Lock) interval() time.Duration {
	return time.Duration(float64(l.o.TTL/3) * (0.9 + 0.2*l.c.jitter()))
}

// backoff returns the pause after n failures.
func (l *Lock) backoff(n int) time.Duration {
	bound := min(minPause, l.o.TTL/30) << min(n-1, 10)
	return time.Duration(l.c.jitter() * float64(min(bound, time.Second, l.o.TTL/6)))
}

// margin returns the time between the deadline and the expiry. It covers clock drift, and
// the time until a loss is detected.
func (l *Lock) margin() time.Duration {
	return min(max(time.Second, l.o.TTL/20), l.o.TTL/6)
}

func (l *Lock) deadline() time.Duration { return l.expiry - l.margin() }

// stopTime returns the time at which Done is closed unless the lock is renewed. Grace
// applies only after a failed renewal: a program that was paused may still renew during
// it.
func (l *Lock) stopTime() time.Duration {
	if l.renewErr == nil {
		return l.deadline()
	}
	return l.deadline() - l.o.Grace
}

// expire ends the lock if it has reached its stop time, and reports whether the lock has
// ended. If no renewal has failed, then the program or its machine was paused, or the
// lock is not renewed at all.
func (l *Lock) expire() bool {
	l.mu.Lock()
	if l.err != nil || l.o.Forever || l.c.now() < l.stopTime() {
		defer l.mu.Unlock()
		return l.err != nil
	}
	lost := l.lost(LossExpired)
	if l.renewErr != nil {
		lost = l.lost(LossUnreachable)
		lost.cause = l.renewErr
	}
	l.end(lost)
	l.mu.Unlock()
	l.c.observeLost(l, lost)
	return true
}

// pastDeadline reports whether the deadline of a lock that is not started yet has passed.
func (l *Lock) pastDeadline() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.o.Forever && l.c.now() >= l.deadline()
}

func (l *Lock) lost(why LossReason) *LostError {
	return &LostError{Resource: l.resource, FencingToken: l.token, Why: why}
}

// explain returns a LostError. For a force-release it reads from the history who did it
// and why, for a short time only, because the holder must stop.
func (l *Lock) explain(ctx context.Context, why LossReason) *LostError {
	lost := l.lost(why)
	if why != LossForceReleased {
		return lost
	}
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	history := l.c.History(ctx, HistoryOptions{Resource: l.resource, Events: []string{string(why)}, Limit: 10})
	for e, err := range history {
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

// lossOf returns why a hold has ended, according to a server's answer. It returns "" if
// err is not such an answer.
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
