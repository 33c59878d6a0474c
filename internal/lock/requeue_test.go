package lock_test

import (
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// supersededBy returns the waiters that an acquire with this place supersedes. A detached
// one is not superseded, because it has no open request.
func supersededBy(place *lock.Waiter) []*lock.Waiter {
	if place.DetachedUntil.IsZero() {
		return []*lock.Waiter{place}
	}
	return nil
}

// A request with a place is granted the resource if no connected waiter is before it. Its
// wait began when it got the place.
func TestAcquireIsGrantedIfItsOwnPlaceIsFirst(t *testing.T) {
	b := local(5, "b")
	tests := []struct {
		name  string
		place *lock.Waiter
		ahead []*lock.Waiter
	}{
		{"local", local(3, "me"), nil},
		{"remote", remote(3, "me"), nil},
		{"on a server that died", dead(3, "me"), nil},
		{"detached", detached(3, "me", after(1)), nil},
		{"behind a detached waiter", local(3, "me"), []*lock.Waiter{detached(1, "w", after(1))}},
		{"detached, behind a dead waiter", detached(3, "me", after(1)), []*lock.Waiter{dead(1, "x")}},
	}
	for _, test := range tests {
		for _, wait := range []time.Duration{0, time.Minute} {
			t.Run(test.name+", wait "+wait.String(), func(t *testing.T) {
				c := acquireBy("me", 50)
				c.Wait, c.MayQueue, c.QueueLimit, c.TTL = wait, false, 0, time.Hour // it needs no new place
				out, err := decide(t, c, t0, queued(free(), append(slices.Clone(test.ahead), test.place, b)...))
				asked := &lock.Waiter{Request: c.Request, Connection: 50, Since: test.place.Since}
				h := holdOf(asked, t0)
				wantOutcome(t, changing(queued(holding(h), append(slices.Clone(test.ahead), b)...), lock.Outcome{
					Now: t0, Hold: h, Events: []lock.Event{grantEvent(asked, t0)}, Ticket: 3,
					Superseded: supersededBy(test.place),
				}), out, err)
			})
		}
	}
}

func TestRetryHasItsPlaceAgain(t *testing.T) {
	a, z := local(1, "a"), local(9, "z")
	tests := []struct {
		name  string
		place *lock.Waiter
		limit int
	}{
		{"from this server", local(5, "me"), 10},
		{"from another server", remote(5, "me"), 10},
		{"from a dead server", dead(5, "me"), 10},
		{"a nanosecond before its place is removed", detached(5, "me", after(1)), 10},
		{"into a full queue", detached(5, "me", after(1)), 3},
		{"into a queue that exceeds its limit", local(5, "me"), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := acquireBy("me", 50)
			c.TTL, c.QueueLimit = time.Hour, test.limit
			out, err := decide(t, c, t0, queued(heldForAMinute, a, test.place, z))
			w := newWaiter(c, 5)
			w.Since = test.place.Since
			// There is no event, because its wait goes on.
			wantOutcome(t, changing(queued(heldForAMinute, a, w, z), lock.Outcome{
				Now: t0, Ticket: 5, Superseded: supersededBy(test.place),
			}), out, err)
		})
	}
}

func TestRetryThatIsTooLateHasANewPlace(t *testing.T) {
	place, z := detached(5, "me", t0), local(9, "z")
	gaveUp := waiterEvent(lock.EventGaveUp, place, t0, "did_not_come_back")
	t.Run("held", func(t *testing.T) {
		c := acquireBy("me", 50)
		c.QueueLimit = 2 // its old place does not count
		w := newWaiter(c, t0Token)
		out, err := decide(t, c, t0, queued(heldForAMinute, place, z))
		wantOutcome(t, changing(queued(heldForAMinute, z, w), lock.Outcome{
			Now: t0, Ticket: t0Token,
			Events: []lock.Event{gaveUp, waiterEvent(lock.EventQueued, w, t0, "")},
		}), out, err)
	})
	t.Run("free", func(t *testing.T) {
		out, err := decide(t, acquireBy("me", 50), t0, queued(free(), place))
		h := lock.Hold{ProcessID: "me", Token: t0Token, LockedAt: t0, Connection: 50, RequestID: "id-me"}
		wantOutcome(t, changing(lastTicket(5, holding(h)), lock.Outcome{
			Now: t0, Hold: h, Events: []lock.Event{gaveUp, holdEvent(lock.EventAcquired, h, t0)},
		}), out, err)
	})
	t.Run("refused", func(t *testing.T) {
		c := acquireBy("me", 50)
		c.Wait = 0
		out, err := decide(t, c, t0, queued(heldForAMinute, place, z))
		wantHeld(t, lock.HeldError{Holder: &heldForAMinute.Holds[0], Waiters: 1}, t0, out, err)
	})
}

// A waiting request that executes its acquire again does not take the place back that a
// later request has taken, not even when the resource is free.
func TestRequeuedAcquireIsSupersededOrHasItsPlace(t *testing.T) {
	ofAnother := func(w *lock.Waiter) *lock.Waiter {
		w.Connection = 99
		return w
	}
	hold := holdOf(ofAnother(local(2, "me")), t0)
	shared := hold // no disconnect ends it any more
	shared.Connection = 0
	const (
		superseded = iota
		hasPlace
		lost // if the client chose the RequestID, because a later request may have had the place
	)
	tests := []struct {
		name   string
		before lock.Resource
		want   int
		held   lock.HeldError // if it is superseded
	}{
		{
			"held", queued(heldForAMinute, ofAnother(local(2, "me"))),
			superseded,
			lock.HeldError{Holder: &heldForAMinute.Holds[0], Waiters: 1},
		},
		{"free", queued(free(), ofAnother(remote(2, "me"))), superseded, lock.HeldError{Next: "me", Waiters: 1}},
		{"granted", holding(hold), superseded, lock.HeldError{Holder: &hold}},
		{"granted, without a connection", holding(shared), superseded, lock.HeldError{Holder: &shared}},
		{"its own place", queued(heldForAMinute, local(2, "me")), hasPlace, lock.HeldError{}},
		{"no place", heldForAMinute, lost, lock.HeldError{}},
		{"no place, and the resource is free", free(), lost, lock.HeldError{}},
		{"a place that was kept until now", queued(heldForAMinute, ofAnother(detached(2, "me", t0))), lost, lock.HeldError{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := acquireBy("me", 2)
			c.Requeued, c.Named = true, true
			out, err := decide(t, c, t0, test.before)
			switch test.want {
			case superseded:
				test.held.Kind = lock.Superseded
				wantHeld(t, test.held, t0, out, err)
				return
			case hasPlace: // there is nothing to store
				wantOutcome(t, lock.Outcome{Now: t0, Resource: test.before, Ticket: 2}, out, err)
				return
			case lost:
				wantError(t, &lock.PlaceLostError{Resource: "r"}, out, err)
				c.Named = false // then no other request has had the place
				if out, err = decide(t, c, t0, test.before); err == nil && out.Hold.Token != 0 {
					return
				}
			}
			if err != nil || len(out.Changed[0].Queue) != 1 || !out.Changed[0].Queue[0].Local {
				t.Errorf("got %+v, %v, want a place", out, err)
			}
		})
	}
}

// A request that finds its own place grants the resource to the next waiter, if its turn
// has come, and then keeps its place.
func TestRequeuedAcquireGrantsToTheNextWaiter(t *testing.T) {
	b, me := local(1, "b"), local(2, "me")
	c := acquireOf(me)
	c.Requeued = true
	expired := heldBy("holder", t0)
	out, err := decide(t, c, t0, queued(expired, b, me))
	wantOutcome(t, changing(queued(holding(holdOf(b, t0)), me), lock.Outcome{
		Now: t0, Ticket: 2, Granted: grantsTo(b, t0),
		Events: []lock.Event{holdEvent(lock.EventExpired, expired.Holds[0], t0), grantEvent(b, t0)},
	}), out, err)
}
