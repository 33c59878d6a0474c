package lock_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

var someResources = []string{"r", "s"}

// queueLimit is small, so that queues are sometimes full.
const queueLimit = 5

// queueMachine runs commands of three servers on a database in memory and keeps a model
// of each queue.
type queueMachine struct {
	now       time.Time
	at        int                      // the server that decides
	alive     map[int]time.Time        // when the lease of each server ends
	resources map[string]lock.Resource // Local and AliveUntil of their waiters have no meaning
	servers   map[string]map[int64]int // of each waiter, by resource and ticket
	models    map[string]*queueModel   // by resource
	eventTime map[string]time.Time     // the time of each resource's newest event
	displaced []lock.Acquire           // requests whose places later requests have taken
	lastID    int64
	last      int64 // connection
}

func newQueueMachine() *queueMachine {
	m := &queueMachine{
		now: t0, at: 1, alive: map[int]time.Time{}, resources: map[string]lock.Resource{},
		servers: map[string]map[int64]int{}, models: map[string]*queueModel{}, eventTime: map[string]time.Time{},
	}
	for _, name := range someResources {
		m.models[name] = newQueueModel(name)
	}
	for server := 1; server <= 3; server++ {
		m.alive[server] = t0.Add(2 * step)
	}
	return m
}

// load returns the state of a resource for the server that decides. Behind the queue
// there is a marker, so that an append in place is detected.
func (m *queueMachine) load(name string) lock.Resource {
	r := m.resources[name]
	r.Name = name
	queue := make([]*lock.Waiter, len(r.Queue), len(r.Queue)+1)
	for i, w := range r.Queue {
		loaded, server := *w, m.servers[name][w.Ticket]
		loaded.Local = server == m.at && w.DetachedUntil.IsZero()
		loaded.AliveUntil = time.Time{}
		if server != m.at {
			loaded.AliveUntil = m.alive[server]
		}
		queue[i] = &loaded
	}
	r.Queue = append(queue, local(999, "behind the slice"))[:len(queue)]
	return r
}

// save stores a new state. A waiter that is not one of those that were loaded belongs to
// the server that decides.
func (m *queueMachine) save(r lock.Resource, loaded []*lock.Waiter) {
	servers := map[int64]int{}
	for _, w := range r.Queue {
		servers[w.Ticket] = m.at
		if slices.Contains(loaded, w) {
			servers[w.Ticket] = m.servers[r.Name][w.Ticket]
		}
	}
	if r.ID == 0 {
		m.lastID++
		r.ID = m.lastID
	}
	m.servers[r.Name], m.resources[r.Name] = servers, r
	if r.Deleted {
		delete(m.servers, r.Name)
		delete(m.resources, r.Name)
	}
}

// run decides a command twice and stores what it changed.
func (m *queueMachine) run(t *rapid.T, c lock.Command) (lock.Outcome, error) {
	names := c.Needs().Resources
	var before []lock.Resource
	for _, name := range names {
		before = append(before, m.load(name))
	}
	out, err := c.Decide(m.now, before)
	again, errAgain := c.Decide(m.now, before)
	if diff := differ(out, again) + differ(err, errAgain); diff != "" {
		t.Fatalf("%#v decided twice (-first +second):\n%s", c, diff)
	}
	for i, name := range names {
		if diff := differ(m.load(name), before[i]); diff != "" {
			t.Fatalf("%#v wrote into its input (-before +after):\n%s", c, diff)
		}
		if n := len(before[i].Queue); before[i].Queue[:n+1][n].Ticket != 999 {
			t.Fatalf("%#v wrote behind the queue that it was given", c)
		}
	}
	checkChanges(t, c, before, out, err)
	for _, g := range out.Granted {
		r := before[slices.Index(names, g.To.Resource)]
		m.wantFirst(t, c, r, g.To)
		m.wantLocal(t, c, r, g.To)
	}
	if c, acquires := c.(lock.Acquire); acquires && out.Hold.LockedAt.Equal(m.now) && out.Hold.Token > before[0].Token {
		m.wantFirst(t, c, before[0], c)
	}
	for _, e := range out.Events { // I10
		if e.At.Before(m.eventTime[e.Resource]) || e.At.After(m.now) {
			t.Fatalf("%#v at %v, after an event at %v: %+v", c, m.now, m.eventTime[e.Resource], e)
		}
		m.eventTime[e.Resource] = e.At
	}
	for _, r := range out.Changed {
		m.save(r, before[slices.Index(names, r.Name)].Queue)
	}
	return out, err
}

// wantFirst checks that no connected waiter was before the one that was granted the
// resource, except one whose wait the command ends. It reads the queue, not the model.
func (m *queueMachine) wantFirst(t *rapid.T, c lock.Command, before lock.Resource, granted lock.Acquire) {
	leaving, leaves := endsWaitOf(c)
	for _, w := range before.Queue {
		if w.Request.ProcessID == granted.ProcessID && w.Request.RequestID == granted.RequestID {
			return // the others were queued later
		}
		left := leaves && w.Request.ProcessID == leaving.ProcessID && w.Request.RequestID == leaving.RequestID
		if w.DetachedUntil.IsZero() && (w.Local || w.AliveUntil.After(m.now)) && !left {
			t.Fatalf("%#v: %q was granted %q before %q, which waits with the ticket %d",
				c, granted.ProcessID, before.Name, w.Request.ProcessID, w.Ticket)
		}
	}
}

// endsWaitOf returns the place whose wait a command ends.
func endsWaitOf(c lock.Command) (p lock.Place, ok bool) {
	switch c := c.(type) {
	case lock.TimeOut:
		return lock.Place{Resource: c.Of.Resource, ProcessID: c.Of.ProcessID, RequestID: c.Of.RequestID}, true
	case lock.Disconnect:
		return lock.Place{Resource: c.Of.Resource, ProcessID: c.Of.ProcessID, RequestID: c.Of.RequestID}, true
	case lock.DropOrphan:
		return c.Place, true
	}
	return lock.Place{}, false
}

// wantLocal checks that another request was granted the resource only if it was connected
// to the server that decided.
func (m *queueMachine) wantLocal(t *rapid.T, c lock.Command, before lock.Resource, granted lock.Acquire) {
	for _, w := range before.Queue {
		if w.Request == granted.Request && w.Connection == granted.Connection && w.Local && w.DetachedUntil.IsZero() {
			return
		}
	}
	t.Fatalf("%#v: granted to %+v, which is not local", c, granted)
}

// want compares the events and the grants of a command with the models.
func (m *queueMachine) want(t *rapid.T, c lock.Command, out lock.Outcome) {
	var events, wantEvents, granted, wantGranted []string
	for _, name := range c.Needs().Resources {
		q := m.models[name]
		wantEvents, wantGranted = append(wantEvents, q.events...), append(wantGranted, q.grantedTo...)
		q.events, q.grantedTo = nil, nil
	}
	for _, e := range out.Events {
		events = append(events, fmt.Sprintf("%s %s %s", e.Resource, e.Kind, e.ProcessID))
	}
	for _, g := range out.Granted {
		granted = append(granted, g.To.ProcessID)
	}
	if diff := differ(wantEvents, events); diff != "" {
		t.Fatalf("%#v: events (-want +got):\n%s", c, diff)
	}
	if diff := differ(wantGranted, granted); diff != "" {
		t.Fatalf("%#v: granted (-want +got):\n%s", c, diff)
	}
}

// wantRefused checks a HeldError, which names the holder or the next waiter.
func (m *queueMachine) wantRefused(t *rapid.T, q *queueModel, c lock.Command, kind lock.HeldKind, err error) {
	var refusal *lock.HeldError
	if !errors.As(err, &refusal) {
		t.Fatalf("%#v: got %v, want a HeldError", c, err)
	}
	var token, wantToken int64
	next := ""
	if q.newest.live(m.now) {
		wantToken = q.newest.token
	} else if first := m.first(q); first != nil {
		next = first.process()
	}
	if refusal.Holder != nil {
		token = refusal.Holder.Token
	}
	if token != wantToken || refusal.Next != next || refusal.Kind != kind || !refusal.Now.Equal(m.now) {
		t.Fatalf("%#v: got %+v, want holder %d, next %q, kind %d", c, refusal, wantToken, next, kind)
	}
}

// check compares the states with the models.
func (m *queueMachine) check(t *rapid.T) {
	for name, q := range m.models {
		r := m.load(name)
		live := 0
		for _, h := range r.Holds {
			if h.Live(m.now) {
				live++
			}
		}
		if live > 1 || len(r.Holds) > 1 {
			t.Fatalf("%q has %d holds: %+v", name, len(r.Holds), r.Holds)
		}
		hold, held := r.Holder(m.now)
		if h := q.newest; held != h.live(m.now) || held && (hold.Token != h.token || hold.ProcessID != h.process ||
			hold.Connection != h.connection || !hold.QueuedAt.Equal(h.queuedAt) || !hold.ExpiresAt.Equal(h.expires) ||
			hold.ReleasedAt.IsZero() == h.released) {
			t.Fatalf("%q is held: %t, by %+v, want %+v", name, held, hold, h)
		}
		m.checkQueue(t, q, r)
	}
}

// checkQueue checks that the queue has exactly the places of the model, and that each
// wait has one end.
func (m *queueMachine) checkQueue(t *rapid.T, q *queueModel, r lock.Resource) {
	describe := func(ticket int64, request lock.Request, since, detachedUntil time.Time, connection int64) string {
		return fmt.Sprint(ticket, request.ProcessID, request.RequestID, since.Sub(t0), detachedUntil.Sub(t0), connection)
	}
	places := slices.Clone(q.places)
	slices.SortFunc(places, func(a, b *modelPlace) int { return int(a.ticket - b.ticket) })
	var want, got []string
	waiters, detached := 0, 0
	inQueue := map[string]int{}
	for _, p := range places {
		connection := p.acquire.Connection
		if p.detachedUntil.IsZero() {
			waiters++
		} else {
			detached++
			connection = 0
		}
		want = append(want, describe(p.ticket, p.acquire.Request, p.since, p.detachedUntil, connection))
		inQueue[p.process()]++
	}
	for _, w := range r.Queue {
		got = append(got, describe(w.Ticket, w.Request, w.Since, w.DetachedUntil, w.Connection))
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("queue of %q (-want +got):\n%s", q.name, diff)
	}
	if r.Waiters != waiters || r.Detached != detached || r.LastTicket != q.ticket {
		t.Fatalf("%q counts %d waiters, %d detached, last ticket %d, want %d, %d and %d",
			q.name, r.Waiters, r.Detached, r.LastTicket, waiters, detached, q.ticket)
	}
	for _, process := range someProcesses {
		if q.queued[process] != q.granted[process]+q.gaveUp[process]+inQueue[process] {
			t.Fatalf("%q was queued %d times for %q, granted %d times, gave up %d times and has %d places",
				process, q.queued[process], q.name, q.granted[process], q.gaveUp[process], inQueue[process])
		}
	}
}

func TestQueueInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newQueueMachine()
		t.Repeat(map[string]func(*rapid.T){
			"acquire": m.acquire, "acquire too": m.acquire, "requeue": m.requeue,
			"leave": m.leaveCommand, "leave too": m.leaveCommand, "put back": m.putBack,
			"remove abandoned": m.removeAbandoned, "expire and grant": m.expireAndGrant,
			"end": m.endCommand, "end too": m.endCommand, "renew": m.renew, "delete": m.deleteIdle,
			"clock": m.clock, "": m.check,
		})
	})
}
