package lock_test

import (
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// drawModel draws the server that decides and a resource.
func (m *queueMachine) drawModel(t *rapid.T) *queueModel {
	m.at = rapid.IntRange(1, 3).Draw(t, "server")
	return m.models[rapid.SampledFrom(someResources).Draw(t, "resource")]
}

// drawPlace returns one of the places, nil if there is none.
func drawPlace(t *rapid.T, q *queueModel) *modelPlace {
	if len(q.places) == 0 {
		return nil
	}
	return rapid.SampledFrom(q.places).Draw(t, "place")
}

func (m *queueMachine) newConnection() int64 {
	m.last++
	return m.last
}

// register sets what the registry of waiting requests adds to an acquire: a connection,
// and whether the server has room for another waiting request.
func (m *queueMachine) register(t *rapid.T, c *lock.Acquire) {
	c.Connection = m.newConnection()
	c.MayQueue, c.QueueLimit = rapid.IntRange(0, 7).Draw(t, "server is full") > 0, queueLimit
}

// acquire is a request, perhaps of a process that has a place or the hold already.
func (m *queueMachine) acquire(t *rapid.T) {
	q := m.drawModel(t)
	c := lock.Acquire{Request: lock.Request{
		Resource: q.name, ProcessID: drawProcess(t), TTL: drawTTL(t, 0),
		RequestID: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "request"),
	}}
	if c.TTL > 0 {
		c.MinHold = step * time.Duration(rapid.IntRange(0, int(c.TTL/step)).Draw(t, "minimum"))
	}
	if rapid.IntRange(0, 3).Draw(t, "waits") > 0 {
		c.Wait = time.Minute
		m.register(t, &c)
	} else {
		if rapid.Bool().Draw(t, "connection") {
			c.Connection = m.newConnection()
		}
		if rapid.Bool().Draw(t, "no request id") {
			c.RequestID = ""
		}
	}
	c.Named = c.RequestID != ""
	m.decideAcquire(t, q, c)
}

// requeue executes the acquire of a waiting request again, or that of a request whose
// place a later one has taken.
func (m *queueMachine) requeue(t *rapid.T) {
	if len(m.displaced) > 0 && rapid.Bool().Draw(t, "displaced") {
		c := rapid.SampledFrom(m.displaced).Draw(t, "request")
		m.at = rapid.IntRange(1, 3).Draw(t, "server")
		c.Requeued = true
		out, err := m.run(t, c)
		var refusal *lock.HeldError
		superseded := errors.As(err, &refusal) && refusal.Kind == lock.Superseded
		if !superseded && !errors.As(err, new(*lock.PlaceLostError)) {
			t.Fatalf("%#v: got %+v, %v, although a later request has taken its place", c, out, err)
		}
		return
	}
	q := m.drawModel(t)
	if p := drawPlace(t, q); p != nil {
		c := p.acquire
		c.Requeued = true
		m.at = p.server
		if !p.detachedUntil.IsZero() || rapid.IntRange(0, 3).Draw(t, "superseded") == 0 {
			m.register(t, &c)
		}
		m.decideAcquire(t, q, c)
	}
}

func (m *queueMachine) decideAcquire(t *rapid.T, q *queueModel, c lock.Acquire) {
	out, err := m.run(t, c)
	h := q.newest
	if h.owned(m.now) && h.of(c.ProcessID, c.RequestID) {
		m.wantRepeated(t, q, c, out, err)
		return
	}
	p := q.place(c.ProcessID, c.RequestID)
	tooLate := p != nil && !p.detachedUntil.IsZero() && !p.detachedUntil.After(m.now)
	places, own := len(q.places), p // own is its place if that is still kept
	if tooLate {
		places, own = places-1, nil
	}
	first := m.first(q)
	mayTake := !h.live(m.now) && (first == nil || own != nil && own.ticket <= first.ticket)
	full := own == nil && places >= queueLimit
	switch {
	case c.Requeued && own != nil && own.acquire.Connection != c.Connection:
		m.wantRefused(t, q, c, lock.Superseded, err)
		return
	case c.Requeued && c.Named && own == nil:
		if !errors.As(err, new(*lock.PlaceLostError)) {
			t.Fatalf("%#v: got %+v, %v, want a PlaceLostError", c, out, err)
		}
		return
	case !mayTake && c.Wait == 0:
		m.wantRefused(t, q, c, lock.Held, err)
		return
	case !mayTake && (!c.MayQueue || full):
		if !errors.As(err, new(*lock.QueueFullError)) {
			t.Fatalf("%#v: got %v, want a QueueFullError with %d places", c, err, places)
		}
		return
	case err != nil:
		t.Fatalf("%#v: refused: %v", c, err)
	}
	if tooLate {
		q.giveUp(p)
	}
	m.wantDisplaced(t, c, out, own)
	if mayTake {
		m.wantGranted(t, q, c, out, own)
	} else {
		m.wantQueued(t, q, c, out, own)
	}
	m.want(t, c, out)
}

// wantRepeated checks the acquire of a request that has the hold.
func (m *queueMachine) wantRepeated(t *rapid.T, q *queueModel, c lock.Acquire, out lock.Outcome, err error) {
	h := q.newest
	if c.Requeued && h.connection != c.Connection {
		m.wantRefused(t, q, c, lock.Superseded, err)
		return
	}
	if err != nil || out.Hold.Token != h.token {
		t.Fatalf("%#v: got %+v, %v, want the hold that it has: %+v", c, out.Hold, err, h)
	}
	if out.Repeated != (h.connection != c.Connection) {
		t.Fatalf("%#v: repeated %t, the hold's connection is %d", c, out.Repeated, h.connection)
	}
	wantChanges := 0
	if h.connection != c.Connection && h.connection != 0 {
		wantChanges, h.connection = 1, 0
	}
	if len(out.Changed) != wantChanges {
		t.Fatalf("%#v: %d changes, want %d", c, len(out.Changed), wantChanges)
	}
	m.want(t, c, out)
}

func (m *queueMachine) wantGranted(t *rapid.T, q *queueModel, c lock.Acquire, out lock.Outcome, own *modelPlace) {
	var since time.Time
	if own != nil {
		since = own.since
		q.remove(own)
	}
	m.expire(q)
	m.grant(q, c, since)
	if out.Hold.Token != q.token {
		t.Fatalf("%#v: got %+v, want the token %d", c, out.Hold, q.token)
	}
}

func (m *queueMachine) wantQueued(t *rapid.T, q *queueModel, c lock.Acquire, out lock.Outcome, own *modelPlace) {
	if out.Hold != (lock.Hold{}) {
		t.Fatalf("%#v: got %+v, want a place", c, out.Hold)
	}
	if own == nil {
		q.ticket = max(q.ticket+1, m.now.UnixMicro())
		own = &modelPlace{ticket: q.ticket, since: m.now}
		q.places = append(q.places, own)
		q.queued[c.ProcessID]++
		q.record(lock.EventQueued, c.ProcessID)
	}
	if out.Ticket != own.ticket {
		t.Fatalf("%#v: got the ticket %d, want %d", c, out.Ticket, own.ticket)
	}
	own.acquire, own.server, own.detachedUntil = c, m.at, time.Time{}
	m.grantNext(q)
}

// wantDisplaced checks which request an acquire superseded: an open one that had its
// place.
func (m *queueMachine) wantDisplaced(t *rapid.T, c lock.Acquire, out lock.Outcome, own *modelPlace) {
	type request struct {
		lock.Request
		Connection int64
	}
	var want, got []request
	if own != nil && own.detachedUntil.IsZero() && own.acquire.Connection != c.Connection {
		want = append(want, request{own.acquire.Request, own.acquire.Connection})
		m.displaced = append(m.displaced, own.acquire)
	}
	for _, w := range out.Superseded {
		got = append(got, request{w.Request, w.Connection})
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("%#v: superseded (-want +got):\n%s", c, diff)
	}
}

// leaveCommand ends the wait of a request that waits, that was just granted the resource,
// or that has neither a place nor a hold.
func (m *queueMachine) leaveCommand(t *rapid.T) {
	q := m.drawModel(t)
	p, h := drawPlace(t, q), q.newest
	var c lock.Acquire
	var ticket int64
	holds := false
	switch {
	case h.owned(m.now) && h.connection != 0 && rapid.Bool().Draw(t, "holder"):
		c = lock.Acquire{
			Request:    lock.Request{Resource: q.name, ProcessID: h.process, RequestID: h.request},
			Connection: h.connection,
		}
		p, holds = nil, true
	case p != nil && m.connected(p):
		m.at, c, ticket = p.server, p.acquire, p.ticket
	default:
		c = lock.Acquire{
			Request:    lock.Request{Resource: q.name, ProcessID: drawProcess(t), RequestID: "x"},
			Connection: m.newConnection(),
		}
		p = nil
	}
	switch rapid.SampledFrom([]string{"time out", "disconnect", "drop orphan"}).Draw(t, "leave") {
	case "time out":
		m.timeOut(t, q, lock.TimeOut{Of: c, Keep: drawTTL(t, 0)}, p, holds)
	case "disconnect":
		m.disconnect(t, q, lock.Disconnect{Of: c, Ticket: ticket, Keep: drawTTL(t, 0), Why: "because"}, p, holds)
	case "drop orphan":
		m.dropOrphan(t, q, lock.DropOrphan{
			Place:      lock.Place{Resource: q.name, ProcessID: c.ProcessID, RequestID: c.RequestID},
			Connection: c.Connection,
		}, p)
	}
}

func (m *queueMachine) timeOut(t *rapid.T, q *queueModel, c lock.TimeOut, p *modelPlace, holds bool) {
	h := q.newest
	out, err := m.run(t, c)
	switch {
	case holds:
		if err != nil || out.Hold.Token != h.token || len(out.Changed) > 0 {
			t.Fatalf("%#v: got %+v, %v, want its hold %d unchanged", c, out, err, h.token)
		}
	case p == nil:
		kind := lock.Held
		later := q.place(c.Of.ProcessID, c.Of.RequestID)
		if later != nil && later.detachedUntil.IsZero() || h.owned(m.now) && h.of(c.Of.ProcessID, c.Of.RequestID) {
			kind = lock.Superseded
		}
		m.wantRefused(t, q, c, kind, err)
	case err != nil:
		t.Fatalf("%#v: refused: %v", c, err)
	case p == m.first(q) && !h.live(m.now):
		m.grantNext(q)
		q.grantedTo = nil // the request of the command itself
		if out.Hold.Token != q.token {
			t.Fatalf("%#v: got %+v, want the hold %d, because its turn has come", c, out.Hold, q.token)
		}
	default:
		m.leave(q, p, c.Keep)
		if out.Hold != (lock.Hold{}) {
			t.Fatalf("%#v: got the hold %+v, want none", c, out.Hold)
		}
	}
	m.want(t, c, out)
}

func (m *queueMachine) disconnect(t *rapid.T, q *queueModel, c lock.Disconnect, p *modelPlace, holds bool) {
	out, err := m.run(t, c)
	switch {
	case (holds || p != nil) && err != nil:
		t.Fatalf("%#v: refused: %v", c, err)
	case holds:
		q.newest.ended = true
		q.record(lock.EventReleased, q.newest.process)
		m.grantNext(q)
	case p != nil:
		m.leave(q, p, c.Keep)
	case !errors.Is(err, lock.ErrNotWaiting):
		t.Fatalf("%#v: got %v, want ErrNotWaiting", c, err)
	}
	m.want(t, c, out)
}

// dropOrphan never ends a hold.
func (m *queueMachine) dropOrphan(t *rapid.T, q *queueModel, c lock.DropOrphan, p *modelPlace) {
	out, err := m.run(t, c)
	switch {
	case p == nil && !errors.Is(err, lock.ErrNotWaiting):
		t.Fatalf("%#v: got %v, want ErrNotWaiting", c, err)
	case p != nil && err != nil:
		t.Fatalf("%#v: refused: %v", c, err)
	case p != nil:
		m.leave(q, p, 0)
	}
	m.want(t, c, out)
}

// putBack is a disconnect that races with the grant to a request whose place is kept.
func (m *queueMachine) putBack(t *rapid.T) {
	q := m.drawModel(t)
	h := q.newest
	if !h.owned(m.now) || h.connection == 0 || h.queuedAt.IsZero() {
		return
	}
	ticket := h.queuedAt.UnixMicro()
	if slices.ContainsFunc(q.places, func(p *modelPlace) bool { return p.ticket == ticket }) {
		return // another place has this ticket, so the hold's request had a later one
	}
	c := lock.Disconnect{
		Of: lock.Acquire{
			Request:    lock.Request{Resource: q.name, ProcessID: h.process, RequestID: h.request},
			Connection: h.connection,
		},
		Ticket: ticket, Keep: drawTTL(t, 1), Why: lock.ClientGone,
	}
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%#v: refused: %v", c, err)
	}
	h.ended = true
	q.record(lock.EventReleased, h.process)
	q.places = append(q.places, &modelPlace{
		acquire: c.Of, ticket: ticket, since: h.queuedAt, server: m.at, detachedUntil: m.now.Add(c.Keep),
	})
	q.ticket = max(q.ticket, ticket)
	q.queued[h.process]++
	m.grantNext(q)
	m.want(t, c, out)
}

func (m *queueMachine) removeAbandoned(t *rapid.T) {
	q := m.drawModel(t)
	c := lock.RemoveAbandoned{Keep: drawTTL(t, 0)}
	removed := false
	for _, p := range slices.Clone(q.places) {
		if !rapid.Bool().Draw(t, "named") {
			continue
		}
		c.Places = append(c.Places, lock.Place{Resource: q.name, ProcessID: p.process(), RequestID: p.acquire.RequestID})
		abandoned := !p.detachedUntil.IsZero() && !p.detachedUntil.After(m.now)
		if p.detachedUntil.IsZero() && p.server != m.at {
			abandoned = !m.alive[p.server].Add(c.Keep).After(m.now)
		}
		if abandoned {
			q.giveUp(p)
			removed = true
		}
	}
	if removed {
		m.grantNext(q)
	}
	m.want(t, c, m.accept(t, c))
}

func (m *queueMachine) accept(t *rapid.T, c lock.Command) lock.Outcome {
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%#v: refused: %v", c, err)
	}
	return out
}

func (m *queueMachine) expireAndGrant(t *rapid.T) {
	m.drawModel(t)
	c := lock.ExpireAndGrant{Names: someResources}
	out := m.accept(t, c)
	for _, name := range c.Names {
		m.grantNext(m.models[name])
	}
	m.want(t, c, out)
}

// endCommand is a release, a release of all holds of a process or a force-release.
func (m *queueMachine) endCommand(t *rapid.T) {
	q := m.drawModel(t)
	h := q.newest
	owned, live := h.owned(m.now), h.live(m.now)
	process := "p"
	if owned {
		process = h.process
	}
	switch rapid.SampledFrom([]string{"release", "release all", "force-release"}).Draw(t, "end") {
	case "release":
		c := lock.Release{Resource: q.name, ProcessID: process}
		out, err := m.run(t, c)
		if owned != (err == nil) {
			t.Fatalf("%#v: got %v, owned: %t", c, err, owned)
		}
		if owned {
			m.end(q, lock.EventReleased)
		}
		m.want(t, c, out)
	case "release all":
		c := lock.ReleaseAll{Names: someResources, ProcessID: process}
		out := m.accept(t, c)
		for _, name := range c.Names {
			if q := m.models[name]; q.newest.owned(m.now) && q.newest.process == process {
				m.end(q, lock.EventReleased)
			}
		}
		m.want(t, c, out)
	case "force-release":
		c := lock.ForceRelease{Resource: q.name, Reason: "it hangs"}
		out, err := m.run(t, c)
		if live != (err == nil) {
			t.Fatalf("%#v: got %v, live: %t", c, err, live)
		}
		if live {
			m.end(q, lock.EventForceReleased)
		}
		m.want(t, c, out)
	}
}

func (m *queueMachine) renew(t *rapid.T) {
	q := m.drawModel(t)
	if h := q.newest; h.owned(m.now) {
		c := lock.Renew{Resource: q.name, ProcessID: h.process, TTL: drawTTL(t, 1)}
		h.expires = m.now.Add(c.TTL)
		if h.minimum.After(h.expires) {
			h.expires = h.minimum
		}
		m.want(t, c, m.accept(t, c))
	}
}

func (m *queueMachine) deleteIdle(t *rapid.T) {
	q := m.drawModel(t)
	r := m.resources[q.name]
	out := m.accept(t, lock.DeleteIdle{Names: []string{q.name}, Before: m.now.Add(step)})
	want := r.ID != 0 && len(q.places) == 0 && (q.newest == nil || q.newest.ended)
	if got := len(out.Changed) == 1; got != want {
		t.Fatalf("%q deleted: %t, want %t with %d places", q.name, got, want, len(q.places))
	}
	if want { // undo it: TestInvariants goes on after a deletion
		r.Deleted = false
		m.resources[q.name], m.servers[q.name] = r, map[int64]int{}
	}
}

// clock moves the clock. Some servers renew their leases, and the leases of others end.
func (m *queueMachine) clock(t *rapid.T) {
	m.now = m.now.Add(step * time.Duration(rapid.IntRange(0, 3).Draw(t, "clock")))
	for server := 1; server <= 3; server++ {
		if rapid.Bool().Draw(t, "lease renewed") {
			m.alive[server] = m.now.Add(2 * step)
		}
	}
}
