package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// keep is how long places are kept in these tests; 0 is the alternative.
const keep = time.Minute

// timeOut returns the command that ends the wait of w.
func timeOut(w *lock.Waiter, keep time.Duration) lock.TimeOut {
	return lock.TimeOut{Of: acquireOf(w), Keep: keep}
}

// keptPlace returns the place of w after it was kept at the given time. It has no
// connection, so that a repeated command for the old connection does not remove it.
func keptPlace(w *lock.Waiter, now time.Time) *lock.Waiter {
	kept := *w
	kept.Local, kept.AliveUntil, kept.DetachedUntil, kept.Connection = false, time.Time{}, now.Add(keep), 0
	return &kept
}

// endOfWait is a case of a waiter b, with the ticket 2, that times out or disconnects at
// t0.
type endOfWait struct {
	name    string
	before  lock.Resource
	keep    time.Duration
	queue   []*lock.Waiter // after it
	granted *lock.Waiter   // another waiter that is granted the resource; nil: none
}

// check decides a command that ends the wait of b.
func (test endOfWait) check(t *testing.T, c lock.Command, b *lock.Waiter, why string) {
	t.Helper()
	out, err := decide(t, c, t0, test.before)
	want, after := lock.Outcome{Now: t0}, test.before
	if test.keep == 0 {
		want.Events = append(want.Events, waiterEvent(lock.EventGaveUp, b, t0, why))
	}
	if w := test.granted; w != nil {
		after = holding(holdOf(w, t0))
		want.Granted, want.Events = grantsTo(w, t0), append(want.Events, grantEvent(w, t0))
	}
	wantOutcome(t, changing(lastTicket(test.before.LastTicket, queued(after, test.queue...)), want), out, err)
}

func TestTimeOutRemovesOrKeepsThePlace(t *testing.T) {
	a, b, z, e := local(1, "a"), local(2, "b"), local(9, "z"), remote(1, "e")
	for _, test := range []endOfWait{
		{"removed", queued(heldForAMinute, a, b, z), 0, []*lock.Waiter{a, z}, nil},
		{"kept", queued(heldForAMinute, a, b, z), keep, []*lock.Waiter{a, keptPlace(b, t0), z}, nil},
		{"the only waiter", queued(heldForAMinute, b), 0, nil, nil},
		{"reserved for a remote waiter", queued(free(), e, b, z), 0, []*lock.Waiter{e, z}, nil},
		{"another waiter's turn that was not granted yet", queued(free(), a, b), 0, nil, a},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.check(t, timeOut(b, test.keep), b, "wait_timeout")
		})
	}
}

// If the turn of the request comes at the time of its timeout, it is granted the
// resource.
func TestTimeOutAtTheTimeOfTheTurnIsAGrant(t *testing.T) {
	tests := []struct {
		name   string
		before lock.Resource
		keep   time.Duration
	}{
		{"free", free(), 0},
		{"free, and its place would be kept", free(), keep},
		{"expires now", heldBy("holder", t0), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, b, z := detached(1, "w", after(1)), local(2, "b"), local(9, "z")
			out, err := decide(t, timeOut(b, test.keep), t0, queued(test.before, w, b, z))
			h := holdOf(b, t0)
			events := []lock.Event{grantEvent(b, t0)}
			if len(test.before.Holds) > 0 {
				events = []lock.Event{holdEvent(lock.EventExpired, test.before.Holds[0], t0), events[0]}
			}
			// The hold is the result of the command, not a grant to another request.
			wantOutcome(t, changing(queued(holding(h), w, z), lock.Outcome{Now: t0, Hold: h, Events: events}), out, err)
		})
	}
}

func TestTimeOutThatRacesWithAGrantKeepsTheHold(t *testing.T) {
	b, z := local(2, "b"), local(9, "z")
	for _, keep := range []time.Duration{0, keep} {
		before := justGranted(b, z)
		out, err := decide(t, timeOut(b, keep), after(1), before)
		// Nothing changes, so there is nothing to store.
		wantOutcome(t, lock.Outcome{Now: after(1), Hold: before.Holds[0], Resource: before}, out, err)
	}
}

// withoutPlace is the state of "r" for a request "me" whose place or hold another request
// has, or that has neither.
type withoutPlace struct {
	name   string
	before lock.Resource
	held   lock.HeldError // refuses a TimeOut
}

func withoutPlaces() []withoutPlace {
	me := local(2, "me")
	displaced := with(local(2, "me"), func(w *lock.Waiter) { w.Connection = 99 })
	holder := &heldForAMinute.Holds[0]
	shared := justGranted(me)
	shared.Holds[0].Connection = 0
	released := justGranted(me)
	released.Holds[0].ReleasedAt, released.Holds[0].ExpiresAt = after(-1), after(time.Minute)
	expired := justGranted(me)
	expired.Holds[0].ExpiresAt = t0
	other := justGranted(displaced)
	otherRequest := justGranted(me)
	otherRequest.Holds[0].RequestID = "another"
	return []withoutPlace{
		{"its place was removed", queued(heldForAMinute, local(1, "a")), lock.HeldError{Holder: holder, Waiters: 1}},
		{"its place was removed, and the resource is free", free(), lock.HeldError{}},
		{
			"its place was removed, and the resource is reserved", queued(free(), remote(1, "a")),
			lock.HeldError{Next: "a", Waiters: 1},
		},
		{"its place is kept", queued(heldForAMinute, detached(2, "me", after(1))), lock.HeldError{Holder: holder}},
		{
			"another connection has its place", queued(heldForAMinute, displaced),
			lock.HeldError{Kind: lock.Superseded, Holder: holder, Waiters: 1},
		},
		{
			"another connection has its place and its turn", queued(free(), displaced),
			lock.HeldError{Kind: lock.Superseded, Next: "me", Waiters: 1},
		},
		{"another connection has its hold", other, lock.HeldError{Kind: lock.Superseded, Holder: &other.Holds[0]}},
		{"another request knows of its hold too", shared, lock.HeldError{Kind: lock.Superseded, Holder: &shared.Holds[0]}},
		{"its process has released it", released, lock.HeldError{Holder: &released.Holds[0]}},
		{"its process holds with another request id", otherRequest, lock.HeldError{Holder: &otherRequest.Holds[0]}},
		{"its hold has expired", expired, lock.HeldError{}},
	}
}

func TestTimeOutWithoutAPlaceIsRefused(t *testing.T) {
	me := local(2, "me")
	for _, test := range withoutPlaces() {
		for name, keep := range map[string]time.Duration{"": 0, ", kept": keep} {
			t.Run(test.name+name, func(t *testing.T) {
				out, err := decide(t, timeOut(me, keep), t0, test.before)
				wantHeld(t, test.held, t0, out, err)
			})
		}
	}
}

// A command may be repeated if its outcome was unknown. The place that it kept the first
// time stays.
func TestRepeatedEndOfAWaitDoesNotRemoveTheKeptPlace(t *testing.T) {
	b := local(2, "b")
	now := after(time.Second)
	for name, c := range map[string]lock.Command{"time out": timeOut(b, keep), "disconnect": disconnect(b, keep)} {
		first, err := decide(t, c, t0, queued(heldForAMinute, b))
		if err != nil {
			t.Fatal(err)
		}
		kept := first.Changed[0]
		for _, keep := range []time.Duration{0, keep} {
			t.Run(name+", keep "+keep.String(), func(t *testing.T) {
				out, err := decide(t, timeOut(b, keep), now, kept)
				wantHeld(t, lock.HeldError{Holder: &heldForAMinute.Holds[0]}, now, out, err)
				out, err = decide(t, disconnect(b, keep), now, kept)
				wantError(t, lock.ErrNotWaiting, out, err)
				out, err = decide(t, dropOrphan(b), now, kept)
				wantError(t, lock.ErrNotWaiting, out, err)
			})
		}
	}
}
