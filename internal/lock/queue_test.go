package lock_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
)

// asking is a process's request for "r" that may wait. It is alone in its connection, and its names are the process's.
func asking(process string, connection int64) lock.Acquire {
	return lock.Acquire{Request: lock.Request{
		Resource: "r", ProcessID: process, RequestID: "id-" + process, Wait: time.Minute,
	}, Connection: connection, QueueLimit: 10}
}

// The kinds of waiters. All came before t0, in the order of their tickets, which are their connections too.
func here(ticket int64, process string) *lock.Waiter {
	return &lock.Waiter{Ticket: ticket, Request: asking(process, ticket), Since: after(time.Duration(ticket - 1000)), Local: true}
}

func elsewhere(ticket int64, process string) *lock.Waiter {
	return on(ticket, process, after(time.Hour))
}
func dead(ticket int64, process string) *lock.Waiter { return on(ticket, process, t0) }

// on is a waiter of another server, whose lease ends then.
func on(ticket int64, process string, aliveUntil time.Time) *lock.Waiter {
	w := here(ticket, process)
	w.Local, w.AliveUntil = false, aliveUntil
	return w
}

// away is a waiter whose connection has ended.
func away(ticket int64, process string, until time.Time) *lock.Waiter {
	w := here(ticket, process)
	w.Local, w.DetachedUntil = false, until
	return w
}

// with changes a waiter.
func with(w *lock.Waiter, change func(*lock.Waiter)) *lock.Waiter {
	change(w)
	return w
}

// queued is a resource with these in its queue, the last of whom came last of all.
func queued(r lock.Resource, queue ...*lock.Waiter) lock.Resource {
	r.Queue, r.Waiters, r.Detached = queue, 0, 0
	for _, w := range queue {
		r.LastTicket = max(r.LastTicket, w.Ticket)
		if w.DetachedUntil.IsZero() {
			r.Waiters++
		} else {
			r.Detached++
		}
	}
	return r
}

// taken is a resource that only this hold has, with the holds' token.
func taken(h lock.Hold) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: h.Token, Holds: []lock.Hold{h}}
}

// free is a resource that nothing was ever granted on, but that has a row.
func free() lock.Resource { return lock.Resource{ID: 7, Name: "r", Token: 100} }

// ended is a resource whose hold has ended.
func ended(h lock.Hold, at time.Time) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: h.Token, Last: h, EndedAt: at}
}

// grantTo is the hold of a request that waited, granted at a moment after t0; grantOf its grant.
func grantTo(w *lock.Waiter, now time.Time) lock.Hold {
	c := w.Request
	h := lock.Hold{
		ProcessID: c.ProcessID, Token: t0Token + now.Sub(t0).Microseconds(), LockedAt: now, QueuedAt: w.Since,
		Connection: c.Connection, RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		h.ExpiresAt = now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		h.MinHoldUntil = now.Add(c.MinHold)
	}
	return h
}

func grantOf(w *lock.Waiter, now time.Time) []lock.Grant {
	return []lock.Grant{{ID: 7, Now: now, Hold: grantTo(w, now), To: w.Request, Ticket: w.Ticket}}
}

// toldGrant is the event of a grant to one that waited, toldWaiting that of a waiter.
func toldGrant(w *lock.Waiter, now time.Time) lock.Event {
	e := told(lock.EventGranted, grantTo(w, now), now)
	e.Since, e.Reason = w.Since, w.Request.Reason
	return e
}

func toldWaiting(kind lock.EventKind, w *lock.Waiter, now time.Time, reason string) lock.Event {
	return lock.Event{Kind: kind, At: now, Resource: "r", ProcessID: w.Request.ProcessID, Since: w.Since, Reason: reason}
}

// wantOutcome compares all that a command did. It does not tell an empty slice from none.
func wantOutcome(t *testing.T, want, got lock.Outcome, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

// decideQueue runs a command on a resource and fails if it wrote into the queue that it was given.
func decideQueue(t *testing.T, c lock.Command, now time.Time, r lock.Resource) (lock.Outcome, error) {
	t.Helper()
	kept := slices.Clone(r.Queue)
	var values []lock.Waiter
	for _, w := range kept {
		values = append(values, *w)
	}
	r.Queue = append(r.Queue, here(999, "room behind the slice"))[:len(r.Queue)]
	out, err := decide(c, now, r)
	if !slices.Equal(kept, r.Queue) || r.Queue[:len(kept)+1][len(kept)].Ticket != 999 {
		t.Errorf("%#v wrote into the queue that it was given", c)
	}
	for i, w := range kept {
		wantEqual(t, "waiter that it was given", values[i], *w)
	}
	return out, err
}

var held = heldBy("holder", after(time.Minute))

func TestAcquireGetsAPlaceWhereItHasToWait(t *testing.T) {
	c := asking("me", 50)
	c.TTL, c.Reason = time.Hour, "work"
	place := func(ticket int64) *lock.Waiter {
		return &lock.Waiter{Ticket: ticket, Request: c, Since: t0, Local: true}
	}
	a, b := elsewhere(1, "a"), here(2, "b")
	last := func(r lock.Resource, ticket int64) lock.Resource { r.LastTicket = ticket; return r }
	tests := []struct {
		name   string
		before lock.Resource
		ticket int64
		queue  []*lock.Waiter // before it
	}{
		{"held", held, t0Token, nil},
		{"held by itself under another request", heldBy("me", time.Time{}), t0Token, nil},
		{"held forever", heldBy("holder", time.Time{}), t0Token, nil},
		{"held, and others wait", queued(held, a, b), t0Token, []*lock.Waiter{a, b}},
		{"the last ticket is one below the clock", last(held, t0Token-1), t0Token, nil},
		{"the last ticket is the clock's", last(held, t0Token), t0Token + 1, nil},
		{"the clock went back", last(held, t0Token+500), t0Token + 501, nil},
		{"free, and reserved for a waiter of another server", queued(free(), a, b), t0Token, []*lock.Waiter{a, b}},
		{
			"free, and reserved, behind one that is away", queued(free(), away(1, "w", after(1)), elsewhere(2, "x")),
			t0Token,
			[]*lock.Waiter{away(1, "w", after(1)), elsewhere(2, "x")},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decideQueue(t, c, t0, test.before)
			w := place(test.ticket)
			wantOutcome(t, lock.Outcome{
				Now: t0, Changed: []lock.Resource{queued(test.before, append(slices.Clone(test.queue), w)...)},
				Events: []lock.Event{toldWaiting(lock.EventQueued, w, t0, "work")}, Ticket: test.ticket,
			}, out, err)
		})
	}
}

// A turn that has come and that nobody has noticed yet goes to whom it is for, not to the one who notices.
func TestAcquireHandsOnWhatItFindsFree(t *testing.T) {
	c := asking("me", 50)
	b, x := here(2, "b"), here(3, "x")
	w := &lock.Waiter{Ticket: t0Token, Request: c, Since: t0, Local: true}
	gone := heldBy("holder", t0)
	after := taken(grantTo(b, t0))
	out, err := decideQueue(t, c, t0, queued(gone, b, x))
	want := queued(after, x, w)
	wantOutcome(t, lock.Outcome{
		Now: t0, Changed: []lock.Resource{want}, Granted: grantOf(b, t0), Events: []lock.Event{
			told(lock.EventExpired, gone.Holds[0], t0), toldWaiting(lock.EventQueued, w, t0, ""), toldGrant(b, t0),
		}, Ticket: w.Ticket,
	}, out, err)
}

func TestAcquireIsGrantedAtOnceWhenNobodyIsBeforeIt(t *testing.T) {
	gone := heldBy("holder", t0)
	w, x := away(1, "w", after(1)), dead(2, "x")
	tests := []struct {
		name   string
		before lock.Resource
		queue  []*lock.Waiter
	}{
		{"never held", free(), nil},
		{"released", freed(100), nil},
		{"expired at this moment", gone, nil},
		{"only one that is away waits", queued(free(), w), []*lock.Waiter{w}},
		{"only one of a dead server waits", queued(free(), x), []*lock.Waiter{x}},
		{"both wait", queued(gone, w, x), []*lock.Waiter{w, x}},
	}
	for _, test := range tests {
		for _, wait := range []time.Duration{0, time.Minute} {
			t.Run(test.name+", wait "+wait.String(), func(t *testing.T) {
				c := asking("me", 50)
				c.Wait, c.QueueLimit = wait, 0 // it needs no place
				out, err := decideQueue(t, c, t0, test.before)
				h := lock.Hold{ProcessID: "me", Token: t0Token, LockedAt: t0, Connection: 50, RequestID: "id-me"}
				want := queued(taken(h), test.queue...)
				want.LastTicket = test.before.LastTicket
				events := []lock.Event{told(lock.EventAcquired, h, t0)}
				if len(test.before.Holds) > 0 {
					events = []lock.Event{told(lock.EventExpired, gone.Holds[0], t0), events[0]}
				}
				wantOutcome(t, lock.Outcome{Now: t0, Hold: h, Changed: []lock.Resource{want}, Events: events}, out, err)
			})
		}
	}
}

func TestNewcomerThatDoesNotWaitOvertakesNobody(t *testing.T) {
	tests := []struct {
		name   string
		before lock.Resource
		want   lock.HeldError
	}{
		{"held", queued(held, here(1, "a"), elsewhere(2, "b")), lock.HeldError{Holder: held.Holds[0], Waiters: 2}},
		{"reserved for another server's", queued(free(), elsewhere(1, "a"), here(2, "b")), lock.HeldError{Next: "a", Waiters: 2}},
		{"a turn of this server's, not noticed yet", queued(free(), here(1, "a")), lock.HeldError{Next: "a", Waiters: 1}},
		{"expired, and a turn", queued(heldBy("holder", t0), here(1, "a")), lock.HeldError{Next: "a", Waiters: 1}},
		{"behind those that are not there", queued(free(), away(1, "w", after(1)), dead(2, "x"), elsewhere(3, "a")), lock.HeldError{Next: "a", Waiters: 2}},
		{"its lease ends in a nanosecond", queued(free(), on(1, "a", after(1))), lock.HeldError{Next: "a", Waiters: 1}},
		{"its own place is not the first", queued(free(), elsewhere(1, "a"), here(2, "me")), lock.HeldError{Next: "a", Waiters: 2}},
		{"its place that is kept is not before the first", queued(free(), elsewhere(1, "a"), away(2, "me", after(1))), lock.HeldError{Next: "a", Waiters: 1}},
		{"held, and it has the first place", queued(held, here(1, "me")), lock.HeldError{Holder: held.Holds[0], Waiters: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := asking("me", 0)
			c.Wait = 0
			out, err := decideQueue(t, c, t0, test.before)
			test.want.Resource, test.want.Now = "r", t0
			wantHeld(t, test.want, out, err)
		})
	}
}

// A request that has a place is granted when nobody is before it, and then it has waited since it got the place.
func TestAcquireIsGrantedWhenItsOwnPlaceIsFirst(t *testing.T) {
	b := here(5, "b")
	tests := []struct {
		name  string
		place *lock.Waiter
		ahead []*lock.Waiter
	}{
		{"here", here(3, "me"), nil},
		{"elsewhere", elsewhere(3, "me"), nil},
		{"on a server that died", dead(3, "me"), nil},
		{"kept", away(3, "me", after(1)), nil},
		{"behind one that is away", here(3, "me"), []*lock.Waiter{away(1, "w", after(1))}},
		{"kept, behind one of a dead server", away(3, "me", after(1)), []*lock.Waiter{dead(1, "x")}},
	}
	for _, test := range tests {
		for _, wait := range []time.Duration{0, time.Minute} {
			t.Run(test.name+", wait "+wait.String(), func(t *testing.T) {
				c := asking("me", 50)
				c.Wait, c.QueueLimit, c.TTL = wait, 0, time.Hour
				out, err := decideQueue(t, c, t0, queued(free(), append(slices.Clone(test.ahead), test.place, b)...))
				asked := &lock.Waiter{Request: c, Since: test.place.Since}
				h := grantTo(asked, t0)
				wantOutcome(t, lock.Outcome{
					Now: t0, Hold: h, Changed: []lock.Resource{queued(taken(h), append(slices.Clone(test.ahead), b)...)},
					Events: []lock.Event{toldGrant(asked, t0)}, Ticket: 3, Superseded: replaced(test.place),
				}, out, err)
			})
		}
	}
}

// replaced is the waiter whose request has to be told that another one has its place: none where nobody waits in it.
func replaced(w *lock.Waiter) []*lock.Waiter {
	if w.DetachedUntil.IsZero() {
		return []*lock.Waiter{w}
	}
	return nil
}

func TestRequestThatComesBackHasItsPlace(t *testing.T) {
	a, z := here(1, "a"), here(9, "z")
	tests := []struct {
		name  string
		place *lock.Waiter
		limit int
	}{
		{"from this server", here(5, "me"), 10},
		{"from another server", elsewhere(5, "me"), 10},
		{"from a dead server", dead(5, "me"), 10},
		{"a nanosecond before its time away is over", away(5, "me", after(1)), 10},
		{"into a full queue", away(5, "me", after(1)), 3},
		{"into a queue that is too full by now", here(5, "me"), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := asking("me", 50)
			c.TTL, c.QueueLimit = time.Hour, test.limit
			out, err := decideQueue(t, c, t0, queued(held, a, test.place, z))
			w := &lock.Waiter{Ticket: 5, Request: c, Since: test.place.Since, Local: true}
			// There is no event: it has waited all the time.
			wantOutcome(t, lock.Outcome{
				Now: t0, Changed: []lock.Resource{queued(held, a, w, z)}, Ticket: 5, Superseded: replaced(test.place),
			}, out, err)
		})
	}
}

// A place is of one process and one request.
func TestPlaceOfAnotherIsNotMistaken(t *testing.T) {
	tests := []struct {
		name string
		w    *lock.Waiter
	}{
		{"the process under another request", with(here(1, "me"), func(w *lock.Waiter) { w.Request.RequestID = "other" })},
		{"another process under the same request", with(here(1, "a"), func(w *lock.Waiter) { w.Request.RequestID = "id-me" })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decideQueue(t, asking("me", 50), t0, queued(held, test.w))
			w := &lock.Waiter{Ticket: t0Token, Request: asking("me", 50), Since: t0, Local: true}
			wantOutcome(t, lock.Outcome{
				Now: t0, Changed: []lock.Resource{queued(held, test.w, w)},
				Events: []lock.Event{toldWaiting(lock.EventQueued, w, t0, "")}, Ticket: t0Token,
			}, out, err)
		})
	}
}

func TestRequestThatComesBackTooLateHasANewPlace(t *testing.T) {
	place, z := away(5, "me", t0), here(9, "z")
	c := asking("me", 50)
	w := &lock.Waiter{Ticket: t0Token, Request: c, Since: t0, Local: true}
	t.Run("held", func(t *testing.T) {
		c.QueueLimit = 2 // its old place does not count
		w.Request = c
		out, err := decideQueue(t, c, t0, queued(held, place, z))
		wantEqual(t, "queue", queued(held, z, w).Queue, out.Changed[0].Queue)
		wantOutcome(t, lock.Outcome{
			Now: t0, Changed: []lock.Resource{queued(held, z, w)}, Events: []lock.Event{
				toldWaiting(lock.EventGaveUp, place, t0, "did_not_come_back"), toldWaiting(lock.EventQueued, w, t0, ""),
			}, Ticket: t0Token,
		}, out, err)
	})
	t.Run("free", func(t *testing.T) {
		out, err := decideQueue(t, c, t0, queued(free(), place))
		h := lock.Hold{ProcessID: "me", Token: t0Token, LockedAt: t0, Connection: 50, RequestID: "id-me"}
		want := taken(h)
		want.LastTicket = 5
		wantOutcome(t, lock.Outcome{
			Now: t0, Hold: h, Changed: []lock.Resource{want}, Events: []lock.Event{
				toldWaiting(lock.EventGaveUp, place, t0, "did_not_come_back"), told(lock.EventAcquired, h, t0),
			},
		}, out, err)
	})
	t.Run("refused", func(t *testing.T) {
		c.Wait = 0
		out, err := decideQueue(t, c, t0, queued(held, place, z))
		wantHeld(t, lock.HeldError{Resource: "r", Holder: held.Holds[0], Waiters: 1, Now: t0}, out, err)
	})
}

// A request that waits does not take back the place that a later one has taken, be it its turn.
func TestRequestThatAsksAgainIsToldThatItIsSuperseded(t *testing.T) {
	later := func(w *lock.Waiter) *lock.Waiter {
		w.Connection = 99
		return w
	}
	theirs := grantTo(later(here(2, "me")), t0)
	known := theirs
	known.Connection = 0
	tests := []struct {
		name   string
		before lock.Resource
		want   *lock.HeldError // nil: it is not superseded
		lost   bool            // if the client chose the request_id: a later request may have had the place
	}{
		{"held", queued(held, later(here(2, "me"))), &lock.HeldError{Holder: held.Holds[0], Waiters: 1}, false},
		{"free", queued(free(), later(elsewhere(2, "me"))), &lock.HeldError{Next: "me", Waiters: 1}, false},
		{"granted", taken(theirs), &lock.HeldError{Holder: theirs}, false},
		{"granted, and known to two", taken(known), &lock.HeldError{Holder: known}, false},
		{"its own place", queued(held, here(2, "me")), nil, false},
		{"no place", held, nil, true},
		{"no place, and the resource is free", free(), nil, true},
		{"a place that is kept no more", queued(held, later(away(2, "me", t0))), nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := here(2, "me").Request
			c.Requeued, c.Named = true, true
			out, err := decideQueue(t, c, t0, test.before)
			if test.lost {
				wantEqual(t, "error", error(&lock.PlaceLostError{Resource: "r"}), err)
				wantEqual(t, "outcome", lock.Outcome{}, out)
				c.Named = false
				out, err = decideQueue(t, c, t0, test.before)
				if err == nil && out.Hold.Token != 0 {
					return
				}
			}
			if test.want == nil {
				if err != nil || len(out.Changed[0].Queue) != 1 || !out.Changed[0].Queue[0].Local {
					t.Errorf("got %+v, %v, want a place", out, err)
				}
				return
			}
			test.want.Resource, test.want.Now, test.want.Superseded = "r", t0, true
			wantHeld(t, *test.want, out, err)
		})
	}
}

// When two requests know of a hold, the end of one of them takes nothing away.
func TestRepeatedAcquireTakesTheHoldFromItsConnection(t *testing.T) {
	tests := []struct {
		name              string
		connection, again int64
		want              int64
	}{
		{"another connection", 50, 51, 0},
		{"one that does not wait", 50, 0, 0},
		{"the same connection", 50, 50, 50},
		{"no connection has it", 0, 51, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := requested(func(h *lock.Hold) { h.Connection = test.connection })
			b := here(1, "b")
			c := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1", Wait: time.Minute}, Connection: test.again}
			out, err := decideQueue(t, c, t0, queued(r, b))
			h := r.Holds[0]
			h.Connection = test.want
			wantOutcome(t, lock.Outcome{
				Now: t0, Hold: h, Changed: []lock.Resource{queued(taken(h), b)}, Repeated: test.again != test.connection,
			}, out, err)
		})
	}
}

func TestQueueLimit(t *testing.T) {
	two := queued(held, here(1, "a"), away(2, "w", after(1)))
	tests := []struct {
		name   string
		before lock.Resource
		limit  int
		full   bool
		count  int
	}{
		{"none", held, 0, true, 0},
		{"not reached", two, 3, false, 0},
		{"reached: kept places count", two, 2, true, 1},
		{"exceeded", two, 1, true, 1},
		{"none, for one that has a place", queued(held, here(1, "me")), 0, true, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := asking("me", 50)
			c.QueueLimit = test.limit
			out, err := decideQueue(t, c, t0, test.before)
			if !test.full {
				if err != nil || len(out.Changed[0].Queue) != len(test.before.Queue)+1 {
					t.Errorf("got %+v, %v, want a place", out, err)
				}
				return
			}
			var refusal *lock.QueueFullError
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a QueueFullError", err)
			}
			wantEqual(t, "refusal", &lock.QueueFullError{Resource: "r", Waiters: test.count}, refusal)
			wantEqual(t, "outcome", lock.Outcome{}, out)
		})
	}
}

// ending is a command that ends the hold of "r" by p1, with what it tells of that.
type ending struct {
	name    string
	command lock.Command
	kind    lock.EventKind
	now     time.Time
	hold    bool // it is about one hold
}

// endings all end the hold that lasts a minute.
func endings() []ending {
	now := after(time.Second)
	h := minute().Holds[0]
	gone := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: h.RequestID}, Connection: h.Connection}
	return []ending{
		{"release", lock.Release{Resource: "r", ProcessID: "p1"}, lock.EventReleased, now, true},
		{"release all", lock.ReleaseAll{Names: []string{"r"}, ProcessID: "p1"}, lock.EventReleased, now, false},
		{"force-release", lock.ForceRelease{Resource: "r"}, lock.EventForceReleased, now, true},
		{"hang-up", lock.Leave{Request: gone, Gone: true}, lock.EventReleased, now, false},
		{"expiry", lock.ExpireAndGrant{Names: []string{"r"}}, lock.EventExpired, after(time.Minute), false},
	}
}

// minute is held by p1, in a connection, for a minute.
func minute() lock.Resource {
	return requested(func(h *lock.Hold) { h.Connection = 40 })
}

func TestEndOfAHoldHandsOver(t *testing.T) {
	detailed := with(here(3, "b"), func(w *lock.Waiter) {
		w.Request.TTL, w.Request.MinHold, w.Request.Reason, w.Request.Metadata = time.Hour, time.Second, "work", "{}"
	})
	a, x, z := away(1, "w", after(time.Hour)), on(2, "x", after(time.Second)), here(9, "z")
	tests := []struct {
		name    string
		queue   []*lock.Waiter
		granted *lock.Waiter
	}{
		{"nobody waits", nil, nil},
		{"to the only one", []*lock.Waiter{z}, z},
		{"to the first of two, with what it asked for", []*lock.Waiter{detailed, z}, detailed},
		{"past one that is away", []*lock.Waiter{a, z}, z},
		{"past one whose server is dead by now", []*lock.Waiter{x, z}, z},
		{"not to the second while the first is elsewhere", []*lock.Waiter{elsewhere(2, "e"), z}, nil},
		{"not to one elsewhere", []*lock.Waiter{elsewhere(2, "e")}, nil},
		{"not to one that is away", []*lock.Waiter{a}, nil},
		{"not to one whose server is dead", []*lock.Waiter{x}, nil},
	}
	for _, end := range endings() {
		for _, test := range tests {
			t.Run(end.name+", "+test.name, func(t *testing.T) {
				before := queued(minute(), test.queue...)
				out, err := decideQueue(t, end.command, end.now, before)
				gone := before.Holds[0]
				after := ended(gone, end.now)
				want := lock.Outcome{Now: end.now, Events: []lock.Event{told(end.kind, gone, end.now)}}
				if end.hold {
					want.Hold = gone
				}
				left := test.queue
				if w := test.granted; w != nil {
					after = taken(grantTo(w, end.now))
					left = slices.DeleteFunc(slices.Clone(left), func(other *lock.Waiter) bool { return other == w })
					want.Granted = grantOf(w, end.now)
					want.Events = append(want.Events, toldGrant(w, end.now))
				}
				after = queued(after, left...)
				after.LastTicket = before.LastTicket
				want.Changed = []lock.Resource{after}
				wantOutcome(t, want, out, err)
			})
		}
	}
}

// What was reserved is granted by whoever is the server of that waiter, and by nobody else.
func TestSettleGrantsWhatIsReserved(t *testing.T) {
	b, e := here(2, "b"), elsewhere(1, "e")
	tests := []struct {
		name    string
		before  lock.Resource
		granted bool
	}{
		{"for a waiter that is here", queued(free(), b), true},
		{"for another server's", queued(free(), e, b), false},
		{"for nobody", free(), false},
		{"held", queued(held, b), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decideQueue(t, lock.ExpireAndGrant{Names: []string{"r"}}, t0, test.before)
			want := lock.Outcome{Now: t0}
			if test.granted {
				after := taken(grantTo(b, t0))
				after.LastTicket = 2
				want.Changed, want.Granted, want.Events = []lock.Resource{after}, grantOf(b, t0), []lock.Event{toldGrant(b, t0)}
			}
			wantOutcome(t, want, out, err) // and where nothing is to be done nothing is written
		})
	}
}

func TestReleaseAllAndSettleHandOverEachResource(t *testing.T) {
	now := after(time.Minute)
	for _, c := range []lock.Command{
		lock.ReleaseAll{Names: []string{"a", "b"}, ProcessID: "holder"}, lock.ExpireAndGrant{Names: []string{"a", "b"}},
	} {
		moment := now
		if _, releases := c.(lock.ReleaseAll); releases {
			moment = t0
		}
		var before []lock.Resource
		for _, name := range []string{"a", "b"} {
			r := queued(held, here(1, "w"))
			r.Name = name
			before = append(before, r)
		}
		out, err := c.Decide(moment, before)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "changed", []string{"a", "b"}, namesOf(out.Changed))
		if len(out.Granted) != 2 || len(out.Events) != 4 {
			t.Errorf("%T: got %d grants and %d events, want 2 and 4", c, len(out.Granted), len(out.Events))
		}
	}
}

func TestMinimumDelaysTheHandOver(t *testing.T) {
	now := after(time.Second)
	b := here(1, "b")
	r := queued(heldBy("p1", time.Time{}), b)
	r.Holds[0].MinHoldUntil = after(time.Minute)
	out, err := decideQueue(t, lock.Release{Resource: "r", ProcessID: "p1"}, now, r)
	h := r.Holds[0]
	h.ReleasedAt, h.ExpiresAt = now, after(time.Minute)
	kept := queued(taken(h), b)
	wantOutcome(t, lock.Outcome{
		Now: now, Hold: h, Changed: []lock.Resource{kept}, Events: []lock.Event{told(lock.EventReleased, h, now)},
	}, out, err)

	out, err = decideQueue(t, lock.ExpireAndGrant{Names: []string{"r"}}, after(time.Minute-1), kept)
	wantOutcome(t, lock.Outcome{Now: after(time.Minute - 1)}, out, err)
	now = after(time.Minute)
	out, err = decideQueue(t, lock.ExpireAndGrant{Names: []string{"r"}}, now, kept)
	granted := taken(grantTo(b, now))
	granted.LastTicket = 1
	wantOutcome(t, lock.Outcome{
		Now: now, Changed: []lock.Resource{granted}, Granted: grantOf(b, now), Events: []lock.Event{toldGrant(b, now)},
	}, out, err)
}

func TestRenewDoesNotDisturbTheQueue(t *testing.T) {
	r := queued(heldBy("p1", after(time.Minute)), here(1, "b"), away(2, "w", after(1)))
	for _, c := range []lock.Command{
		lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour}, lock.RenewAll{Names: []string{"r"}, ProcessID: "p1", TTL: time.Hour},
	} {
		out, err := decideQueue(t, c, t0, r)
		if err != nil {
			t.Fatal(err)
		}
		want := r
		want.Holds = out.Changed[0].Holds
		wantEqual(t, "resource", []lock.Resource{want}, out.Changed)
		if out.Granted != nil || out.Events != nil {
			t.Errorf("%T: got grants %v and events %v, want none", c, out.Granted, out.Events)
		}
	}
}

func TestForgetSparesAResourceWithPlaces(t *testing.T) {
	tests := []struct {
		name  string
		queue []*lock.Waiter
		want  int
	}{
		{"one that waits", []*lock.Waiter{here(1, "a")}, 0},
		{"one that is away", []*lock.Waiter{away(1, "a", t0)}, 0},
		{"nobody", nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := queued(freed(100), test.queue...)
			r.Queue = nil // what counts is what the row says
			out, err := decide(lock.DeleteIdle{Names: []string{"r"}, Before: after(time.Hour)}, after(time.Hour), r)
			if err != nil || len(out.Changed) != test.want {
				t.Errorf("got %d forgotten, %v, want %d", len(out.Changed), err, test.want)
			}
		})
	}
}

func TestDueIsWhenATurnMayComeByItself(t *testing.T) {
	tests := []struct {
		name string
		r    lock.Resource
		want time.Time
	}{
		{"held for a minute", held, after(time.Minute)},
		{"held for a minute, and reserved for nobody yet", queued(held, elsewhere(1, "a")), after(time.Minute)},
		{"held forever", queued(heldBy("holder", time.Time{}), elsewhere(1, "a")), time.Time{}},
		{"released, kept by its minimum", kept(), after(time.Minute)},
		{"free", free(), time.Time{}},
		{"expired", heldBy("holder", t0), time.Time{}},
		{"reserved for another server's, until that counts as dead", queued(free(), elsewhere(1, "a"), here(2, "b")), after(time.Hour)},
		{"reserved behind a dead one", queued(free(), dead(1, "x"), on(2, "a", after(2))), after(2)},
		{"a turn that is here", queued(free(), here(1, "a"), elsewhere(2, "b")), time.Time{}},
		{
			"a turn that is here, whatever the lease says",
			queued(free(), with(here(1, "a"), func(w *lock.Waiter) { w.AliveUntil = after(1) })),
			time.Time{},
		},
		{"nobody is connected", queued(free(), away(1, "a", after(1)), dead(2, "b")), time.Time{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.r.Due(t0); !got.Equal(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestQueueRefusalTexts(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{
			"superseded", &lock.HeldError{Resource: "x", Holder: lock.Hold{ProcessID: "y", Token: 1}, Superseded: true},
			"A later request with the same request_id has taken the place of this one in the queue of resource 'x'",
		},
		{"reserved", &lock.HeldError{Resource: "x", Next: "y"}, "Resource 'x' is reserved for process 'y', which waits for it"},
		{
			"timed out", &lock.HeldError{Resource: "x", Holder: lock.Hold{ProcessID: "y", Token: 1}, TimedOut: true},
			"Resource 'x' is still locked by process 'y'",
		},
		{
			"held", &lock.HeldError{Resource: "x", Holder: lock.Hold{ProcessID: "y", Token: 1}, Next: "z"},
			"Resource 'x' is already locked by process 'y'",
		},
		{"timed out, free by then", &lock.HeldError{Resource: "x", TimedOut: true}, "Resource 'x' was not granted"},
		{
			"full", &lock.QueueFullError{Resource: "x", Waiters: 3},
			"Too many requests wait already: there is no place left in the queue of resource 'x'",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestWhichCommandsHandOver(t *testing.T) {
	tests := []struct {
		command lock.Command
		want    bool
		places  []lock.Place
	}{
		{lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", Wait: time.Minute}}, false, nil},
		{asking("p", 1), false, []lock.Place{{Resource: "r", ProcessID: "p", RequestID: "id-p"}}},
		{lock.Release{}, true, nil},
		{lock.ReleaseAll{}, true, nil},
		{lock.ForceRelease{}, true, nil},
		{lock.ExpireAndGrant{}, true, nil},
		{lock.Leave{Request: asking("p", 1)}, true, []lock.Place{{Resource: "r", ProcessID: "p", RequestID: "id-p"}}},
		{lock.RemoveAbandoned{Gone: []lock.Place{{Resource: "x"}}}, true, []lock.Place{{Resource: "x"}}},
	}
	for _, test := range tests {
		if got := lock.HandsOver(test.command); got != test.want {
			t.Errorf("%T hands over: %t, want %t", test.command, got, test.want)
		}
		var places []lock.Place
		if placed, names := test.command.(lock.Placed); names {
			places = placed.Places()
		}
		if diff := cmp.Diff(test.places, places); diff != "" {
			t.Errorf("places of %T (-want +got):\n%s", test.command, diff)
		}
	}
}
