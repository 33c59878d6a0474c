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
	// maxWait is the maximum wait of one request: many proxies end a request after a
	// minute.
	maxWait = 50 * time.Second
	// answerGrace is how long the client waits after the context's deadline for an answer
	// that is due at the deadline.
	answerGrace = time.Second

	codeQueueFull = string(wire.CodeQueueFull)
)

// LockOptions are the options of a lock. The zero value is a lock that is renewed until
// it is released.
type LockOptions struct {
	// TTL is the time after which the lock expires if this program dies or loses the
	// network. While the program runs, the lock is renewed every third of TTL. If 0, TTL
	// is one minute.
	TTL time.Duration

	// Grace is the time that the work needs to stop: if no server answers, Done is closed
	// this long before Deadline. At most a third of TTL.
	Grace time.Duration

	// NoRenew makes the lock end at its first Deadline. It excludes Grace.
	NoRenew bool

	// Forever requests a lock that never expires: if this program dies, only a
	// force-release ends it. It excludes TTL and Grace. Only Valid and Unlock detect the
	// loss of such a lock.
	Forever bool

	// Owner is the API's process_id. If empty, each lock gets a [NewOwner].
	Owner string

	// Reason is shown to other clients that request the resource.
	Reason string

	// Metadata is shown with the lock. It must be encoded as a JSON object; nil: none.
	Metadata any

	// MinHold is the minimum time for which the resource stays locked, even if the lock
	// is released earlier. It is for jobs that several hosts start at nearly the same
	// time.
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

// valid returns an error if a text is not UTF-8: encoding/json would encode different
// invalid texts as the same text.
func valid(texts ...text) error {
	for _, t := range texts {
		if !utf8.ValidString(t.value) {
			return fmt.Errorf("lock client: %s %q is not UTF-8", t.name, t.value)
		}
	}
	return nil
}

// NewOwner returns a name for the owner of one lock, HOST:PID:RANDOM. It is the default
// of [LockOptions.Owner].
func NewOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), strings.ToLower(rand.Text()[:10]))
}

// Lock waits for a lock until ctx ends. Waiters are served first come, first served. If
// the deadline of ctx passes while another client holds the resource, Lock returns a
// [HeldError] that is also [context.DeadlineExceeded], up to a second after the deadline.
// While no server answers, Lock retries for at most [Options.ServerTimeout].
//
// If ctx ends the wait, Lock takes up to two seconds more to release a lock that the
// server may have granted meanwhile. If no server answers, such a lock expires after TTL.
// MinHold keeps the resource locked in either case. Lock never returns a nil Lock with a
// nil error.
func (c *Client) Lock(ctx context.Context, resource string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, resource, o, true)
}

// TryLock is like [Client.Lock] but does not wait: if another client holds the resource,
// it returns a [HeldError]. While no server answers, it retries until ctx ends or
// [Options.ServerTimeout] has passed.
func (c *Client) TryLock(ctx context.Context, resource string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, resource, o, false)
}

// Do acquires a lock like [Client.Lock], calls work, and releases the lock. The context
// of work ends when the lock is lost, or before it may be lost; its cause is then the
// [LostError]. Do returns after work has returned, with the error of work. If the lock
// was lost, the error is joined with a LostError even if work returned nil, because
// another client may have held the lock during the work. If the release fails, Do returns
// no error for it: the lock expires.
func (c *Client) Do(
	ctx context.Context, resource string, o LockOptions, work func(context.Context, *Lock) error,
) (err error) {
	l, err := c.Lock(ctx, resource, o)
	if err != nil {
		return err
	}
	held, cancel := l.Context(ctx)
	returned := false
	defer func() {
		cancel()
		if !returned { // work has panicked: Unlock must not delay the panic for long
			canceled, cancel := context.WithCancel(ctx)
			cancel()
			ctx = canceled
		}
		lost := l.Unlock(ctx)
		switch {
		case !errors.Is(lost, ErrLost):
		case err == context.Canceled: //nolint:errorlint // exactly the error of held, which the loss has canceled
			err = lost
		default:
			err = errors.Join(lost, err)
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
	a := acquisition{Client: c, o: o, resource: resource, wait: wait, began: c.now(), limit: maxWait}
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

// acquisition is one call of Lock or TryLock.
type acquisition struct {
	*Client
	o        LockOptions
	resource string
	metadata json.RawMessage
	wait     bool
	began    time.Duration
	limit    time.Duration // the maximum wait that the server and its proxies permit, as far as known

	id          string  // the request_id of the current attempts
	mayBeLocked bool    // an attempt with this ID may have been granted the lock, but its answer was lost
	inFlight    *flight // the attempt that was under way when ctx was canceled; nil: none
}

// run retries the request, with the same request_id. So the request keeps its place in
// the queue, and a server repeats a grant whose answer was lost.
func (a *acquisition) run(ctx context.Context) (*Lock, error) {
	extended, cancel := extendContext(ctx, 0, answerGrace)
	defer cancel()
	retries := a.retries("/locks/request")
	a.id = rand.Text()
	for {
		l, err := a.attemptLock(ctx, extended, retries)
		if err == nil {
			return l, nil
		}
		if err = a.next(ctx, retries, err); err != nil {
			a.releaseUnconfirmed(ctx)
			return nil, err
		}
	}
}

// extendContext returns a context that ends some time after ctx: afterCancel if ctx is
// canceled, afterDeadline if its deadline passes.
func extendContext(
	ctx context.Context, afterCancel, afterDeadline time.Duration,
) (context.Context, context.CancelFunc) {
	extended, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		extra := afterCancel
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			extra = afterDeadline
		}
		_ = sleep(extended, extra)
		cancel(ctx.Err())
	})
	return extended, func() {
		stop()
		cancel(context.Canceled)
	}
}

// attemptLock makes one attempt.
func (a *acquisition) attemptLock(ctx, extended context.Context, retries *retries) (*Lock, error) {
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
	granted, err := a.send(ctx, extended, retries.begin(r))
	if err != nil {
		a.mayBeLocked = a.mayBeLocked || a.inFlight != nil || mayBeExecuted(err)
		return nil, err
	}
	a.mayBeLocked = true // until the lock is returned
	acquired, err := data[wire.Acquired](granted)
	if err != nil {
		return nil, err
	}
	l := newLock(a.Client, a.resource, a.o, acquired.FencingToken, a.now())
	l.extend(granted.started)
	never := acquired.ExpiresInSeconds == nil
	if acquired.Repeated || acquired.WaitedSeconds > 0 || never != a.o.Forever || l.pastDeadline() {
		// The lock is renewed now in three cases: it is unknown when it was granted, its
		// deadline has passed already, or the server has applied its default TTL.
		confirmed, err := a.retry(extended, l.renewal(), retries)
		if err == nil {
			_, err = data[wire.Renewed](confirmed)
		}
		if err != nil {
			return nil, err
		}
		l.extend(confirmed.started)
	}
	if l.pastDeadline() { // the TTL is shorter than the time of an answer
		return nil, l.lost(LossExpired)
	}
	l.start(a.now() - a.began)
	return l, nil
}

func (a *acquisition) body() *wire.AcquireRequest {
	body := &wire.AcquireRequest{
		ResourceName: a.resource, ProcessID: a.o.Owner, RequestID: &a.id, Metadata: a.metadata,
	}
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

// mayBeExecuted reports whether a request that ended with an error may have been
// executed.
func mayBeExecuted(err error) bool {
	if api, is := errors.AsType[*APIError](err); is {
		return api.Code == string(wire.CodeOutcomeUnknown) || api.Code == "" ||
			api.Status == http.StatusInternalServerError
	}
	dial, is := errors.AsType[*net.OpError](err)
	if is && dial.Op == "dial" { // nothing was sent
		return false
	}
	transport, is := errors.AsType[*transportError](err)
	return is && !transport.unsent
}

// next decides what to do after an attempt failed with err. It returns nil, after a pause
// if one is due, if the request is to be retried. Otherwise it returns the error of the
// whole call.
func (a *acquisition) next(ctx context.Context, retries *retries, err error) error {
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
			case <-ctx.Done(): // its timer fires shortly after the deadline
				held.cause = causeOf(ctx)
			case <-time.After(answerGrace): // its timer is late, because it stopped in a suspend
			}
			return held
		case held.Code == string(wire.CodeWaitTimeout):
			retries.reset()
			return nil
		default: // a proxy has delayed an earlier attempt, which superseded this one; or no time was left to wait
			return retries.after(ctx, &APIError{Status: http.StatusServiceUnavailable, Code: held.Code})
		}
	}
	api, is := errors.AsType[*APIError](err)
	switch {
	case is && api.Code == codeQueueFull:
		return &HeldError{Resource: a.resource, Code: api.Code, RetryAfter: api.retry}
	case is && slices.Contains(api.Fields, "wait_seconds") && a.limit > time.Second:
		a.limit /= 2 // the server's MAX_WAIT is lower
		return nil
	case is && lossOf(api) != "": // the hold ended before it was confirmed
		a.id, a.mayBeLocked = rand.Text(), false
		err = &APIError{
			Status: http.StatusServiceUnavailable, Code: api.Code,
			Detail: "the lock was granted and has ended before it was confirmed",
		}
	case errors.Is(err, ErrUnavailable) && a.now()-retries.began > a.answerTime() && a.limit > time.Second:
		a.limit /= 2 // a proxy may have ended the wait
	}
	return retries.after(ctx, err)
}

func deadlinePassed(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= 0
}
