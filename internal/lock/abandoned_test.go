package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestRemoveAbandoned(t *testing.T) {
	now := after(time.Hour)
	retried := with(local(1, "a"), func(w *lock.Waiter) { w.Connection = 99 })
	held := heldBy("holder", time.Time{})
	tests := []struct {
		name    string
		w       *lock.Waiter
		removed bool
	}{
		{"detached until now", detached(1, "a", now), true},
		{"detached for a nanosecond more", detached(1, "a", now.Add(1)), false},
		{"dead for as long as its place is kept", remoteUntil(1, "a", now.Add(-keep)), true},
		{"dead for a nanosecond less", remoteUntil(1, "a", now.Add(-keep+1)), false},
		{"remote", remoteUntil(1, "a", now.Add(1)), false},
		{"local", local(1, "a"), false},
		{"retried in time", retried, false},
		{"another place", detached(1, "other", t0), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := lock.RemoveAbandoned{Places: []lock.Place{{Resource: "r", ProcessID: "a", RequestID: "id-a"}}, Keep: keep}
			out, err := decide(t, c, now, queued(held, test.w, local(9, "z")))
			want := lock.Outcome{Now: now}
			if test.removed {
				want.Events = []lock.Event{waiterEvent(lock.EventGaveUp, test.w, now, "did_not_come_back")}
				want = changing(queued(held, local(9, "z")), want)
			}
			wantOutcome(t, want, out, err)
		})
	}
}

// One command removes places of several resources, in any order and with some named
// twice, and grants what is free.
func TestRemoveAbandonedOfSeveralResources(t *testing.T) {
	place := func(resource, process string) lock.Place {
		return lock.Place{Resource: resource, ProcessID: process, RequestID: "id-" + process}
	}
	c := lock.RemoveAbandoned{Places: []lock.Place{
		place("s", "a"), place("r", "b"), place("r", "a"), place("r", "a"), place("t", "a"),
	}}
	wantEqual(t, "resources", []string{"r", "s", "t"}, c.Needs().Resources)
	out, err := c.Decide(t0, []lock.Resource{
		queued(free(), detached(1, "a", t0), detached(2, "b", t0), local(3, "c")),
		named("s", queued(heldForAMinute, detached(1, "a", t0))),
		named("t", queued(free(), local(1, "z"))),
	})
	gaveUp := func(process string, ticket int64) lock.Event {
		return waiterEvent(lock.EventGaveUp, detached(ticket, process, t0), t0, "did_not_come_back")
	}
	wantOutcomeOfMany(t, lock.Outcome{
		Now: t0,
		Changed: []lock.Resource{
			lastTicket(3, holding(holdOf(local(3, "c"), t0))), named("s", lastTicket(1, heldForAMinute)),
		},
		Granted: grantsTo(local(3, "c"), t0),
		Events:  []lock.Event{gaveUp("b", 2), gaveUp("a", 1), grantEvent(local(3, "c"), t0), of("s", gaveUp("a", 1))},
	}, out, err)
}
