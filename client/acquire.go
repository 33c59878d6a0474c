package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"resource-lock-manager/internal/wire"
)

const (
	defaultTTL = time.Minute
	// longestWait is what one request asks to wait at most: many proxies end a request
	// after a minute.
	longestWait = 50 * time.Second
	// grace is how long an answer is waited for that is due when the context's deadline
	// is.
	grace = time.Second

	codeQueueFull = string(wire.CodeQueueFull)
)

// LockOptions say how a lock is acquired and kept. The zero value is a lock that is
// renewed until it is released.
type LockOptions struct {
	// TTL is how long the lock outlives this program when it dies or loses the network:
	// the server lets the lock expire then. While the program lives the lock is renewed
	// every third of it. If 0, one minute.
	TTL time.Duration

	// Grace is how long the work needs to stop: when no server answers, Done is closed
	// this long before Deadline. At most a third of TTL.
	Grace time.Duration

	// NoRenew has the lock end at its first Deadline. Grace may not be given with it.
	NoRenew bool

	// Forever asks for a lock that never expires: if this program dies, only a
	// force-release ends it. Neither TTL nor Grace may be given with it. Nothing notices
	// the loss of such a lock but Valid and Unlock.
	Forever bool

	// Owner is the API's process_id. If empty, it is [NewOwner] of each lock.
	Owner string

	// Reason is shown to others who want the resource.
	Reason string

	// Metadata is shown with the lock. It must be encoded as a JSON object; nil: none.
	Metadata any

	// MinHold keeps the resource taken at least this long, even if the lock is released
	// earlier: for jobs that several hosts start at nearly the same time.
	MinHold time.Duration
}

func (o LockOptions) withDefaults(resource string) (LockOptions, error) {
	if err := valid(text{"resource", resource}, text{"Owner", o.Owner}, text{"Reason", o.Reason}); err != nil {
		return o, err
	}
	switch {
	case resource == "":
		return o, errors.New("lock client: the name of the resource is empty")
	case o.Forever && (o.TTL != 0 || o.Grace != 0 || o.NoRenew):
		return o, errors.New("lock client: Forever excludes TTL, Grace and NoRenew")
	case o.NoRenew && o.Grace != 0:
		return o, errors.New("lock client: NoRenew excludes Grace: when the lock ends is known from the start")
	case o.TTL < 0:
		return o, fmt.Errorf("lock client: TTL is %v, want more than 0", o.TTL)
	case o.MinHold < 0:
		return o, fmt.Errorf("lock client: MinHold is %v, want 0 or more", o.MinHold)
	}
	if o.TTL == 0 && !o.Forever {
		o.TTL = defaultTTL
	}
	if o.Grace < 0 || o.Grace > o.TTL/3 {
		return o, fmt.Errorf("lock client: Grace is %v, want 0 to %v, a third of TTL", o.Grace, o.TTL/3)
	}
	if o.Owner == "" {
		o.Owner = NewOwner()
	}
	return o, nil
}

// text is an argument with its name.
type text struct{ name, value string }

// valid refuses what JSON cannot hold: encoding/json would make the same text of
// different ones.
func valid(texts ...text) error {
	for _, t := range texts {
		if !utf8.ValidString(t.value) {
			return fmt.Errorf("lock client: %s %q is not UTF-8", t.name, t.value)
		}
	}
	return nil
}

// NewOwner returns a name for one lock, HOST:PID:RANDOM, which is what
// [LockOptions.Owner] is by default.
func NewOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), strings.ToLower(rand.Text()[:10]))
}

// Lock waits for a lock until ctx ends. Waiters are served first come first served. If
// ctx ends by its deadline while somebody holds the resource, the error is a [HeldError]
// that is also [context.DeadlineExceeded], and comes up to a second after the deadline.
// Otherwise Lock goes on while no server answers, for at most [Options.ServerTimeout].
//
// When a wait is given up, Lock takes up to a second more to release what may have been
// granted meanwhile. If no server answers, that expires after TTL. MinHold keeps the
// resource taken in either case. Lock never returns a nil Lock with a nil error.
func (c *Client) Lock(ctx context.Context, resource string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, resource, o, true)
}

// TryLock is [Client.Lock] without the wait: if the lock cannot be had now, the error is a
// [HeldError]. It still goes on while no server answers, until ctx ends or
// [Options.ServerTimeout] has passed.
func (c *Client) TryLock(ctx context.Context, resource string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, resource, o, false)
}

// Do calls work while it has a lock, which it waits for like [Client.Lock]. The context
// that work gets ends when the lock is lost or is about to be; its cause is then the
// [LostError]. Do returns the error of work, joined with a LostError if the lock was
// lost, even if work returned nil: what it did may have happened beside another holder.
// It returns after work has returned. A release that fails is left to the lock's expiry,
// and is no error.
func (c *Client) Do(ctx context.Context, resource string, o LockOptions, work func(context.Context, *Lock) error) (err error) {
	l, err := c.Lock(ctx, resource, o)
	if err != nil {
		return err
	}
	held, cancel := l.Context(ctx)
	returned := false
	defer func() {
		cancel()
		if !returned { // work has panicked, which is not to be held up for long
			over, end := context.WithCancel(ctx)
			end()
			ctx = over
		}
		released := l.Unlock(ctx)
		switch {
		case !errors.Is(released, ErrLost):
		case err == context.Canceled: //nolint:errorlint // nothing but the end of the context that the loss has ended
			err = released
		default:
			err = errors.Join(released, err)
		}
	}()
	err = work(held, l)
	returned = true
	return err
}

func (c *Client) lock(ctx context.Context, resource string, o LockOptions, wait bool) (*Lock, error) {
	o, err := o.withDefaults(resource)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, causeOf(ctx)
	}
	a := acquisition{Client: c, o: o, resource: resource, wait: wait, began: c.now(), limit: longestWait}
	if t := c.http.Timeout; t > 0 {
		a.limit = min(a.limit, t*4/5)
	}
	if o.Metadata != nil {
		if a.metadata, err = json.Marshal(o.Metadata); err != nil {
			return nil, fmt.Errorf("lock client: Metadata: %w", err)
		}
	}
	return a.run(ctx)
}

// acquisition is the work of one call of Lock or TryLock.
type acquisition struct {
	*Client
	o        LockOptions
	resource string
	metadata json.RawMessage
	wait     bool
	began    time.Duration
	limit    time.Duration // the longest wait that the server and what is before it permit, as far as is known

	id      string // the request_id of the attempts under way
	unknown bool   // an attempt with this id may have been granted the lock without our knowing
}

// run repeats the request, always with the same request_id, so that a place in the queue
// is kept, and a grant whose answer was lost is answered again.
func (a *acquisition) run(ctx context.Context) (*Lock, error) {
	patient, cancel := past(ctx, 0, grace)
	defer cancel()
	again := a.retries("/locks/request")
	a.id = rand.Text()
	for {
		l, err := a.once(ctx, patient, again)
		if err == nil {
			return l, nil
		}
		if err = a.next(ctx, again, err); err != nil {
			a.giveUp(ctx)
			return nil, err
		}
	}
}

// past returns a context that ends some time after ctx does: that depends on whether ctx
// is canceled or reaches its deadline.
func past(ctx context.Context, canceled, deadline time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		later := canceled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			later = deadline
		}
		_ = sleep(late, later)
		cancel(ctx.Err())
	})
	return late, func() {
		stop()
		cancel(context.Canceled)
	}
}

// once makes one attempt.
func (a *acquisition) once(ctx, patient context.Context, again *retries) (*Lock, error) {
	body := a.body()
	r := request{method: http.MethodPost, path: "/locks/request", body: body}
	if a.wait {
		wait := a.limit
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
		if wait > 0 {
			seconds := wait.Seconds()
			body.WaitSeconds, r.wait = &seconds, wait
		}
	}
	granted, err := again.attempt(patient, r)
	if err != nil {
		a.unknown = a.unknown || uncertain(err)
		return nil, err
	}
	a.unknown = true // until the lock is returned
	acquired, err := data[wire.Acquired](granted)
	if err != nil {
		return nil, err
	}
	l := newLock(a.Client, a.resource, a.o, acquired.FencingToken, a.now())
	l.extend(granted.started)
	never := acquired.ExpiresInSeconds == nil
	if acquired.Repeated || acquired.WaitedSeconds > 0 || never != a.o.Forever || l.isLate() {
		// It is not known how much of its time is over, or all of it may be, or the
		// server has a default TTL: the lock is renewed, and counts from there.
		confirmed, err := a.retry(patient, l.renewal(), again)
		if err == nil {
			_, err = data[wire.Renewed](confirmed)
		}
		if err != nil {
			return nil, err
		}
		l.extend(confirmed.started)
	}
	if l.isLate() { // its TTL is shorter than an answer takes
		return nil, l.lost(LossExpired)
	}
	l.start(a.now() - a.began)
	return l, nil
}

func (a *acquisition) body() *wire.AcquireRequest {
	body := &wire.AcquireRequest{ResourceName: a.resource, ProcessID: a.o.Owner, RequestID: &a.id, Metadata: a.metadata}
	if !a.o.Forever {
		seconds := a.o.TTL.Seconds()
		body.TTLSeconds = &seconds
	}
	if a.o.Reason != "" {
		body.Reason = &a.o.Reason
	}
	if a.o.MinHold > 0 {
		seconds := a.o.MinHold.Seconds()
		body.MinHoldSeconds = &seconds
	}
	return body
}

// uncertain reports whether a request that ended with an error may have been executed.
func uncertain(err error) bool {
	if api, is := errors.AsType[*APIError](err); is {
		return api.Code == string(wire.CodeOutcomeUnknown) || api.Code == "" || api.Status == http.StatusInternalServerError
	}
	dial, is := errors.AsType[*net.OpError](err)
	if is && dial.Op == "dial" { // nothing was sent
		return false
	}
	transport, is := errors.AsType[*transportError](err)
	return is && !transport.unsent
}

// next returns nil if the request is to be repeated, after a pause if one is due, and
// otherwise the error of the whole call.
func (a *acquisition) next(ctx context.Context, again *retries, err error) error {
	if held, is := errors.AsType[*HeldError](err); is {
		held.Resource = a.resource
		if held.Holder != nil {
			held.Holder.Resource = a.resource
		}
		switch {
		case !a.wait:
			return held
		case ctx.Err() != nil || deadlinePassed(ctx):
			held.cause = context.DeadlineExceeded
			select {
			case <-ctx.Done(): // its timer is about to say so
				held.cause = causeOf(ctx)
			case <-time.After(grace): // the timer has stood still in a suspend
			}
			return held
		case held.Code == string(wire.CodeWaitTimeout):
			again.reset()
			return nil
		default: // superseded by an earlier attempt that a proxy has sent late, or asked with no time left
			return again.after(ctx, &APIError{Status: http.StatusServiceUnavailable, Code: held.Code})
		}
	}
	api, is := errors.AsType[*APIError](err)
	switch {
	case is && api.Code == codeQueueFull:
		return &HeldError{Resource: a.resource, Code: api.Code, RetryAfter: api.retry}
	case is && slices.Contains(api.Fields, "wait_seconds") && a.limit > time.Second: // MAX_WAIT is lower
		a.limit /= 2
		return nil
	case is && lossOf(api) != "": // the grant was over before it was confirmed
		a.id, a.unknown = rand.Text(), false
		err = &APIError{Status: http.StatusServiceUnavailable, Code: api.Code, Detail: "the lock was granted and has ended before it was confirmed"}
	case errors.Is(err, ErrUnavailable) && a.now()-again.began > a.answerTime() && a.limit > time.Second: // a proxy has cut the wait
		a.limit /= 2
	}
	return again.after(ctx, err)
}

func deadlinePassed(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= 0
}

// giveUp releases what an attempt may have been granted whose answer was lost: the same
// request is answered with that grant. It supersedes an attempt that still waits at a
// server, which has to have a wait itself for that. There is nobody to report a failure
// to; the grant expires then.
func (a *acquisition) giveUp(ctx context.Context) {
	if !a.unknown {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	a.o.MinHold = 0
	body := a.body()
	if a.wait {
		shortest := time.Microsecond.Seconds()
		body.WaitSeconds = &shortest
	}
	again := a.retries("/locks/request")
	again.silent = true
	granted, err := a.retry(ctx, request{method: http.MethodPost, path: "/locks/request", body: body}, again)
	if err != nil {
		return
	}
	if acquired, err := data[wire.Acquired](granted); err == nil {
		_ = a.Release(ctx, a.resource, a.o.Owner, acquired.FencingToken)
	}
}
