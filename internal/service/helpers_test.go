package service_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
)

// t0 has nanoseconds, like Go's clocks. A token counts whole microseconds.
var t0 = time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)

const t0Token = 1782907200123456 // t0 in microseconds, written out so that a wrong unit shows

func after(d time.Duration) time.Time { return t0.Add(d) }

// heldBy returns a resource that the process has held since t0.
func heldBy(process string, expires time.Time) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{
		{ProcessID: process, Token: 100, LockedAt: t0, ExpiresAt: expires},
	}}
}

// freed returns a resource whose only hold ended a minute after t0.
func freed(token int64) lock.Resource {
	return lock.Resource{
		ID: 7, Name: "r", Token: token, EndedAt: after(time.Minute),
		Last: lock.Hold{ProcessID: "p1", Token: token, LockedAt: t0},
	}
}

// kept returns a resource whose hold was released before its minimum.
func kept() lock.Resource {
	r := heldBy("p1", after(time.Minute))
	r.Holds[0].MinHoldUntil, r.Holds[0].ReleasedAt = after(time.Minute), after(10*time.Second)
	r.Holds[0].RequestID = "id-1"
	return r
}

// named returns the resource under another name.
func named(name string, r lock.Resource) lock.Resource {
	r.Name = name
	return r
}

func kindsOf(events []lock.Event) []lock.EventKind {
	var kinds []lock.EventKind
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func wantEqual(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantNotHeld fails unless a command returned that error and no outcome.
func wantNotHeld(t *testing.T, want lock.NotHeldError, out lock.Outcome, err error) {
	t.Helper()
	var refusal *lock.NotHeldError
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a NotHeldError", err)
	}
	wantEqual(t, "error", &want, refusal)
	wantEqual(t, "outcome", lock.Outcome{}, out)
}
