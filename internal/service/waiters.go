package service

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"resource-lock-manager/internal/lifecycle"
	"resource-lock-manager/internal/lock"
)

// maxRideAlong is how long an acquire that will probably be queued may stay in the commit
// queue to share another command's transaction, typically the release of the holder,
// instead of causing a transaction of its own.
const maxRideAlong = time.Millisecond

// waiters is the in-memory registry of the requests that wait on this server, keyed by
// connection. The queue itself is in the database.
//
// The store reports every local commit to committed. Everything else, such as expiry
// timers, notifications of other servers and the periodic recheck, is a hint: it
// schedules an ExpireAndGrant of the resource, which reads the truth. Any hint may be
// lost or spurious except the periodic recheck, which is the backstop. The loop in
// reconcile.go executes what the hints schedule.
type waiters struct {
	store    Store
	cfg      Config
	refusals *refusalCache
	log      *slog.Logger

	mu       sync.Mutex
	requests map[int64]*waitingRequest // by connection
	timers   map[string]*time.Timer    // by resource: when its next waiter's turn may come without a command
	pending  work

	wake      chan struct{} // holds one token while pending may not be empty
	closed    chan struct{} // closed by close
	closeOnce sync.Once
	loops     lifecycle.Loops
}

// waitingRequest is one request that waits. Each channel holds one element, and no sender
// blocks.
type waitingRequest struct {
	granted    chan lock.Grant
	retry      chan struct{} // its grant or its place is in doubt: it has to execute its acquire again
	superseded chan struct{} // a later request with the same RequestID has its place
	queued     bool          // its acquire was queued; guarded by waiters.mu
}

func newWaiters(store Store, cfg Config, refusals *refusalCache, log *slog.Logger) *waiters {
	return &waiters{
		store: store, cfg: cfg, refusals: refusals, log: log,
		requests: map[int64]*waitingRequest{},
		timers:   map[string]*time.Timer{},
		pending:  newWork(),
		wake:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
}

// acquire executes a request that may wait. What happens to its place and its hold must
// not depend on whether its client is still connected, so its commands do not end with
// ctx.
func (q *waiters) acquire(ctx context.Context, c lock.Acquire) (lock.Grant, error) {
	commands := context.WithoutCancel(ctx)
	if !c.Named {
		c.RequestID = "~" + rand.Text()
	}
	request, err := q.register(&c)
	if err != nil {
		return lock.Grant{}, err
	}
	defer q.unregister(c.Connection)

	end := lock.Disconnect{Of: c, Why: lock.ClientGone}
	if c.Named {
		end.Keep = q.cfg.KeepPlace
	}
	timeout := time.NewTimer(c.Wait)
	defer timeout.Stop()
	for started := time.Now(); ; {
		out, err := q.execute(commands, c)
		if err != nil {
			if c.Requeued || !unchanged(err) {
				q.later(end)
			}
			return lock.Grant{}, err
		}
		granted := out.Grant(c)
		if granted.Hold.Token == 0 {
			end.Ticket, c.Requeued = out.Ticket, true
			q.queued(request)
			select {
			case granted = <-request.granted:
			case <-request.retry:
				continue
			case <-request.superseded:
				return lock.Grant{}, q.superseded(commands, c.Resource)
			case <-timeout.C:
				if granted, err = q.timeOut(commands, end, time.Since(started)); err != nil {
					return lock.Grant{}, err
				}
			case <-ctx.Done():
				q.disconnect(commands, end)
				return lock.Grant{}, ErrClientGone
			case <-q.closed:
				end.Why = lock.ServerStopping
				q.disconnect(commands, end)
				return lock.Grant{}, ErrStopping
			}
		}
		granted.To = c                                             // the store does not store Named
		granted.Ticket = max(granted.Ticket, end.Ticket)           // a retry that finds its hold returns no ticket
		if ctx.Err() != nil && (granted.Ticket != 0 || !c.Named) { // the disconnect raced with the grant
			q.abandon(commands, granted)
			return lock.Grant{}, ErrClientGone
		}
		return granted, nil
	}
}

// execute executes the acquire. If it will probably be queued, it may share a
// transaction.
func (q *waiters) execute(ctx context.Context, c lock.Acquire) (lock.Outcome, error) {
	var maxDelay time.Duration
	if q.refusals.likely(c.Resource) {
		maxDelay = maxRideAlong
	}
	started := time.Now()
	out, err := q.store.ExecuteWithin(ctx, c, maxDelay)
	switch {
	case err != nil:
	case out.Hold.Token == 0:
		q.refusals.note(c.Resource, true)
	case maxDelay > 0 && time.Since(started) > maxDelay: // no other command came to share the transaction
		q.refusals.note(c.Resource, false)
	}
	return out, err
}

// abandon ends a grant whose client disconnected before it got its answer.
func (q *waiters) abandon(ctx context.Context, g lock.Grant) {
	if c, ok := g.Abandon(q.cfg.KeepPlace); ok {
		q.disconnect(ctx, c)
	}
}

// disconnect ends a request now, or later if the database is not available.
func (q *waiters) disconnect(ctx context.Context, c lock.Disconnect) {
	if _, err := q.store.Execute(ctx, c); failed(err) {
		q.later(c)
	}
}

// failed reports whether a command that ends a request has to be executed again.
func failed(err error) bool { return err != nil && !errors.Is(err, lock.ErrNotWaiting) }

// superseded returns the refusal of a request whose place a later one has taken. It
// states the holder if the database can be read.
func (q *waiters) superseded(ctx context.Context, name string) error {
	s, err := q.store.Find(ctx, name)
	if err != nil {
		s.Resource = lock.Resource{Name: name}
	}
	return s.Resource.Refusal(s.At, lock.Superseded)
}

// unchanged reports whether an error states that nothing was changed.
func unchanged(err error) bool {
	if errors.Is(err, ErrOutcomeUnknown) { // whatever its cause
		return false
	}
	var held *lock.HeldError
	var full *lock.QueueFullError
	return errors.As(err, &held) || errors.As(err, &full) ||
		errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOverloaded) || errors.Is(err, ErrStopping)
}

// register adds the request to the registry, before any commit can grant it anything.
func (q *waiters) register(c *lock.Acquire) (*waitingRequest, error) {
	request := &waitingRequest{
		granted: make(chan lock.Grant, 1), retry: make(chan struct{}, 1), superseded: make(chan struct{}, 1),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.closed:
		return nil, ErrStopping
	default:
	}
	c.MayQueue, c.QueueLimit = len(q.requests) < q.cfg.MaxWaiters, q.cfg.MaxQueue
	q.requests[c.Connection] = request
	return request, nil
}

// queued notes that the acquire of the request was queued.
func (q *waiters) queued(request *waitingRequest) {
	q.mu.Lock()
	request.queued = true
	q.mu.Unlock()
}

func (q *waiters) unregister(connection int64) {
	q.mu.Lock()
	delete(q.requests, connection)
	q.mu.Unlock()
}

// timeOut ends a wait that has taken as long as the request asked for. If it
// raced with a grant, timeOut returns the grant.
func (q *waiters) timeOut(ctx context.Context, end lock.Disconnect, waited time.Duration) (lock.Grant, error) {
	out, err := q.store.Execute(ctx, lock.TimeOut{Of: end.Of, Keep: end.Keep})
	var held *lock.HeldError
	switch {
	case errors.As(err, &held):
	case err != nil:
		end.Why = lock.WaitTimeout
		q.later(end)
		return lock.Grant{}, err
	case out.Hold.Token != 0:
		return out.Grant(end.Of), nil
	default:
		held = out.Resource.Refusal(out.Now, lock.TimedOut)
		if end.Keep > 0 {
			held.KeptUntil = out.Now.Add(end.Keep)
			held.Position = q.position(ctx, end, held.Waiters)
		}
	}
	if held.Kind != lock.Superseded {
		held.Kind, held.Waited = lock.TimedOut, waited
	}
	return lock.Grant{}, held
}

// position returns the position of a kept place: the connected waiters before it, and
// itself. It returns 0 if the queue cannot be read.
func (q *waiters) position(ctx context.Context, kept lock.Disconnect, waiters int) int {
	page, err := q.store.Queue(ctx, kept.Of.Resource, kept.Ticket, 1)
	switch {
	case err != nil:
		return 0
	case len(page.Waiters) == 0:
		return waiters + 1
	}
	return page.Position
}

// supersede ends the wait of a request whose place a later one has taken on another
// server.
func (q *waiters) supersede(connection int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if request, found := q.requests[connection]; found {
		send(request.superseded, struct{}{})
	}
}

// send sends an element to a channel unless the channel is full.
func send[T any](c chan T, element T) {
	select {
	case c <- element:
	default:
	}
}

// close ends the wait of every request. It may be called again.
func (q *waiters) close() {
	q.closeOnce.Do(func() {
		q.mu.Lock() // register either sees the closed channel or has returned
		defer q.mu.Unlock()
		close(q.closed)
	})
}
