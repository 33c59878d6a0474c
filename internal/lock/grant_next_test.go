package lock_test

import (
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// ending is a command that ends the hold of connectedHold.
type ending struct {
	name    string
	command lock.Command
	now     time.Time
	event   lock.Event
	want    lock.Outcome // without the changed resource, the events and the grants
}

// connectedHold returns a resource that p1 holds for a minute, in a connection.
func connectedHold() lock.Resource {
	return requested(func(h *lock.Hold) { h.Connection = 40 })
}

func endings() []ending {
	now, expiry := after(time.Second), after(time.Minute)
	h := connectedHold().Holds[0]
	request := retry
	request.Connection = h.Connection
	disconnected := holdEvent(lock.EventReleased, h, now)
	disconnected.Reason = "client_gone"
	names := []string{"r"}
	return []ending{
		{
			"release",
			lock.Release{Resource: "r", ProcessID: "p1"},
			now,
			holdEvent(lock.EventReleased, h, now),
			lock.Outcome{Hold: h},
		},
		{
			"release all",
			lock.ReleaseAll{Names: names, ProcessID: "p1"},
			now,
			holdEvent(lock.EventReleased, h, now),
			lock.Outcome{Holds: []lock.HoldRef{{Resource: "r", Token: 100}}},
		},
		{
			"force-release",
			lock.ForceRelease{Resource: "r"},
			now,
			holdEvent(lock.EventForceReleased, h, now),
			lock.Outcome{Hold: h},
		},
		{"disconnect", lock.Disconnect{Of: request, Why: lock.ClientGone}, now, disconnected, lock.Outcome{}},
		{
			"expiry",
			lock.ExpireAndGrant{Names: names},
			expiry,
			holdEvent(lock.EventExpired, h, expiry),
			lock.Outcome{},
		},
	}
}

func TestEndOfAHoldGrantsToTheNextWaiter(t *testing.T) {
	detailed := with(local(3, "b"), func(w *lock.Waiter) {
		w.Request.TTL, w.Request.MinHold, w.Request.Reason, w.Request.Metadata = time.Hour, time.Second, "work", "{}"
	})
	a, x, z := detached(1, "w", after(time.Hour)), remoteUntil(2, "x", after(time.Second)), local(9, "z")
	tests := []struct {
		name    string
		queue   []*lock.Waiter
		granted *lock.Waiter
	}{
		{"no waiter", nil, nil},
		{"the only waiter", []*lock.Waiter{z}, z},
		{"the first of two, as it requested", []*lock.Waiter{detailed, z}, detailed},
		{"past a detached waiter", []*lock.Waiter{a, z}, z},
		{"past a waiter whose lease ends now", []*lock.Waiter{x, z}, z},
		{"not to the second while the first is remote", []*lock.Waiter{remote(2, "e"), z}, nil},
		{"not to a remote waiter", []*lock.Waiter{remote(2, "e")}, nil},
		{"not to a detached waiter", []*lock.Waiter{a}, nil},
		{"not to a dead waiter", []*lock.Waiter{x}, nil},
	}
	for _, end := range endings() {
		for _, test := range tests {
			t.Run(end.name+", "+test.name, func(t *testing.T) {
				before := queued(connectedHold(), test.queue...)
				out, err := decide(t, end.command, end.now, before)
				want, after, remaining := end.want, ended(before.Holds[0], end.now), test.queue
				want.Now, want.Events = end.now, []lock.Event{end.event}
				if w := test.granted; w != nil {
					after = holding(holdOf(w, end.now))
					remaining = slices.DeleteFunc(slices.Clone(remaining), func(other *lock.Waiter) bool { return other == w })
					want.Granted = grantsTo(w, end.now)
					want.Events = append(want.Events, grantEvent(w, end.now))
				}
				want = changing(lastTicket(before.LastTicket, queued(after, remaining...)), want)
				if end.name == "release all" {
					wantOutcomeOfMany(t, want, out, err)
				} else {
					wantOutcome(t, want, out, err)
				}
			})
		}
	}
}

func TestReleaseAllAndExpireAndGrantGrantEachResource(t *testing.T) {
	names := []string{"a", "b"}
	for _, test := range []struct {
		command lock.Command
		now     time.Time
	}{
		{lock.ReleaseAll{Names: names, ProcessID: "holder"}, t0},
		{lock.ExpireAndGrant{Names: names}, after(time.Minute)},
	} {
		var before []lock.Resource
		for _, name := range names {
			before = append(before, named(name, queued(heldForAMinute, local(1, "w"))))
		}
		out, err := test.command.Decide(test.now, before)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "changed", names, namesOf(out.Changed))
		if len(out.Granted) != 2 || len(out.Events) != 4 {
			t.Errorf("%T: got %d grants and %d events, want 2 and 4", test.command, len(out.Granted), len(out.Events))
		}
	}
}

func TestMinimumDelaysTheNextGrant(t *testing.T) {
	now := after(time.Second)
	b := local(1, "b")
	r := queued(heldBy("p1", time.Time{}), b)
	r.Holds[0].MinHoldUntil = after(time.Minute)
	out, err := decide(t, lock.Release{Resource: "r", ProcessID: "p1"}, now, r)
	event := holdEvent(lock.EventReleased, r.Holds[0], now)
	h := r.Holds[0]
	h.ReleasedAt, h.ExpiresAt = now, after(time.Minute)
	kept := queued(holding(h), b)
	wantOutcome(t, changing(kept, lock.Outcome{Now: now, Hold: h, Events: []lock.Event{event}}), out, err)

	names := []string{"r"}
	out, err = decide(t, lock.ExpireAndGrant{Names: names}, after(time.Minute-1), kept)
	wantOutcome(t, lock.Outcome{Now: after(time.Minute - 1)}, out, err)
	now = after(time.Minute)
	out, err = decide(t, lock.ExpireAndGrant{Names: names}, now, kept)
	wantOutcome(t, changing(lastTicket(1, holding(holdOf(b, now))), lock.Outcome{
		Now: now, Granted: grantsTo(b, now), Events: []lock.Event{grantEvent(b, now)},
	}), out, err)
}

func TestRenewLeavesTheQueueAsItIs(t *testing.T) {
	r := queued(heldBy("p1", after(time.Minute)), local(1, "b"), detached(2, "w", after(1)))
	for _, c := range []lock.Command{
		lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour},
		lock.RenewAll{Names: []string{"r"}, ProcessID: "p1", TTL: time.Hour},
	} {
		out, err := decide(t, c, t0, r)
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
