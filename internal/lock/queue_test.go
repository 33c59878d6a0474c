package lock_test

import (
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// newWaiter returns the waiter that an acquire is queued as at t0.
func newWaiter(c lock.Acquire, ticket int64) *lock.Waiter {
	return &lock.Waiter{Ticket: ticket, Request: c.Request, Connection: c.Connection, Since: t0, Local: true}
}

func TestAcquireIsQueuedIfItHasToWait(t *testing.T) {
	c := acquireBy("me", 50)
	c.TTL, c.Reason = time.Hour, "work"
	a, b := remote(1, "a"), local(2, "b")
	w, x := detached(1, "w", after(1)), remote(2, "x")
	tests := []struct {
		name   string
		before lock.Resource
		ticket int64
		queue  []*lock.Waiter // before it
	}{
		{"held", heldForAMinute, t0Token, nil},
		{"held by the same process with another request id", heldBy("me", time.Time{}), t0Token, nil},
		{"held without expiry", heldBy("holder", time.Time{}), t0Token, nil},
		{"held, with other waiters", queued(heldForAMinute, a, b), t0Token, []*lock.Waiter{a, b}},
		{"the last ticket is one below the clock", lastTicket(t0Token-1, heldForAMinute), t0Token, nil},
		{"the last ticket equals the clock", lastTicket(t0Token, heldForAMinute), t0Token + 1, nil},
		{"the clock was set back", lastTicket(t0Token+500, heldForAMinute), t0Token + 501, nil},
		{"free, and reserved for a remote waiter", queued(free(), a, b), t0Token, []*lock.Waiter{a, b}},
		{"free, and reserved, behind a detached waiter", queued(free(), w, x), t0Token, []*lock.Waiter{w, x}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, c, t0, test.before)
			w := newWaiter(c, test.ticket)
			wantOutcome(t, changing(queued(test.before, append(slices.Clone(test.queue), w)...), lock.Outcome{
				Now: t0, Events: []lock.Event{waiterEvent(lock.EventQueued, w, t0, "work")}, Ticket: test.ticket,
			}), out, err)
		})
	}
}

// A free resource is granted to its next waiter, not to the request that finds it free.
func TestAcquireGrantsAFreeResourceToTheNextWaiter(t *testing.T) {
	c := acquireBy("me", 50)
	b, x := local(2, "b"), local(3, "x")
	w := newWaiter(c, t0Token)
	expired := heldBy("holder", t0)
	out, err := decide(t, c, t0, queued(expired, b, x))
	wantOutcome(t, changing(queued(holding(holdOf(b, t0)), x, w), lock.Outcome{
		Now: t0, Granted: grantsTo(b, t0), Ticket: w.Ticket, Events: []lock.Event{
			holdEvent(lock.EventExpired, expired.Holds[0], t0),
			waiterEvent(lock.EventQueued, w, t0, ""), grantEvent(b, t0),
		},
	}), out, err)
}

func TestAcquireIsGrantedAtOnceIfNoWaiterIsBeforeIt(t *testing.T) {
	expired := heldBy("holder", t0)
	w, x := detached(1, "w", after(1)), dead(2, "x")
	tests := []struct {
		name   string
		before lock.Resource
		queue  []*lock.Waiter
	}{
		{"never held", free(), nil},
		{"released", released(100), nil},
		{"expires now", expired, nil},
		{"the only waiter is detached", queued(free(), w), []*lock.Waiter{w}},
		{"the only waiter is dead", queued(free(), x), []*lock.Waiter{x}},
		{"one is detached and one is dead", queued(expired, w, x), []*lock.Waiter{w, x}},
	}
	for _, test := range tests {
		for _, wait := range []time.Duration{0, time.Minute} {
			t.Run(test.name+", wait "+wait.String(), func(t *testing.T) {
				c := acquireBy("me", 50)
				c.Wait, c.MayQueue, c.QueueLimit = wait, false, 0 // it needs no place
				out, err := decide(t, c, t0, test.before)
				h := lock.Hold{ProcessID: "me", Token: t0Token, LockedAt: t0, Connection: 50, RequestID: "id-me"}
				want := lastTicket(test.before.LastTicket, queued(holding(h), test.queue...))
				events := []lock.Event{holdEvent(lock.EventAcquired, h, t0)}
				if len(test.before.Holds) > 0 {
					events = []lock.Event{holdEvent(lock.EventExpired, expired.Holds[0], t0), events[0]}
				}
				wantOutcome(t, changing(want, lock.Outcome{Now: t0, Hold: h, Events: events}), out, err)
			})
		}
	}
}

func TestAcquireThatDoesNotWaitOvertakesNoWaiter(t *testing.T) {
	holder := &heldForAMinute.Holds[0]
	w, x := detached(1, "w", after(1)), dead(2, "x")
	tests := []struct {
		name   string
		before lock.Resource
		want   lock.HeldError
	}{
		{"held", queued(heldForAMinute, local(1, "a"), remote(2, "b")), lock.HeldError{Holder: holder, Waiters: 2}},
		{"reserved, remote", queued(free(), remote(1, "a"), local(2, "b")), lock.HeldError{Next: "a", Waiters: 2}},
		{"reserved, local", queued(free(), local(1, "a")), lock.HeldError{Next: "a", Waiters: 1}},
		{"expired, with a waiter", queued(heldBy("holder", t0), local(1, "a")), lock.HeldError{Next: "a", Waiters: 1}},
		{"behind a detached and a dead waiter", queued(free(), w, x, remote(3, "a")), lock.HeldError{Next: "a", Waiters: 2}},
		{
			"reserved, its lease ends in a nanosecond", queued(free(), remoteUntil(1, "a", after(1))),
			lock.HeldError{Next: "a", Waiters: 1},
		},
		{"its own place is second", queued(free(), remote(1, "a"), local(2, "me")), lock.HeldError{Next: "a", Waiters: 2}},
		{
			"its own kept place is second", queued(free(), remote(1, "a"), detached(2, "me", after(1))),
			lock.HeldError{Next: "a", Waiters: 1},
		},
		{
			"held, and its own place is first", queued(heldForAMinute, local(1, "me")),
			lock.HeldError{Holder: holder, Waiters: 1},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := acquireBy("me", 0)
			c.Wait = 0
			out, err := decide(t, c, t0, test.before)
			wantHeld(t, test.want, t0, out, err)
		})
	}
}

func TestQueueLimit(t *testing.T) {
	two := queued(heldForAMinute, local(1, "a"), detached(2, "w", after(1)))
	own := queued(heldForAMinute, local(1, "me"))
	tests := []struct {
		name     string
		before   lock.Resource
		mayQueue bool
		limit    int
		full     bool
		waiters  int
	}{
		{"zero", heldForAMinute, true, 0, true, 0},
		{"not reached", two, true, 3, false, 0},
		{"reached: kept places count", two, true, 2, true, 1},
		{"exceeded", two, true, 1, true, 1},
		{"the server is full", two, false, 3, true, 1},
		{"the server is full, without a waiter", heldForAMinute, false, 3, true, 0},
		{"the server is full, for a request that has a place", own, false, 3, true, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := acquireBy("me", 50)
			c.MayQueue, c.QueueLimit = test.mayQueue, test.limit
			out, err := decide(t, c, t0, test.before)
			if test.full {
				wantError(t, &lock.QueueFullError{Resource: "r", Waiters: test.waiters}, out, err)
				return
			}
			if err != nil || len(out.Changed[0].Queue) != len(test.before.Queue)+1 {
				t.Errorf("got %+v, %v, want a place", out, err)
			}
		})
	}
}

// A place belongs to one process and one request.
func TestPlaceOfAnotherRequestIsNotMistaken(t *testing.T) {
	tests := []struct {
		name string
		w    *lock.Waiter
	}{
		{
			"the same process with another request id",
			with(local(1, "me"), func(w *lock.Waiter) { w.Request.RequestID = "other" }),
		},
		{
			"another process with the same request id",
			with(local(1, "a"), func(w *lock.Waiter) { w.Request.RequestID = "id-me" }),
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := acquireBy("me", 50)
			out, err := decide(t, c, t0, queued(heldForAMinute, test.w))
			w := newWaiter(c, t0Token)
			wantOutcome(t, changing(queued(heldForAMinute, test.w, w), lock.Outcome{
				Now: t0, Events: []lock.Event{waiterEvent(lock.EventQueued, w, t0, "")}, Ticket: t0Token,
			}), out, err)
		})
	}
}
