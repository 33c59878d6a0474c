package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// leaving is what ends the waiting of a waiter.
func leaving(w *lock.Waiter, change func(*lock.Leave)) lock.Leave {
	c := lock.Leave{Request: w.Request, Ticket: w.Ticket, Why: "because"}
	if change != nil {
		change(&c)
	}
	return c
}

func gone(c *lock.Leave)     { c.Gone = true }
func keeps(c *lock.Leave)    { c.Keep = time.Minute }
func goneKept(c *lock.Leave) { gone(c); keeps(c) }

// keptPlace is what a place becomes that is kept for a minute from now. It is of no connection any more: a leave that
// comes late, or is repeated, must not end what was kept for the next one.
func keptPlace(w *lock.Waiter, now time.Time) *lock.Waiter {
	kept := *w
	kept.Local, kept.AliveUntil, kept.DetachedUntil, kept.Connection = false, time.Time{}, now.Add(time.Minute), 0
	return &kept
}

// wantLeft compares what a leave did but does not look at the connection that a kept place remembers.
func wantLeft(t *testing.T, want, got lock.Outcome, err error) {
	t.Helper()
	if err == nil {
		for i, w := range got.Changed[0].Queue {
			if !w.DetachedUntil.IsZero() {
				seen := *w
				seen.Connection = 0
				got.Changed[0].Queue[i] = &seen
			}
		}
	}
	wantOutcome(t, want, got, err)
}

func TestLeaveOfOneThatWaits(t *testing.T) {
	a, b, z := here(1, "a"), here(2, "b"), here(9, "z")
	e := elsewhere(1, "e")
	tests := []struct {
		name    string
		before  lock.Resource
		how     func(*lock.Leave)
		queue   []*lock.Waiter
		gaveUp  bool
		granted *lock.Waiter // another one
	}{
		{"timeout", queued(held, a, b, z), nil, []*lock.Waiter{a, z}, true, nil},
		{"timeout, kept", queued(held, a, b, z), keeps, []*lock.Waiter{a, keptPlace(b, t0), z}, false, nil},
		{"gone", queued(held, a, b, z), gone, []*lock.Waiter{a, z}, true, nil},
		{"gone, kept", queued(held, a, b, z), goneKept, []*lock.Waiter{a, keptPlace(b, t0), z}, false, nil},
		{"the only one", queued(held, b), nil, nil, true, nil},
		{"timeout while it is reserved for another server's", queued(free(), e, b, z), nil, []*lock.Waiter{e, z}, true, nil},
		{"gone at its turn: the next one's", queued(free(), b, z), gone, nil, true, z},
		{"gone at its turn, kept: the next one's", queued(free(), b, z), goneKept, []*lock.Waiter{keptPlace(b, t0)}, false, z},
		{"gone at its turn, and the next is elsewhere", queued(free(), b, elsewhere(9, "z")), gone, []*lock.Waiter{elsewhere(9, "z")}, true, nil},
		{"timeout at another's turn that nobody has noticed", queued(free(), a, b), nil, nil, true, a},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decideQueue(t, leaving(b, test.how), t0, test.before)
			want := lock.Outcome{Now: t0}
			after := test.before
			if test.gaveUp {
				want.Events = append(want.Events, toldWaiting(lock.EventGaveUp, b, t0, "because"))
			}
			if w := test.granted; w != nil {
				after = taken(grantTo(w, t0))
				want.Granted, want.Events = grantOf(w, t0), append(want.Events, toldGrant(w, t0))
			}
			after = queued(after, test.queue...)
			after.LastTicket = test.before.LastTicket
			want.Changed = []lock.Resource{after}
			wantLeft(t, want, out, err)
		})
	}
}

// Its time is over at the moment when its turn comes. Nobody was before it, so it is granted; but not to one that is gone.
func TestTimeoutAtTheMomentOfTheTurnIsAGrant(t *testing.T) {
	tests := []struct {
		name   string
		before lock.Resource
		how    func(*lock.Leave)
	}{
		{"free", free(), nil},
		{"free, and its place would be kept", free(), keeps},
		{"expired at this moment", heldBy("holder", t0), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, b, z := away(1, "w", after(1)), here(2, "b"), here(9, "z")
			out, err := decideQueue(t, leaving(b, test.how), t0, queued(test.before, w, b, z))
			want := lock.Outcome{
				Now: t0, Hold: grantTo(b, t0), Changed: []lock.Resource{queued(taken(grantTo(b, t0)), w, z)},
				Events: []lock.Event{toldGrant(b, t0)}, // and no grant to another
			}
			if len(test.before.Holds) > 0 {
				want.Events = []lock.Event{told(lock.EventExpired, test.before.Holds[0], t0), want.Events[0]}
			}
			wantOutcome(t, want, out, err)
		})
	}
}

// crossed is a resource that has been granted to the waiter just now.
func crossed(w *lock.Waiter, queue ...*lock.Waiter) lock.Resource {
	r := queued(taken(grantTo(w, t0)), queue...)
	r.LastTicket = max(r.LastTicket, w.Ticket)
	return r
}

func TestTimeoutThatCrossesWithAGrantKeepsIt(t *testing.T) {
	b, z := here(2, "b"), here(9, "z")
	for _, how := range []func(*lock.Leave){nil, keeps} {
		before := crossed(b, z)
		out, err := decideQueue(t, leaving(b, how), after(1), before)
		wantOutcome(t, lock.Outcome{Now: after(1), Hold: before.Holds[0], Changed: []lock.Resource{before}}, out, err)
	}
}

func TestHangUpThatCrossesWithAGrantGivesItOn(t *testing.T) {
	now := after(time.Millisecond)
	b, z := here(2, "b"), here(9, "z")
	minimum := with(here(2, "b"), func(w *lock.Waiter) { w.Request.MinHold = time.Hour })
	back := func(w *lock.Waiter) *lock.Waiter { return keptPlace(w, now) }
	tests := []struct {
		name    string
		w       *lock.Waiter
		how     func(*lock.Leave)
		queue   []*lock.Waiter
		left    []*lock.Waiter
		granted *lock.Waiter
	}{
		{"nobody else waits", b, gone, nil, nil, nil},
		{"to the next", b, gone, []*lock.Waiter{z}, nil, z},
		{"not to one elsewhere", b, gone, []*lock.Waiter{elsewhere(9, "e")}, []*lock.Waiter{elsewhere(9, "e")}, nil},
		{"its minimum notwithstanding: it never worked", minimum, gone, []*lock.Waiter{z}, nil, z},
		{"it is put back into its old place", b, goneKept, []*lock.Waiter{away(1, "w", after(1e9)), z}, []*lock.Waiter{away(1, "w", after(1e9)), back(b)}, z},
		{"it is put back, alone", b, goneKept, nil, []*lock.Waiter{back(b)}, nil},
		{
			"it is not put back where its place is not known", b,
			func(c *lock.Leave) { goneKept(c); c.Ticket = 0 },
			[]*lock.Waiter{z},
			nil, z,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := crossed(test.w, test.queue...)
			out, err := decideQueue(t, leaving(test.w, test.how), now, before)
			h := before.Holds[0]
			released := told(lock.EventReleased, h, now)
			released.Reason = "because"
			want := lock.Outcome{Now: now, Events: []lock.Event{released}}
			after := ended(h, now)
			if w := test.granted; w != nil {
				after = taken(grantTo(w, now))
				want.Granted, want.Events = grantOf(w, now), append(want.Events, toldGrant(w, now))
			}
			after = queued(after, test.left...)
			after.LastTicket = before.LastTicket
			want.Changed = []lock.Resource{after}
			if len(test.left) > 0 {
				for _, w := range test.left {
					if !w.DetachedUntil.IsZero() {
						w.Connection = 0
					}
				}
			}
			wantLeft(t, want, out, err)
		})
	}
}

// A request whose place or hold another one has by now, or that has neither, has nothing to give up.
func TestLeaveOfOneThatHasNothingIsRefused(t *testing.T) {
	me := here(2, "me")
	displaced := with(here(2, "me"), func(w *lock.Waiter) { w.Connection = 99 })
	shared := crossed(me)
	shared.Holds[0].Connection = 0
	released := crossed(me)
	released.Holds[0].ReleasedAt, released.Holds[0].ExpiresAt = after(-1), after(time.Minute)
	expired := crossed(me)
	expired.Holds[0].ExpiresAt = t0
	other := crossed(displaced)
	otherRequest := crossed(me)
	otherRequest.Holds[0].RequestID = "another"
	tests := []struct {
		name       string
		before     lock.Resource
		want       lock.HeldError
		superseded bool
	}{
		{"its place is gone", queued(held, here(1, "a")), lock.HeldError{Holder: held.Holds[0], Waiters: 1}, false},
		{"its place is gone, and the resource free", free(), lock.HeldError{}, false},
		{"its place is gone, and the resource reserved", queued(free(), elsewhere(1, "a")), lock.HeldError{Next: "a", Waiters: 1}, false},
		{"another connection has its place", queued(held, displaced), lock.HeldError{Holder: held.Holds[0], Waiters: 1}, true},
		{"another connection has its place and its turn", queued(free(), displaced), lock.HeldError{Next: "me", Waiters: 1}, true},
		{"another connection has its hold", other, lock.HeldError{Holder: other.Holds[0]}, true},
		{"another request knows of its hold too", shared, lock.HeldError{Holder: shared.Holds[0]}, true},
		{"its process has released it", released, lock.HeldError{Holder: released.Holds[0]}, false},
		{"its process holds under another request", otherRequest, lock.HeldError{Holder: otherRequest.Holds[0]}, false},
		{"its hold has expired", expired, lock.HeldError{}, false},
	}
	for _, test := range tests {
		for name, how := range map[string]func(*lock.Leave){"timeout": nil, "gone": gone, "kept": keeps, "gone, kept": goneKept} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				out, err := decideQueue(t, leaving(me, how), t0, test.before)
				test.want.Resource, test.want.Now = "r", t0
				test.want.Superseded = test.superseded && (name == "timeout" || name == "kept") // the others are told nothing
				wantHeld(t, test.want, out, err)
			})
		}
	}
}

// Nobody seems to wait in a place. It is given up, but the request may have been granted and answered meanwhile, or its
// place kept: then there is nothing to do.
func TestLeaveOfAPlaceEndsNothingElse(t *testing.T) {
	me, z := here(2, "me"), here(9, "z")
	c := leaving(me, func(c *lock.Leave) { c.Gone, c.Place = true, true })
	holds := crossed(me, z)
	tests := []struct {
		name   string
		before lock.Resource
		want   lock.HeldError
	}{
		{"it holds", holds, lock.HeldError{Holder: holds.Holds[0], Waiters: 1}},
		{"its place is kept", queued(held, away(2, "me", after(1)), z), lock.HeldError{Holder: held.Holds[0], Waiters: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decideQueue(t, c, t0, test.before)
			test.want.Resource, test.want.Now = "r", t0
			wantHeld(t, test.want, out, err)
		})
	}
	out, err := decideQueue(t, c, t0, queued(free(), me, z))
	granted := taken(grantTo(z, t0))
	granted.LastTicket = 9
	wantOutcome(t, lock.Outcome{Now: t0, Changed: []lock.Resource{granted}, Granted: grantOf(z, t0), Events: []lock.Event{
		toldWaiting(lock.EventGaveUp, me, t0, "because"), toldGrant(z, t0),
	}}, out, err)
}

// A request that never had a connection has no hold that a leave could end.
func TestLeaveWithoutAConnectionEndsNoHold(t *testing.T) {
	r := requested(nil)
	c := lock.Leave{Request: lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1"}}, Gone: true}
	out, err := decideQueue(t, c, t0, r)
	wantHeld(t, lock.HeldError{Resource: "r", Holder: r.Holds[0], Now: t0}, out, err)
}

// A leave may be repeated: its outcome was unknown, or somebody else took the place for one that nobody waits in. What was
// kept the first time stays.
func TestRepeatedLeaveDoesNotTakeAwayWhatWasKept(t *testing.T) {
	b := here(2, "b")
	first, err := decideQueue(t, leaving(b, goneKept), t0, queued(held, b))
	if err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]func(*lock.Leave){"gone": gone, "timeout": nil, "gone, kept": goneKept} {
		t.Run(name, func(t *testing.T) {
			again, err := decideQueue(t, leaving(b, how), after(time.Second), first.Changed[0])
			wantHeld(t, lock.HeldError{Resource: "r", Holder: held.Holds[0], Now: after(time.Second)}, again, err)
		})
	}
}

func TestVacate(t *testing.T) {
	now := after(time.Hour)
	keep := time.Minute
	tests := []struct {
		name  string
		w     *lock.Waiter
		taken bool
	}{
		{"away until now", away(1, "a", now), true},
		{"away for a nanosecond more", away(1, "a", now.Add(1)), false},
		{"dead for as long as it is kept", on(1, "a", now.Add(-keep)), true},
		{"dead for a nanosecond less", on(1, "a", now.Add(-keep+1)), false},
		{"alive elsewhere", on(1, "a", now.Add(1)), false},
		{"here", here(1, "a"), false},
		{"came back in time", with(here(1, "a"), func(w *lock.Waiter) { w.Connection = 99 }), false},
		{"another one", away(1, "other", t0), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := queued(heldBy("holder", time.Time{}), test.w, here(9, "z"))
			out, err := decideQueue(t, lock.RemoveAbandoned{Gone: []lock.Place{{Resource: "r", ProcessID: "a", RequestID: "id-a"}}, Keep: keep}, now, r)
			want := lock.Outcome{Now: now}
			if test.taken {
				want.Changed = []lock.Resource{queued(heldBy("holder", time.Time{}), here(9, "z"))}
				want.Events = []lock.Event{toldWaiting(lock.EventGaveUp, test.w, now, "did_not_come_back")}
			}
			wantOutcome(t, want, out, err)
		})
	}
}

// Places of several resources, in any order and with some named twice, go in one transaction; what is free is handed on.
func TestVacateTakesManyAndHandsOver(t *testing.T) {
	place := func(resource, process string) lock.Place {
		return lock.Place{Resource: resource, ProcessID: process, RequestID: "id-" + process}
	}
	c := lock.RemoveAbandoned{Gone: []lock.Place{place("s", "a"), place("r", "b"), place("r", "a"), place("r", "a"), place("t", "a")}}
	wantEqual(t, "resources", []string{"r", "s", "t"}, c.Resources())
	r := queued(free(), away(1, "a", t0), away(2, "b", t0), here(3, "c"))
	s, u := queued(held, away(1, "a", t0)), queued(free(), here(1, "z"))
	s.Name, u.Name = "s", "t"
	out, err := c.Decide(t0, []lock.Resource{r, s, u})
	gone := func(process string, ticket int64, resource string) lock.Event {
		e := toldWaiting(lock.EventGaveUp, away(ticket, process, t0), t0, "did_not_come_back")
		e.Resource = resource
		return e
	}
	granted := taken(grantTo(here(3, "c"), t0))
	granted.LastTicket = 3
	empty := held
	empty.Name, empty.LastTicket = "s", 1
	wantOutcome(t, lock.Outcome{
		Now: t0, Changed: []lock.Resource{granted, empty}, Granted: grantOf(here(3, "c"), t0), Events: []lock.Event{
			gone("b", 2, "r"), gone("a", 1, "r"), toldGrant(here(3, "c"), t0), gone("a", 1, "s"),
		},
	}, out, err)
}
