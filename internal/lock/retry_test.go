package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// retry is p1's acquire of "r" with the RequestID of the hold of requested.
var retry = lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1"}}

func TestRepeatedAcquireGetsTheHoldThatItHas(t *testing.T) {
	forever := requested(func(h *lock.Hold) { h.ExpiresAt = time.Time{} })
	minimum := requested(func(h *lock.Hold) { h.MinHoldUntil = after(time.Minute) })
	withAll := retry
	withAll.TTL, withAll.MinHold, withAll.Reason, withAll.Metadata = time.Hour, time.Second, "second", `{"n":2}`
	tests := []struct {
		name    string
		before  lock.Resource
		command lock.Acquire
		now     time.Time
	}{
		{"at once", requested(nil), retry, t0},
		{"later", requested(nil), retry, after(time.Second)},
		{"a nanosecond before the expiry", requested(nil), retry, after(time.Minute - 1)},
		{"held without expiry", forever, retry, after(100 * 365 * 24 * time.Hour)},
		{"within its minimum, not released", minimum, retry, after(time.Second)},
		// The first answer may have reached the caller. It has to stay true.
		{"a different TTL, reason and metadata", requested(nil), withAll, after(time.Second)},
		{"clock set back to before the grant", requested(nil), retry, after(-time.Hour)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, test.command, test.now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			// Nothing changes, so there is nothing to store and no event.
			wantEqual(t, "outcome", lock.Outcome{
				Now: test.now, Hold: test.before.Holds[0], Resource: test.before,
			}, out)
		})
	}
}

// When two requests know of a hold, the disconnect of one of them does not end it.
func TestRepeatedAcquireTakesTheHoldFromItsConnection(t *testing.T) {
	tests := []struct {
		name              string
		connection, again int64
		want              int64
		repeated, changed bool
	}{
		{"another connection", 50, 51, 0, true, true},
		{"an unknown connection", 50, 0, 0, true, true},
		{"the same connection", 50, 50, 50, false, false},
		{"the hold has no connection", 0, 51, 0, true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := requested(func(h *lock.Hold) { h.Connection = test.connection })
			b := local(1, "b")
			c := retry
			c.Wait, c.Connection = time.Minute, test.again
			out, err := decide(t, c, t0, queued(r, b))
			h := r.Holds[0]
			h.Connection = test.want
			after := queued(holding(h), b)
			want := lock.Outcome{Now: t0, Hold: h, Resource: after, Repeated: test.repeated}
			if test.changed {
				want = changing(after, want)
			}
			wantOutcome(t, want, out, err)
		})
	}
}

func TestRequestIDIsNotMistaken(t *testing.T) {
	without := requested(func(h *lock.Hold) { h.RequestID = "" })
	minimum := requested(func(h *lock.Hold) {
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
		{"no id, held without one", without, "p1", ""},
		{"an id, held without one", without, "p1", "id-1"},
		// The caller has released the hold. If it got the hold again, it would work until
		// the minimum ends.
		{"released, kept by its minimum", minimum, "p1", "id-1"},
		{"released, kept by its minimum, and no id", minimum, "p1", ""},
		{"released, kept by its minimum, from another process", minimum, "p2", "id-1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			c := lock.Acquire{Request: lock.Request{
				Resource: "r", ProcessID: test.process, RequestID: test.requestID,
			}}
			out, err := decide(t, c, now, test.before)
			wantHeld(t, lock.HeldError{Holder: &test.before.Holds[0]}, now, out, err)
		})
	}
}

func TestRequestIDAcquiresAgainAfterTheEnd(t *testing.T) {
	hold := requested(nil).Holds[0]
	minimum := requested(func(h *lock.Hold) {
		h.ExpiresAt, h.MinHoldUntil, h.ReleasedAt = after(time.Second), after(time.Second), after(time.Millisecond)
	})
	now := after(time.Minute)
	tests := []struct {
		name   string
		before lock.Resource
		events []lock.Event // before the acquired one
	}{
		{"released or force-released", ended(hold, after(time.Second)), nil},
		{"expires now", requested(nil), []lock.Event{holdEvent(lock.EventExpired, hold, now)}},
		{"its minimum has passed", minimum, nil},
		{"deleted", lock.Resource{Name: "r", Token: 100}, nil},
		{"never held", lock.Resource{Name: "r"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, retry, now, test.before)
			if err != nil {
				t.Fatal(err)
			}
			want := lock.Hold{ProcessID: "p1", Token: t0Token + 60e6, LockedAt: now, RequestID: "id-1"}
			wantEqual(t, "hold", want, out.Hold)
			wantEqual(t, "events", append(test.events, holdEvent(lock.EventAcquired, want, now)), out.Events)
		})
	}
}
