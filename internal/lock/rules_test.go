package lock_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
)

// t0 has nanoseconds, as Go's clocks do: a token counts whole microseconds.
var t0 = time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)

const t0Token = 1782907200123456 // t0 in microseconds, written out so that a wrong unit shows

func after(d time.Duration) time.Time { return t0.Add(d) }

// heldBy is a resource that the process holds since t0.
func heldBy(process string, expires time.Time) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{
		{ProcessID: process, Token: 100, LockedAt: t0, ExpiresAt: expires},
	}}
}

// freed is a resource whose only hold ended a minute after t0.
func freed(token int64) lock.Resource {
	return lock.Resource{
		ID: 7, Name: "r", Token: token, EndedAt: after(time.Minute),
		Last: lock.Hold{ProcessID: "p1", Token: token, LockedAt: t0},
	}
}

// decide runs a command on one resource.
func decide(c lock.Command, now time.Time, r lock.Resource) (lock.Outcome, error) {
	return c.Decide(now, []lock.Resource{r})
}

// told is the event that tells of a hold of "r", without what only some kinds tell.
func told(kind lock.EventKind, h lock.Hold, at time.Time) lock.Event {
	e := lock.Event{
		Kind: kind, At: at, Resource: "r", ProcessID: h.ProcessID, Token: h.Token, Since: h.LockedAt, Renewals: h.Renewals,
	}
	if kind == lock.EventReleased || kind == lock.EventForceReleased || kind == lock.EventExpired {
		e.HoldReason = h.Reason
	}
	return e
}

// wantNotHeld fails unless a command was refused with that error and changed nothing.
func wantNotHeld(t *testing.T, want lock.NotHeldError, out lock.Outcome, err error) {
	t.Helper()
	var refusal *lock.NotHeldError
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a NotHeldError", err)
	}
	wantEqual(t, "error", &want, refusal)
	wantEqual(t, "outcome", lock.Outcome{}, out)
}

// wantHeld fails unless an acquire was refused with that error and changed nothing.
func wantHeld(t *testing.T, want lock.HeldError, out lock.Outcome, err error) {
	t.Helper()
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	wantEqual(t, "error", &want, held)
	wantEqual(t, "outcome", lock.Outcome{}, out)
}

func wantEqual(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAcquireGranted(t *testing.T) {
	forgotten := freed(100)
	forgotten.Deleted = true
	tests := []struct {
		name    string
		before  lock.Resource
		now     time.Time
		ttl     time.Duration
		token   int64
		expires time.Time
	}{
		{"new, without expiry", lock.Resource{Name: "r"}, t0, 0, t0Token, time.Time{}},
		{"new, with a TTL", lock.Resource{Name: "r"}, t0, 90 * time.Second, t0Token, after(90 * time.Second)},
		{"new, a fraction of a second", lock.Resource{Name: "r"}, t0, time.Millisecond, t0Token, after(time.Millisecond)},
		{"made anew above the floor", lock.Resource{Name: "r", Token: t0Token + 5}, t0, 0, t0Token + 6, time.Time{}},
		{"released before", freed(100), t0, 0, t0Token, time.Time{}},
		{"forgotten in the same transaction", forgotten, t0, 0, t0Token, time.Time{}},
		{"expired at this very moment", heldBy("p1", t0), t0, time.Hour, t0Token, after(time.Hour)},
		{"expired long ago", heldBy("p1", after(-time.Hour)), t0, 0, t0Token, time.Time{}},
		{"the same process after its hold expired", heldBy("p2", t0), t0, 0, t0Token, time.Time{}},
		{"token one below the clock", freed(t0Token - 1), t0, 0, t0Token, time.Time{}},
		{"token at the clock", freed(t0Token), t0, 0, t0Token + 1, time.Time{}},
		{"clock gone back", freed(t0Token), after(-time.Hour), 0, t0Token + 1, time.Time{}},
		{"clock before 1970", lock.Resource{Name: "r"}, time.Unix(-5, 0), 0, 1, time.Time{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p2", TTL: test.ttl}}, test.now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			hold := lock.Hold{ProcessID: "p2", Token: test.token, LockedAt: test.now, ExpiresAt: test.expires}
			var events []lock.Event
			for _, gone := range test.before.Holds { // its end comes first in the history, and when its time came
				events = append(events, told(lock.EventExpired, gone, gone.ExpiresAt))
			}
			events = append(events, told(lock.EventAcquired, hold, test.now))
			wantEqual(t, "outcome", lock.Outcome{Now: test.now, Hold: hold, Changed: []lock.Resource{
				// Last and EndedAt are zero while it is held, whoever held it before.
				{ID: test.before.ID, Name: "r", Token: test.token, Holds: []lock.Hold{hold}},
			}, Events: events}, out)
		})
	}
}

func TestAcquireRefused(t *testing.T) {
	tests := []struct {
		name    string
		expires time.Time
		process string
		now     time.Time
	}{
		{"held forever", time.Time{}, "p2", after(100 * 365 * 24 * time.Hour)},
		{"held for a while", after(time.Minute), "p2", after(time.Second)},
		{"a nanosecond before it expires", after(time.Minute), "p2", after(time.Minute - 1)},
		{"the holder itself", after(time.Minute), "p1", after(time.Second)},
		{"clock gone back before the grant", after(time.Minute), "p2", after(-time.Hour)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := heldBy("p1", test.expires)
			out, err := decide(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: test.process, TTL: time.Hour}}, test.now, before)
			wantHeld(t, lock.HeldError{Resource: "r", Holder: before.Holds[0], Now: test.now}, out, err)
		})
	}
}

func TestExpire(t *testing.T) {
	expired := func(name string, at time.Time) lock.Resource {
		r := heldBy("p1", at)
		r.Name = name
		return r
	}
	before := []lock.Resource{
		expired("c", t0.Add(-time.Hour)), expired("live", t0.Add(1)), expired("forever", time.Time{}), freed(100),
		{Name: "new"},
		expired("a", t0),
	}
	out, err := lock.ExpireAndGrant{Names: []string{"c", "live", "forever", "r", "new", "a"}}.Decide(t0, before)
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Outcome{Now: t0}
	for _, r := range []lock.Resource{before[0], before[5]} {
		r.Last, r.EndedAt = r.Holds[0], r.Holds[0].ExpiresAt // when its time came, not when that was noticed
		r.Holds = []lock.Hold{}
		event := told(lock.EventExpired, r.Last, r.EndedAt)
		event.Resource = r.Name
		want.Changed = append(want.Changed, r)
		want.Events = append(want.Events, event)
	}
	wantEqual(t, "outcome", want, out)
}

// With two holds, taking the first away in place would move the second, which a caller may still look at.
func TestEndOfAHoldLeavesTheInputAlone(t *testing.T) {
	expired := lock.Hold{ProcessID: "p1", Token: 1, LockedAt: t0, ExpiresAt: after(time.Second)}
	live := lock.Hold{ProcessID: "p2", Token: 2, LockedAt: t0}
	holds := []lock.Hold{expired, live}
	before := lock.Resource{ID: 7, Name: "r", Token: 2, Holds: holds}
	out, err := decide(lock.ExpireAndGrant{Names: []string{"r"}}, after(time.Minute), before)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "input", []lock.Hold{expired, live}, holds)
	wantEqual(t, "left", []lock.Hold{live}, out.Changed[0].Holds)
}

func TestForget(t *testing.T) {
	noRow := freed(100)
	noRow.ID = 0
	tests := []struct {
		name   string
		before lock.Resource
		cutoff time.Time
		want   bool
	}{
		{"idle since before the cutoff", freed(100), after(time.Minute + 1), true},
		{"ended at the cutoff", freed(100), after(time.Minute), false},
		{"ended after the cutoff", freed(100), after(time.Second), false},
		{"a row that was never held", lock.Resource{ID: 7, Name: "r", Token: 100}, t0, true},
		{"held forever", heldBy("p1", time.Time{}), after(time.Hour), false},
		{"held", heldBy("p1", after(2*time.Hour)), after(time.Hour), false},
		{"expired, but its end is not recorded yet", heldBy("p1", after(time.Minute)), after(time.Hour), false},
		{"no row", noRow, after(time.Hour), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Hour)
			out, err := decide(lock.DeleteIdle{Names: []string{"r"}, Before: test.cutoff}, now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			want := lock.Outcome{Now: now}
			if test.want {
				r := test.before
				r.Deleted = true // and the token stays, so that the store can remember it as the floor
				want.Changed = []lock.Resource{r}
			}
			wantEqual(t, "outcome", want, out)
		})
	}
}

func TestResourcesOfCommands(t *testing.T) {
	tests := []struct {
		name    string
		command lock.Command
		want    []string
	}{
		{"acquire", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}}, []string{"r"}},
		{"release", lock.Release{Resource: "r", ProcessID: "p"}, []string{"r"}},
		{"renew", lock.Renew{Resource: "r", ProcessID: "p"}, []string{"r"}},
		{"force-release", lock.ForceRelease{Resource: "r", Reason: "because"}, []string{"r"}},
		{"renew all", lock.RenewAll{Names: []string{"b", "a"}, ProcessID: "p"}, []string{"b", "a"}},
		{"release all", lock.ReleaseAll{Names: []string{"b", "a"}, ProcessID: "p"}, []string{"b", "a"}},
		{"expire", lock.ExpireAndGrant{Names: []string{"b", "a"}}, []string{"b", "a"}},
		{"forget", lock.DeleteIdle{Names: []string{"b", "a"}}, []string{"b", "a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantEqual(t, "resources", test.want, test.command.Resources())
		})
	}
}

// The HTTP API answers these texts as its detail; clients of the Python version may look for them.
func TestRefusalTexts(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{
			"held", &lock.HeldError{Resource: "x", Holder: lock.Hold{ProcessID: "y"}},
			"Resource 'x' is already locked by process 'y'",
		},
		{
			"not held", &lock.NotHeldError{Resource: "x", ProcessID: "y"},
			"No active lock found for resource 'x' by process 'y'",
		},
		{
			"not held by that token", &lock.NotHeldError{Resource: "x", ProcessID: "y", Why: lock.ReasonTokenMismatch},
			"No active lock found for resource 'x' by process 'y' with this fencing token",
		},
		{
			"released already", &lock.NotHeldError{Resource: "x", ProcessID: "y", Why: lock.ReasonReleased},
			"No active lock found for resource 'x' by process 'y'",
		},
		{
			"broken", &lock.NotHeldError{Resource: "x", ProcessID: "y", Why: lock.ReasonForceReleased},
			"No active lock found for resource 'x' by process 'y': it was force-released",
		},
		{"not locked", &lock.NotLockedError{Resource: "x"}, "Resource 'x' is not locked"},
		{
			"held, with characters that a quoting verb would change", &lock.HeldError{Resource: `a"b\c'é`, Holder: lock.Hold{ProcessID: "y"}},
			`Resource 'a"b\c'é' is already locked by process 'y'`,
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
