package lock_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
)

// requested is a resource that p1 took under the request id "id-1" for a minute, and has renewed.
func requested(change func(*lock.Hold)) lock.Resource {
	h := lock.Hold{
		ProcessID: "p1", Token: 100, LockedAt: t0, ExpiresAt: after(time.Minute), RequestID: "id-1",
		Reason: "first", Metadata: `{"n":1}`, RenewedAt: after(time.Millisecond), Renewals: 1,
	}
	if change != nil {
		change(&h)
	}
	return lock.Resource{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{h}}
}

func TestRepeatedAcquireGetsTheHoldThatItHas(t *testing.T) {
	forever := requested(func(h *lock.Hold) { h.ExpiresAt = time.Time{} })
	minimum := requested(func(h *lock.Hold) { h.MinHoldUntil = after(time.Minute) })
	repeated := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1"}}
	withAll := repeated
	withAll.TTL, withAll.MinHold, withAll.Reason, withAll.Metadata = time.Hour, time.Second, "second", `{"n":2}`
	tests := []struct {
		name    string
		before  lock.Resource
		command lock.Acquire
		now     time.Time
	}{
		{"at once", requested(nil), repeated, t0},
		{"later", requested(nil), repeated, after(time.Second)},
		{"a nanosecond before it expires", requested(nil), repeated, after(time.Minute - 1)},
		{"held forever", forever, repeated, after(100 * 365 * 24 * time.Hour)},
		{"within its minimum, not released", minimum, repeated, after(time.Second)},
		// The first answer may have reached the caller: nothing that it said may become wrong.
		{"asking for something else changes nothing", requested(nil), withAll, after(time.Second)},
		{"clock gone back before the grant", requested(nil), repeated, after(-time.Hour)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(test.command, test.now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			// Changed tells the row's id; there is no event, for nothing has happened.
			wantEqual(t, "outcome", lock.Outcome{
				Now: test.now, Hold: test.before.Holds[0], Changed: []lock.Resource{test.before},
			}, out)
		})
	}
}

func TestRequestIDIsNotMistaken(t *testing.T) {
	nameless := requested(func(h *lock.Hold) { h.RequestID = "" })
	released := requested(func(h *lock.Hold) {
		h.MinHoldUntil, h.ReleasedAt = after(time.Minute), after(time.Millisecond)
	})
	tests := []struct {
		name               string
		before             lock.Resource
		process, requestID string
	}{
		{"another process with the same id", requested(nil), "p2", "id-1"},
		{"a process whose name differs in case", requested(nil), "P1", "id-1"},
		{"another id", requested(nil), "p1", "id-2"},
		{"an id that differs in case", requested(nil), "p1", "ID-1"},
		{"no id", requested(nil), "p1", ""},
		{"no id, held without one", nameless, "p1", ""},
		{"an id, held without one", nameless, "p1", "id-1"},
		// Its caller gave it back: to say that it holds it would let it work until the minimum ends.
		{"released, kept by its minimum", released, "p1", "id-1"},
		{"released, kept by its minimum, and no id", released, "p1", ""},
		{"released, kept by its minimum, from another process", released, "p2", "id-1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			out, err := decide(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: test.process, RequestID: test.requestID}}, now, test.before)
			wantHeld(t, lock.HeldError{Resource: "r", Holder: test.before.Holds[0], Now: now}, out, err)
		})
	}
}

func TestRequestIDAcquiresAnewAfterTheEnd(t *testing.T) {
	hold := requested(nil).Holds[0]
	ended := lock.Resource{ID: 7, Name: "r", Token: 100, Last: hold, EndedAt: after(time.Second)}
	minimum := requested(func(h *lock.Hold) {
		h.ExpiresAt, h.MinHoldUntil, h.ReleasedAt = after(time.Second), after(time.Second), after(time.Millisecond)
	})
	now := after(time.Minute)
	tests := []struct {
		name   string
		before lock.Resource
		events []lock.Event // before the acquired one
	}{
		{"released or broken", ended, nil},
		{"expired at this very moment", requested(nil), []lock.Event{told(lock.EventExpired, hold, now)}},
		{"its minimum has passed", minimum, nil},
		{"forgotten", lock.Resource{Name: "r", Token: 100}, nil},
		{"never seen", lock.Resource{Name: "r"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1"}}, now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			want := lock.Hold{ProcessID: "p1", Token: t0Token + 60e6, LockedAt: now, RequestID: "id-1"}
			wantEqual(t, "hold", want, out.Hold)
			wantEqual(t, "events", append(test.events, told(lock.EventAcquired, want, now)), out.Events)
		})
	}
}

func TestAcquireKeepsWhatItWasTold(t *testing.T) {
	base := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1"}}
	granted := lock.Hold{ProcessID: "p1", Token: t0Token, LockedAt: t0}
	tests := []struct {
		name string
		ask  func(*lock.Acquire)
		want func(*lock.Hold)
	}{
		{"nothing", func(*lock.Acquire) {}, func(*lock.Hold) {}},
		{"request id", func(c *lock.Acquire) { c.RequestID = "id-1" }, func(h *lock.Hold) { h.RequestID = "id-1" }},
		{"reason", func(c *lock.Acquire) { c.Reason = "deploy" }, func(h *lock.Hold) { h.Reason = "deploy" }},
		{"metadata", func(c *lock.Acquire) { c.Metadata = `{"a":[1]}` }, func(h *lock.Hold) { h.Metadata = `{"a":[1]}` }},
		{
			"minimum without expiry", func(c *lock.Acquire) { c.MinHold = time.Second },
			func(h *lock.Hold) { h.MinHoldUntil = after(time.Second) },
		},
		{
			"minimum shorter than the TTL", func(c *lock.Acquire) { c.TTL, c.MinHold = time.Minute, time.Second },
			func(h *lock.Hold) { h.ExpiresAt, h.MinHoldUntil = after(time.Minute), after(time.Second) },
		},
		{
			"minimum as long as the TTL", func(c *lock.Acquire) { c.TTL, c.MinHold = time.Minute, time.Minute },
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
			// What an earlier hold was told must not come back.
			before := lock.Resource{ID: 7, Name: "r", Token: 100, Last: requested(nil).Holds[0], EndedAt: t0}
			out, err := decide(c, t0, before)
			if err != nil {
				t.Fatal(err)
			}
			event := told(lock.EventAcquired, want, t0)
			event.Reason = want.Reason
			wantEqual(t, "outcome", lock.Outcome{Now: t0, Hold: want, Changed: []lock.Resource{
				{ID: 7, Name: "r", Token: t0Token, Holds: []lock.Hold{want}},
			}, Events: []lock.Event{event}}, out)
		})
	}
}

func TestOwnedIsLiveAndNotReleased(t *testing.T) {
	tests := []struct {
		name        string
		hold        lock.Hold
		live, owned bool
	}{
		{"forever", lock.Hold{}, true, true},
		{"for a while", lock.Hold{ExpiresAt: after(1)}, true, true},
		{"expired at this very moment", lock.Hold{ExpiresAt: t0}, false, false},
		{"released, kept by its minimum", lock.Hold{ExpiresAt: after(1), ReleasedAt: t0}, true, false},
		{"released, and its minimum over", lock.Hold{ExpiresAt: t0, ReleasedAt: after(-1)}, false, false},
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
