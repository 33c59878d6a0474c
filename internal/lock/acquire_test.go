package lock_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
)

func TestAcquireGranted(t *testing.T) {
	deleted := released(100)
	deleted.Deleted = true
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
		{"created again above the floor", lock.Resource{Name: "r", Token: t0Token + 5}, t0, 0, t0Token + 6, time.Time{}},
		{"released before", released(100), t0, 0, t0Token, time.Time{}},
		{"deleted in the same transaction", deleted, t0, 0, t0Token, time.Time{}},
		{"expires now", heldBy("p1", t0), t0, time.Hour, t0Token, after(time.Hour)},
		{"expired an hour ago", heldBy("p1", after(-time.Hour)), t0, 0, t0Token, time.Time{}},
		{"the same process after its hold expired", heldBy("p2", t0), t0, 0, t0Token, time.Time{}},
		{"token one below the clock", released(t0Token - 1), t0, 0, t0Token, time.Time{}},
		{"token equal to the clock", released(t0Token), t0, 0, t0Token + 1, time.Time{}},
		{"clock set back", released(t0Token), after(-time.Hour), 0, t0Token + 1, time.Time{}},
		{"clock before 1970", lock.Resource{Name: "r"}, time.Unix(-5, 0), 0, 1, time.Time{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p2", TTL: test.ttl}}
			out, err := decide(t, c, test.now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			hold := lock.Hold{ProcessID: "p2", Token: test.token, LockedAt: test.now, ExpiresAt: test.expires}
			var events []lock.Event
			for _, expired := range test.before.Holds { // the expiry comes first, with its own time
				events = append(events, holdEvent(lock.EventExpired, expired, expired.ExpiresAt))
			}
			events = append(events, holdEvent(lock.EventAcquired, hold, test.now))
			// Last and EndedAt are zero while the resource is held.
			held := lock.Resource{ID: test.before.ID, Name: "r", Token: test.token, Holds: []lock.Hold{hold}}
			wantEqual(t, "outcome", changing(held, lock.Outcome{Now: test.now, Hold: hold, Events: events}), out)
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
		{"held without expiry", time.Time{}, "p2", after(100 * 365 * 24 * time.Hour)},
		{"held", after(time.Minute), "p2", after(time.Second)},
		{"a nanosecond before the expiry", after(time.Minute), "p2", after(time.Minute - 1)},
		{"by the holder itself", after(time.Minute), "p1", after(time.Second)},
		{"clock set back to before the grant", after(time.Minute), "p2", after(-time.Hour)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := heldBy("p1", test.expires)
			c := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: test.process, TTL: time.Hour}}
			out, err := decide(t, c, test.now, before)
			wantHeld(t, lock.HeldError{Holder: &before.Holds[0]}, test.now, out, err)
		})
	}
}

func TestHoldHasWhatTheRequestAskedFor(t *testing.T) {
	base := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1"}}
	granted := lock.Hold{ProcessID: "p1", Token: t0Token, LockedAt: t0}
	tests := []struct {
		name string
		ask  func(*lock.Acquire)
		want func(*lock.Hold)
	}{
		{"nothing", func(*lock.Acquire) {}, func(*lock.Hold) {}},
		{"request id", func(c *lock.Acquire) { c.RequestID = "id-1" }, func(h *lock.Hold) { h.RequestID = "id-1" }},
		{"connection", func(c *lock.Acquire) { c.Connection = 5 }, func(h *lock.Hold) { h.Connection = 5 }},
		{"reason", func(c *lock.Acquire) { c.Reason = "deploy" }, func(h *lock.Hold) { h.Reason = "deploy" }},
		{"metadata", func(c *lock.Acquire) { c.Metadata = `{"a":[1]}` }, func(h *lock.Hold) { h.Metadata = `{"a":[1]}` }},
		{
			"minimum without expiry",
			func(c *lock.Acquire) { c.MinHold = time.Second },
			func(h *lock.Hold) { h.MinHoldUntil = after(time.Second) },
		},
		{
			"minimum shorter than the TTL",
			func(c *lock.Acquire) { c.TTL, c.MinHold = time.Minute, time.Second },
			func(h *lock.Hold) { h.ExpiresAt, h.MinHoldUntil = after(time.Minute), after(time.Second) },
		},
		{
			"minimum equal to the TTL",
			func(c *lock.Acquire) { c.TTL, c.MinHold = time.Minute, time.Minute },
			func(h *lock.Hold) { h.ExpiresAt, h.MinHoldUntil = after(time.Minute), after(time.Minute) },
		},
		{
			"everything",
			func(c *lock.Acquire) {
				c.TTL, c.MinHold, c.RequestID, c.Reason, c.Metadata = time.Minute, time.Second, "id", "why", "{}"
			},
			func(h *lock.Hold) {
				h.ExpiresAt, h.MinHoldUntil = after(time.Minute), after(time.Second)
				h.RequestID, h.Reason, h.Metadata = "id", "why", "{}"
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, want := base, granted
			test.ask(&c)
			test.want(&want)
			// Nothing of the earlier hold is in the new one.
			out, err := decide(t, c, t0, ended(requested(nil).Holds[0], t0))
			if err != nil {
				t.Fatal(err)
			}
			event := holdEvent(lock.EventAcquired, want, t0)
			event.Reason = want.Reason
			wantEqual(t, "outcome", changing(holding(want), lock.Outcome{
				Now: t0, Hold: want, Events: []lock.Event{event},
			}), out)
		})
	}
}

func TestOwnedIsLiveAndNotReleased(t *testing.T) {
	tests := []struct {
		name        string
		hold        lock.Hold
		live, owned bool
	}{
		{"without expiry", lock.Hold{}, true, true},
		{"with an expiry", lock.Hold{ExpiresAt: after(1)}, true, true},
		{"expires now", lock.Hold{ExpiresAt: t0}, false, false},
		{"released, kept by its minimum", lock.Hold{ExpiresAt: after(1), ReleasedAt: t0}, true, false},
		{"released, and its minimum has passed", lock.Hold{ExpiresAt: t0, ReleasedAt: after(-1)}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, want := []bool{test.hold.Live(t0), test.hold.Owned(t0)}, []bool{test.live, test.owned}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("live, owned (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutcomeNamesTheGrant(t *testing.T) {
	hold := heldForAMinute.Holds[0]
	acquire := acquireBy("holder", 5)
	out := lock.Outcome{
		Now: t0, Resource: heldForAMinute, Hold: hold, Repeated: true, Ticket: 3,
		Granted: []lock.Grant{{To: lock.Acquire{Request: lock.Request{Resource: "s"}}}},
	}
	wantEqual(t, "grant", lock.Grant{
		ID: 7, Now: t0, Hold: hold, To: acquire, Repeated: true, Ticket: 3,
	}, out.Grant(acquire))

	out.AssignIDs(func(resource string) int64 { return map[string]int64{"r": 8, "s": 9}[resource] })
	wantEqual(t, "ids", []int64{8, 9}, []int64{out.Resource.ID, out.Granted[0].ID})
}
