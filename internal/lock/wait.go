package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// waitingRoom keeps the requests that wait on this server until a commit grants them what they wait for.
//
// The queue itself is in the database. Here is only who is to be told, by connection. Whatever commits on this server comes
// by (committed); that a resource may have become free without that is a hint, and whoever gives it - a timer set for the
// holder's expiry, another server's notification, a regular look at the database - only has the resource settled, which
// finds out. All hints may be lost or wrong but the last.
type waitingRoom struct {
	store    Store
	limits   Limits
	refusals *refusals
	log      *slog.Logger

	mu       sync.Mutex
	requests map[int64]*waitingRequest // by connection
	timers   map[string]*time.Timer    // by resource: when its next waiter's turn may come without any command
	doubtful map[string]struct{}       // resources to settle
	leaving  []Leave                   // what nobody waits for any more
	free     bool                      // look for free resources that requests wait for here
	all      bool                      // look at all requests that wait here

	work   chan struct{} // holds one token while there may be something in doubtful, leaving, free or all
	closed chan struct{} // closed by closeDoor
	quit   chan struct{} // closed by stop
	done   chan struct{} // closed when the loop has ended
}

// waitingRequest is one request that waits. Its channels hold one element, and nobody blocks on sending.
type waitingRequest struct {
	granted    chan Grant
	again      chan struct{} // its grant or its place is in doubt: it has to ask again
	superseded chan struct{} // a later request with the same RequestID has its place
	queued     bool          // it has a place, as far as is known
}

const (
	settleAtOnce = 500                    // resources settled in one transaction
	leaveAtOnce  = 100                    // requests that leave at the same time
	retryAfter   = 200 * time.Millisecond // when the database refused
	lookAtAll    = 10                     // of so many rechecks one looks at all requests
)

func newWaitingRoom(store Store, limits Limits, refused *refusals, log *slog.Logger) *waitingRoom {
	return &waitingRoom{
		store: store, limits: limits, refusals: refused, log: log,
		requests: map[int64]*waitingRequest{},
		timers:   map[string]*time.Timer{},
		doubtful: map[string]struct{}{},
		work:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
		quit:     make(chan struct{}),
		done:     make(chan struct{}),
	}
}

// acquire runs a request that may wait. What happens to its place and hold must not depend on whether its client is still
// there, so the commands do not heed ctx.
func (q *waitingRoom) acquire(ctx context.Context, c Acquire) (Grant, error) {
	commands := context.WithoutCancel(ctx)
	if !c.Named {
		c.RequestID = "~" + rand.Text()
	}
	request, err := q.enter(&c)
	if err != nil {
		return Grant{}, err
	}
	defer q.forget(c.Connection)

	leave := Leave{Request: c}
	if c.Named {
		leave.Keep = q.limits.KeepPlace
	}
	timeout := time.NewTimer(c.Wait)
	defer timeout.Stop()
	for begun := time.Now(); ; {
		asked := time.Now()
		c.Patient = q.refusals.likely(c.Resource)
		out, err := q.store.Execute(commands, c)
		if err != nil {
			if c.Again || !refuses(err) {
				leave.Gone, leave.Why = true, ClientGone
				q.later(leave)
			}
			return Grant{}, err
		}
		var granted Grant
		if out.Hold.Token != 0 {
			granted = grantOf(out, c)
			if c.Patient && time.Since(asked) > Patience { // it waited in vain
				q.refusals.note(c.Resource, false)
			}
		} else {
			q.refusals.note(c.Resource, true)
			leave.Ticket, c.Again = out.Ticket, true
			q.queued(request)
			select {
			case granted = <-request.granted:
			case <-request.again:
				continue
			case <-request.superseded:
				return Grant{}, q.superseded(commands, c.Resource)
			case <-timeout.C:
				leave.Why = WaitTimeout
				if granted, err = q.timeOut(commands, leave, time.Since(begun)); err != nil {
					return Grant{}, err
				}
			case <-ctx.Done():
				leave.Gone, leave.Why = true, ClientGone
				q.leave(commands, leave)
				return Grant{}, ErrClientGone
			case <-q.closed:
				leave.Gone, leave.Why = true, ServerStopping
				q.leave(commands, leave)
				return Grant{}, ErrStopping
			}
		}
		granted.To = c                                             // the store does not keep whether the client chose the name
		granted.Ticket = max(granted.Ticket, leave.Ticket)         // it may have learnt of its hold by asking again
		if ctx.Err() != nil && (granted.Ticket != 0 || !c.Named) { // it crossed with the grant
			q.giveBack(commands, granted)
			return Grant{}, ErrClientGone
		}
		return granted, nil
	}
}

// giveBack ends what was granted to a request whose client has gone before it was told.
func (q *waitingRoom) giveBack(ctx context.Context, g Grant) {
	if leave, ends := g.undo(q.limits.KeepPlace); ends {
		q.leave(ctx, leave)
	}
}

// superseded returns the refusal of a request whose place a later one has taken, with what is in the way of that one as
// far as the database can be read.
func (q *waitingRoom) superseded(ctx context.Context, name string) error {
	r, now, err := q.store.Find(ctx, name)
	if err != nil {
		r = Resource{Name: name}
	}
	return r.superseded(now)
}

// refuses tells whether an error says that nothing was changed.
func refuses(err error) bool {
	var held *HeldError
	var full *QueueFullError
	return errors.As(err, &held) || errors.As(err, &full) ||
		errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOverloaded) || errors.Is(err, ErrStopping)
}

// enter notes that the request may have to wait, before anybody can grant it anything.
func (q *waitingRoom) enter(c *Acquire) (*waitingRequest, error) {
	request := &waitingRequest{
		granted: make(chan Grant, 1), again: make(chan struct{}, 1), superseded: make(chan struct{}, 1),
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.closed:
		return nil, ErrStopping
	default:
	}
	c.QueueLimit = q.limits.MaxQueue
	if len(q.requests) >= q.limits.MaxWaiters {
		c.QueueLimit = 0
	}
	q.requests[c.Connection] = request
	return request, nil
}

func (q *waitingRoom) queued(request *waitingRequest) {
	q.mu.Lock()
	request.queued = true
	q.mu.Unlock()
}

func (q *waitingRoom) forget(connection int64) {
	q.mu.Lock()
	delete(q.requests, connection)
	q.mu.Unlock()
}

// timeOut ends waiting that has taken long enough. A grant that crossed with it counts.
func (q *waitingRoom) timeOut(ctx context.Context, leave Leave, waited time.Duration) (Grant, error) {
	out, err := q.store.Execute(ctx, leave)
	var held *HeldError
	switch {
	case errors.As(err, &held):
	case err != nil:
		leave.Gone = true
		q.later(leave)
		return Grant{}, err
	case leave.Request.has(out.Hold):
		return grantOf(out, leave.Request), nil
	default:
		held = out.Changed[0].refusal(out.Now)
		if leave.Keep > 0 {
			held.KeptUntil = out.Now.Add(leave.Keep)
			held.Position = q.position(ctx, leave, held.Waiters)
		}
	}
	if !held.Superseded {
		held.TimedOut, held.Waited = true, waited
	}
	return Grant{}, held
}

// position counts the connected waiters before a place that is kept, and that place. It is 0 when that cannot be told.
func (q *waitingRoom) position(ctx context.Context, kept Leave, waiters int) int {
	behind, position, _, err := q.store.Queue(ctx, kept.Request.Resource, kept.Ticket, 1)
	switch {
	case err != nil:
		return 0
	case len(behind) == 0:
		return waiters + 1
	}
	return position
}

// leave gives up a request's place or hold now, or later if the database cannot do it now.
func (q *waitingRoom) leave(ctx context.Context, leave Leave) {
	if _, err := q.store.Execute(ctx, leave); err != nil && !errors.As(err, new(*HeldError)) {
		q.later(leave)
	}
}

// hungUp is the leaving of a request whose client has gone and is not expected back.
func hungUp(c Acquire) Leave { return Leave{Request: c, Gone: true, Why: ClientGone} }

// later has a request leave in the background.
func (q *waitingRoom) later(leave Leave) {
	q.mu.Lock()
	q.leaving = append(q.leaving, leave)
	q.mu.Unlock()
	q.wake()
}

// committed takes note of a transaction of this server.
func (q *waitingRoom) committed(c Commit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range c.Granted {
		switch request, here := q.requests[g.Hold.Connection]; {
		case !here:
			q.leaving = append(q.leaving, hungUp(g.To))
			q.wake()
		case c.Unknown:
			send(request.again, struct{}{})
		default:
			send(request.granted, g)
		}
	}
	for _, connection := range c.Superseded {
		if request, here := q.requests[connection]; here {
			if c.Unknown {
				send(request.again, struct{}{})
			} else {
				send(request.superseded, struct{}{})
			}
		}
	}
	for _, r := range c.Awaited {
		if first := r.next(c.Now); c.Unknown || first != nil && first.Here { // its time was over before its timer fired
			q.doubtful[r.Name] = struct{}{}
			q.wake()
			continue
		}
		q.setTimer(r, c)
	}
}

// setTimer has the resource settled when its next waiter's turn may come by itself.
func (q *waitingRoom) setTimer(r Resource, c Commit) {
	timer, set := q.timers[r.Name]
	due := r.Due(c.Now)
	if due.IsZero() || r.Waiters == 0 {
		if set {
			timer.Stop()
			delete(q.timers, r.Name)
		}
		return
	}
	// Not before that moment by the clock that decides: the time since it was read has passed there as well.
	delay := due.Sub(c.Now) - time.Since(c.Read)
	if set {
		timer.Reset(delay)
		return
	}
	name := r.Name
	q.timers[name] = time.AfterFunc(delay, func() {
		q.mu.Lock()
		delete(q.timers, name)
		q.mu.Unlock()
		q.settle(name)
	})
}

// supersede ends the waiting of a request whose place a later one has taken on another server.
func (q *waitingRoom) supersede(connection int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if request, here := q.requests[connection]; here {
		send(request.superseded, struct{}{})
	}
}

// settle has the named resources settled soon.
func (q *waitingRoom) settle(names ...string) {
	q.mu.Lock()
	for _, name := range names {
		q.doubtful[name] = struct{}{}
	}
	q.mu.Unlock()
	q.wake()
}

// wakeAll has everything looked at soon.
func (q *waitingRoom) wakeAll() {
	q.mu.Lock()
	q.all = true
	q.mu.Unlock()
	q.wake()
}

func (q *waitingRoom) wake() { send(q.work, struct{}{}) }

// send puts an element into a channel unless that is full.
func send[T any](c chan T, element T) {
	select {
	case c <- element:
	default:
	}
}

func (q *waitingRoom) start() { go q.loop() }

// closeDoor answers all who wait.
func (q *waitingRoom) closeDoor() {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.closed:
	default:
		close(q.closed)
	}
}

// stop ends the loop and the timers. What could not be given up by now is left to the other servers.
func (q *waitingRoom) stop() {
	q.closeDoor()
	close(q.quit)
	<-q.done
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, timer := range q.timers {
		timer.Stop()
		delete(q.timers, name)
	}
}

func (q *waitingRoom) loop() {
	defer close(q.done)
	ticker := time.NewTicker(q.limits.Recheck)
	defer ticker.Stop()
	retry := time.NewTimer(retryAfter)
	defer retry.Stop()
	failing := false
	for ticks := 1; ; {
		select {
		case <-q.quit:
			_ = q.catchUp()
			return
		case <-retry.C:
		case <-q.work:
			if failing { // its own pace, whoever hints
				continue
			}
		case <-ticker.C:
			q.mu.Lock()
			if len(q.requests) > 0 {
				q.free, q.all = true, q.all || ticks%lookAtAll == 0
				ticks++
			}
			q.mu.Unlock()
		}
		err := q.catchUp()
		if err != nil {
			if !failing {
				q.log.Warn("waiting requests cannot be served now; it goes on trying", "error", err)
			}
			retry.Reset(retryAfter)
		}
		failing = err != nil
	}
}

// catchUp does what there is to do. What fails stays to be done.
func (q *waitingRoom) catchUp() error {
	ctx := context.Background()
	q.mu.Lock()
	free, all := q.free, q.all
	q.free, q.all = false, false
	q.mu.Unlock()
	var errs []error
	if free || all {
		if err := q.compare(ctx, all); err != nil {
			errs = append(errs, err)
			q.mu.Lock()
			q.free, q.all = true, q.all || all
			q.mu.Unlock()
		}
	}

	q.mu.Lock()
	names := slices.Collect(maps.Keys(q.doubtful))
	clear(q.doubtful)
	leaving := q.leaving
	q.leaving = nil
	q.mu.Unlock()
	for some := range slices.Chunk(names, settleAtOnce) {
		if _, err := q.store.Execute(ctx, Settle{Names: some}); err != nil {
			errs = append(errs, err)
			q.mu.Lock()
			for _, name := range some {
				q.doubtful[name] = struct{}{}
			}
			q.mu.Unlock()
		}
	}
	for some := range slices.Chunk(leaving, leaveAtOnce) {
		failed := make([]error, len(some))
		var all sync.WaitGroup
		for i, leave := range some {
			all.Go(func() { _, failed[i] = q.store.Execute(ctx, leave) })
		}
		all.Wait()
		for i, err := range failed {
			if err != nil && !errors.As(err, new(*HeldError)) {
				errs = append(errs, err)
				q.mu.Lock()
				q.leaving = append(q.leaving, some[i])
				q.mu.Unlock()
			}
		}
	}
	return errors.Join(errs...)
}

// compare looks at the database for what no hint has told: free resources that requests wait for here, and if it looks at
// all, requests that have lost their place, and places that nobody waits in.
func (q *waitingRoom) compare(ctx context.Context, all bool) error {
	lost := map[int64]*waitingRequest{}
	if all {
		q.mu.Lock()
		for connection, request := range q.requests {
			if request.queued {
				lost[connection] = request
			}
		}
		q.mu.Unlock()
	}

	stored, err := q.store.Waiting(ctx, !all)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range stored {
		if _, here := q.requests[w.Request.Connection]; !here {
			// It may have been granted and answered since the look, so its hold is none of ours.
			leave := hungUp(w.Request)
			leave.Place = true
			q.leaving = append(q.leaving, leave)
		}
		delete(lost, w.Request.Connection)
		if w.Free {
			q.doubtful[w.Request.Resource] = struct{}{}
		}
	}
	for _, request := range lost { // or it has been granted at this moment: asking again is no mistake
		send(request.again, struct{}{})
	}
	return nil
}
