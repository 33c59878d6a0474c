package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestRenew(t *testing.T) {
	minimum := func(expires, until time.Time) lock.Resource {
		r := heldBy("p1", expires)
		r.Holds[0].MinHoldUntil = until
		return r
	}
	now := after(time.Second)
	tests := []struct {
		name    string
		before  lock.Resource
		ttl     time.Duration
		token   int64
		expires time.Time
	}{
		{"longer", heldBy("p1", after(time.Minute)), time.Hour, 0, now.Add(time.Hour)},
		{"counted from now, not from the old expiry", heldBy("p1", after(time.Minute)), time.Minute, 0, now.Add(time.Minute)},
		{"shorter", heldBy("p1", after(time.Hour)), time.Millisecond, 0, now.Add(time.Millisecond)},
		{"of a hold without expiry", heldBy("p1", time.Time{}), time.Minute, 0, now.Add(time.Minute)},
		{"a nanosecond before the expiry", heldBy("p1", now.Add(1)), time.Minute, 0, now.Add(time.Minute)},
		{"with its token", heldBy("p1", after(time.Minute)), time.Hour, 100, now.Add(time.Hour)},
		{"for the ninth time", renewed(8, heldBy("p1", after(time.Minute))), time.Hour, 0, now.Add(time.Hour)},

		{"to before its minimum", minimum(after(time.Hour), after(time.Minute)), time.Second, 0, after(time.Minute)},
		{
			"to before its minimum, without expiry",
			minimum(time.Time{}, after(time.Minute)), time.Second, 0, after(time.Minute),
		},
		{
			"to a nanosecond before its minimum",
			minimum(after(time.Hour), now.Add(time.Second+1)), time.Second, 0, now.Add(time.Second + 1),
		},
		{"to exactly its minimum", minimum(after(time.Hour), now.Add(time.Second)), time.Second, 0, now.Add(time.Second)},
		{"to after its minimum", minimum(after(time.Hour), now.Add(time.Second-1)), time.Second, 0, now.Add(time.Second)},
		{"to no expiry", heldBy("p1", after(time.Minute)), 0, 100, time.Time{}},
		{"to no expiry, of a hold without expiry", heldBy("p1", time.Time{}), 0, 0, time.Time{}},
		{"to no expiry, within its minimum", minimum(after(time.Hour), after(time.Minute)), 0, 0, time.Time{}},
		{
			"when its minimum has passed",
			minimum(after(time.Hour), after(time.Millisecond)), time.Minute, 0, now.Add(time.Minute),
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := test.before.Holds[0]
			want.ExpiresAt, want.RenewedAt, want.Renewals = test.expires, now, want.Renewals+1
			c := lock.Renew{Resource: "r", ProcessID: "p1", TTL: test.ttl, Token: test.token}
			out, err := decide(t, c, now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "outcome", changing(holding(want), lock.Outcome{Now: now, Hold: want}), out) // no event
		})
	}
}

// A renewal never creates, revives or steals a hold.
func TestRenewRefused(t *testing.T) {
	now := after(time.Second)
	minimum := keptByMinimum()
	minimum.Holds[0].ReleasedAt = now
	tests := []struct {
		name    string
		before  lock.Resource
		process string
		token   int64
		reason  lock.NotHeldReason
	}{
		{"expires now", heldBy("p1", now), "p1", 0, lock.ReasonExpired},
		{"expired, with its token", heldBy("p1", after(time.Millisecond)), "p1", 100, lock.ReasonExpired},
		{"expired, with an earlier token", heldBy("p1", after(time.Millisecond)), "p1", 99, lock.ReasonUnknown},
		{"another's that expired", heldBy("p1", after(time.Millisecond)), "p2", 0, lock.ReasonUnknown},
		{"held by another", heldBy("p1", time.Time{}), "p2", 0, lock.ReasonUnknown},
		{"held by another, with its token", heldBy("p1", time.Time{}), "p2", 100, lock.ReasonUnknown},
		{"a process id that differs in case", heldBy("p1", time.Time{}), "P1", 0, lock.ReasonUnknown},
		{"with an earlier token", heldBy("p1", time.Time{}), "p1", 99, lock.ReasonTokenMismatch},
		{"with a token never given", heldBy("p1", time.Time{}), "p1", 101, lock.ReasonTokenMismatch},
		{"released within its minimum", minimum, "p1", 0, lock.ReasonReleased},
		{"released within its minimum, with its token", minimum, "p1", 100, lock.ReasonReleased},
		{"released within its minimum, with an earlier token", minimum, "p1", 99, lock.ReasonUnknown},
		{"released by another within its minimum", minimum, "p2", 100, lock.ReasonUnknown},
		{"released before", released(100), "p1", 0, lock.ReasonUnknown},
		{"never held", lock.Resource{Name: "r"}, "p1", 0, lock.ReasonUnknown},
		{"no process id on a free resource", lock.Resource{Name: "r"}, "", 0, lock.ReasonUnknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := lock.Renew{Resource: "r", ProcessID: test.process, TTL: time.Hour, Token: test.token}
			out, err := decide(t, c, now, test.before)
			wantError(t, &lock.NotHeldError{Resource: "r", ProcessID: test.process, Reason: test.reason}, out, err)
		})
	}
}

func TestRenewAllRenewsOnlyItsOwnHolds(t *testing.T) {
	now := after(30 * time.Second)
	before := processHolds(now)
	out, err := lock.RenewAll{Names: namesOf(before), ProcessID: "p1", TTL: time.Second}.Decide(now, before)
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Outcome{Now: now, Endless: []lock.HoldRef{{Resource: "forever", Token: 100}}}
	expires := map[int]time.Time{3: after(time.Minute), 7: now.Add(time.Second)}
	for _, i := range []int{3, 7} { // in the order of the names
		r := before[i]
		hold := r.Holds[0]
		hold.ExpiresAt, hold.RenewedAt, hold.Renewals = expires[i], now, hold.Renewals+1
		r.Holds = []lock.Hold{hold}
		want.Changed = append(want.Changed, r)
		want.Holds = append(want.Holds, lock.HoldRef{Resource: r.Name, Token: 100})
	}
	wantEqual(t, "outcome", want, out)
}

// A renewal has no event. Instead the event of the end of the hold has the number of
// renewals.
func TestEndOfAHoldHasTheNumberOfRenewals(t *testing.T) {
	r := heldBy("p1", after(time.Minute))
	now := t0
	for range 3 {
		now = now.Add(30 * time.Second)
		out, err := decide(t, lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Minute}, now, r)
		if err != nil {
			t.Fatal(err)
		}
		r = out.Changed[0]
	}
	tests := []struct {
		name    string
		command lock.Command
		now     time.Time
		kind    lock.EventKind
	}{
		{"released", lock.Release{Resource: "r", ProcessID: "p1"}, now, lock.EventReleased},
		{"released with all", lock.ReleaseAll{Names: []string{"r"}, ProcessID: "p1"}, now, lock.EventReleased},
		{"force-released", lock.ForceRelease{Resource: "r"}, now, lock.EventForceReleased},
		{"expired", lock.ExpireAndGrant{Names: []string{"r"}}, now.Add(time.Minute), lock.EventExpired},
		{
			"expired, found by an acquire",
			lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p2"}},
			now.Add(time.Minute), lock.EventExpired,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, test.command, test.now, r)
			if err != nil || len(out.Events) == 0 {
				t.Fatalf("got %d events, %v, want the end of the hold", len(out.Events), err)
			}
			wantEqual(t, "event", lock.Event{
				Kind: test.kind, At: test.now, Resource: "r", ProcessID: "p1", Token: 100, Since: t0, Renewals: 3,
			}, out.Events[0])
		})
	}
}
