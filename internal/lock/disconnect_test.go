package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// disconnect returns the command for the end of the connection of w.
func disconnect(w *lock.Waiter, keep time.Duration) lock.Disconnect {
	return lock.Disconnect{Of: acquireOf(w), Ticket: w.Ticket, Keep: keep, Why: "because"}
}

// dropOrphan returns the command for a place of w whose connection the server does not
// know.
func dropOrphan(w *lock.Waiter) lock.DropOrphan {
	return lock.DropOrphan{
		Place:      lock.Place{Resource: "r", ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID},
		Connection: w.Connection,
	}
}

func TestDisconnectRemovesOrKeepsThePlace(t *testing.T) {
	a, b, z, e := local(1, "a"), local(2, "b"), local(9, "z"), remote(9, "e")
	for _, test := range []endOfWait{
		{"removed", queued(heldForAMinute, a, b, z), 0, []*lock.Waiter{a, z}, nil},
		{"kept", queued(heldForAMinute, a, b, z), keep, []*lock.Waiter{a, keptPlace(b, t0), z}, nil},
		{"the only waiter", queued(heldForAMinute, b), 0, nil, nil},
		{"at its turn: granted to the next waiter", queued(free(), b, z), 0, nil, z},
		{"at its turn, kept: granted to the next waiter", queued(free(), b, z), keep, []*lock.Waiter{keptPlace(b, t0)}, z},
		{"at its turn, and the next waiter is remote", queued(free(), b, e), 0, []*lock.Waiter{e}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.check(t, disconnect(b, test.keep), b, "because")
		})
	}
}

func TestDisconnectThatRacesWithAGrantEndsTheHold(t *testing.T) {
	now := after(time.Millisecond)
	b, z, e, w := local(2, "b"), local(9, "z"), remote(9, "e"), detached(1, "w", after(1e9))
	minimum := with(local(2, "b"), func(w *lock.Waiter) { w.Request.MinHold = time.Hour })
	back := keptPlace(b, now)
	tests := []struct {
		name    string
		w       *lock.Waiter
		command lock.Disconnect
		queue   []*lock.Waiter
		after   []*lock.Waiter
		granted *lock.Waiter
	}{
		{"no other waiter", b, disconnect(b, 0), nil, nil, nil},
		{"granted to the next waiter", b, disconnect(b, 0), []*lock.Waiter{z}, nil, z},
		{"the next waiter is remote", b, disconnect(b, 0), []*lock.Waiter{e}, []*lock.Waiter{e}, nil},
		{"regardless of its minimum", minimum, disconnect(minimum, 0), []*lock.Waiter{z}, nil, z},
		{"its place is put back", b, disconnect(b, keep), []*lock.Waiter{w, z}, []*lock.Waiter{w, back}, z},
		{"its place is put back, alone", b, disconnect(b, keep), nil, []*lock.Waiter{back}, nil},
		{
			"its place is unknown and not put back",
			b,
			lock.Disconnect{Of: acquireOf(b), Keep: keep, Why: "because"},
			[]*lock.Waiter{z},
			nil, z,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := justGranted(test.w, test.queue...)
			out, err := decide(t, test.command, now, before)
			h := before.Holds[0]
			event := holdEvent(lock.EventReleased, h, now)
			event.Reason = "because"
			want, after := lock.Outcome{Now: now, Events: []lock.Event{event}}, ended(h, now)
			if w := test.granted; w != nil {
				after = holding(holdOf(w, now))
				want.Granted, want.Events = grantsTo(w, now), append(want.Events, grantEvent(w, now))
			}
			wantOutcome(t, changing(lastTicket(before.LastTicket, queued(after, test.after...)), want), out, err)
		})
	}
}

// A request that was granted the resource at once never had a place that could be put
// back.
func TestDisconnectOfAHoldThatNeverWaitedPutsNoPlaceBack(t *testing.T) {
	w := local(2, "b")
	before := justGranted(w)
	before.Holds[0].QueuedAt = time.Time{}
	out, err := decide(t, disconnect(w, keep), t0, before)
	h := before.Holds[0]
	event := holdEvent(lock.EventReleased, h, t0)
	event.Reason = "because"
	wantOutcome(t, changing(lastTicket(2, ended(h, t0)), lock.Outcome{Now: t0, Events: []lock.Event{event}}), out, err)
}

func TestDisconnectAndDropOrphanWithoutAPlaceAreRefused(t *testing.T) {
	me := local(2, "me")
	for _, test := range withoutPlaces() {
		for name, c := range map[string]lock.Command{
			"disconnect": disconnect(me, 0), "disconnect, kept": disconnect(me, keep), "drop orphan": dropOrphan(me),
		} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				out, err := decide(t, c, t0, test.before)
				wantError(t, lock.ErrNotWaiting, out, err)
			})
		}
	}
}

// A request whose connection is unknown has no hold that its disconnect could end.
func TestDisconnectWithoutAConnectionEndsNoHold(t *testing.T) {
	out, err := decide(t, lock.Disconnect{Of: retry, Why: "because"}, t0, requested(nil))
	wantError(t, lock.ErrNotWaiting, out, err)
}

func TestDropOrphanRemovesThePlace(t *testing.T) {
	me, z := local(2, "me"), local(9, "z")
	gaveUp := waiterEvent(lock.EventGaveUp, me, t0, "client_gone")
	out, err := decide(t, dropOrphan(me), t0, queued(heldForAMinute, me, z))
	wantOutcome(t, changing(queued(heldForAMinute, z), lock.Outcome{Now: t0, Events: []lock.Event{gaveUp}}), out, err)

	out, err = decide(t, dropOrphan(me), t0, queued(free(), me, z))
	wantOutcome(t, changing(lastTicket(9, holding(holdOf(z, t0))), lock.Outcome{
		Now: t0, Granted: grantsTo(z, t0), Events: []lock.Event{gaveUp, grantEvent(z, t0)},
	}), out, err)
}

// The request may have been granted the resource and answered, or its place may be kept.
func TestDropOrphanEndsNothingElse(t *testing.T) {
	me, z := local(2, "me"), local(9, "z")
	stale := with(detached(2, "me", after(1)), func(w *lock.Waiter) { w.Connection = me.Connection })
	for name, before := range map[string]lock.Resource{
		"it has the hold":                     justGranted(me, z),
		"its place is kept":                   queued(heldForAMinute, detached(2, "me", after(1)), z),
		"its place is kept with a connection": queued(heldForAMinute, stale, z),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := decide(t, dropOrphan(me), t0, before)
			wantError(t, lock.ErrNotWaiting, out, err)
		})
	}
}

func TestAbandonedGrant(t *testing.T) {
	grant := func(named bool, ticket, connection int64) lock.Grant {
		c := acquireBy("p", 5)
		c.Named = named
		h := lock.Hold{ProcessID: "p", RequestID: "id-p", Token: 100, Connection: connection}
		return lock.Grant{Hold: h, To: c, Ticket: ticket}
	}
	tests := []struct {
		name   string
		grant  lock.Grant
		ok     bool
		ticket int64
		keep   time.Duration
	}{
		{"without a request id of the caller", grant(false, 0, 5), true, 0, 0},
		{"without a request id of the caller, after waiting", grant(false, 3, 5), true, 0, 0},
		{"with a request id, after waiting: its place is kept", grant(true, 3, 5), true, 3, keep},
		{"with a request id, at once: the client can retry", grant(true, 0, 5), false, 0, 0},
		{"without a request id, two requests know of the hold", grant(false, 0, 0), false, 0, 0},
		{"with a request id, two requests know of the hold", grant(true, 3, 0), false, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, ok := test.grant.Abandon(keep)
			wantEqual(t, "needed", test.ok, ok)
			if ok {
				wantEqual(t, "command", lock.Disconnect{
					Of: test.grant.To, Ticket: test.ticket, Keep: test.keep, Why: "client_gone",
				}, c)
			}
		})
	}
}
