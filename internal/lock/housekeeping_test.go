package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestExpireAndGrantRecordsExpiredHolds(t *testing.T) {
	before := []lock.Resource{
		named("c", heldBy("p1", t0.Add(-time.Hour))), named("live", heldBy("p1", t0.Add(1))),
		named("forever", heldBy("p1", time.Time{})), released(100),
		{Name: "new"},
		named("a", heldBy("p1", t0)),
	}
	out, err := lock.ExpireAndGrant{Names: namesOf(before)}.Decide(t0, before)
	want := lock.Outcome{Now: t0}
	for _, r := range []lock.Resource{before[0], before[5]} {
		hold := r.Holds[0]
		// The hold ended at its expiry, not when the command was decided.
		want.Changed = append(want.Changed, named(r.Name, ended(hold, hold.ExpiresAt)))
		want.Events = append(want.Events, of(r.Name, holdEvent(lock.EventExpired, hold, hold.ExpiresAt)))
	}
	wantOutcomeOfMany(t, want, out, err)
}

// If there were two holds, removing the first one in place would move the second one,
// which a caller may still read.
func TestEndOfAHoldDoesNotWriteIntoTheInput(t *testing.T) {
	expired := lock.Hold{ProcessID: "p1", Token: 1, LockedAt: t0, ExpiresAt: after(time.Second)}
	live := lock.Hold{ProcessID: "p2", Token: 2, LockedAt: t0}
	holds := []lock.Hold{expired, live}
	before := lock.Resource{ID: 7, Name: "r", Token: 2, Holds: holds}
	out, err := decide(t, lock.ExpireAndGrant{Names: []string{"r"}}, after(time.Minute), before)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "input", []lock.Hold{expired, live}, holds)
	wantEqual(t, "remaining holds", []lock.Hold{live}, out.Changed[0].Holds)
}

// Only the server of the waiter that a free resource is reserved for grants it.
func TestExpireAndGrantGrantsAReservedResource(t *testing.T) {
	b, e := local(2, "b"), remote(1, "e")
	tests := []struct {
		name    string
		before  lock.Resource
		granted bool
	}{
		{"for a local waiter", queued(free(), b), true},
		{"for a remote waiter", queued(free(), e, b), false},
		{"without a waiter", free(), false},
		{"held", queued(heldForAMinute, b), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, lock.ExpireAndGrant{Names: []string{"r"}}, t0, test.before)
			want := lock.Outcome{Now: t0} // nothing is stored if nothing changes
			if test.granted {
				want = changing(lastTicket(2, holding(holdOf(b, t0))), lock.Outcome{
					Now: t0, Granted: grantsTo(b, t0), Events: []lock.Event{grantEvent(b, t0)},
				})
			}
			wantOutcome(t, want, out, err)
		})
	}
}

func TestDeleteIdle(t *testing.T) {
	noRow := released(100)
	noRow.ID = 0
	tests := []struct {
		name   string
		before lock.Resource
		cutoff time.Time
		want   bool
	}{
		{"idle since before the cutoff", released(100), after(time.Minute + 1), true},
		{"ended at the cutoff", released(100), after(time.Minute), false},
		{"ended after the cutoff", released(100), after(time.Second), false},
		{"a row that was never held", free(), t0, true},
		{"held without expiry", heldBy("p1", time.Time{}), after(time.Hour), false},
		{"held", heldBy("p1", after(2*time.Hour)), after(time.Hour), false},
		{"expired, but its end is not recorded yet", heldBy("p1", after(time.Minute)), after(time.Hour), false},
		{"no row", noRow, after(time.Hour), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Hour)
			out, err := decide(t, lock.DeleteIdle{Names: []string{"r"}, Before: test.cutoff}, now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			want := lock.Outcome{Now: now}
			if test.want {
				r := test.before
				r.Deleted = true // the token stays, so that the store can keep it as the floor
				want = changing(r, want)
				want.Deleted = 1
			}
			wantEqual(t, "outcome", want, out)
		})
	}
}

func TestDeleteIdleCountsWhatItDeletes(t *testing.T) {
	before := []lock.Resource{named("a", released(100)), named("b", heldForAMinute), named("c", free())}
	out, err := lock.DeleteIdle{Names: namesOf(before), Before: after(time.Hour)}.Decide(after(time.Hour), before)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "changed", []string{"a", "c"}, namesOf(out.Changed))
	wantEqual(t, "deleted", 2, out.Deleted)
}

func TestDeleteIdleSparesAResourceWithPlaces(t *testing.T) {
	tests := []struct {
		name  string
		queue []*lock.Waiter
		want  int
	}{
		{"a connected waiter", []*lock.Waiter{local(1, "a")}, 0},
		{"a detached waiter", []*lock.Waiter{detached(1, "a", t0)}, 0},
		{"no waiter", nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := queued(released(100), test.queue...)
			r.Queue = nil // the counts of the row decide, because the queue may not have been read
			c := lock.DeleteIdle{Names: []string{"r"}, Before: after(time.Hour)}
			out, err := decide(t, c, after(time.Hour), r)
			if err != nil || len(out.Changed) != test.want || out.Deleted != test.want {
				t.Errorf("got %d deleted (%d changed), %v, want %d", out.Deleted, len(out.Changed), err, test.want)
			}
		})
	}
}
