package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestForceRelease(t *testing.T) {
	within := heldBy("p1", after(time.Hour))
	within.Holds[0].MinHoldUntil = after(time.Hour)
	reasoned := heldBy("p1", after(time.Hour))
	reasoned.Holds[0].Reason = "work"
	tests := []struct {
		name   string
		before lock.Resource
		ok     bool
	}{
		{"held without expiry", heldBy("p1", time.Time{}), true},
		{"held", renewed(5, heldBy("p1", after(time.Minute))), true},
		{"held for a reason", reasoned, true},
		{"within its minimum", within, true},
		{"a nanosecond before the expiry", heldBy("p1", after(time.Second+1)), true},
		{"expires now", heldBy("p1", after(time.Second)), false},
		{"expired", heldBy("p1", after(time.Millisecond)), false},
		{"released before", released(100), false},
		{"never held", lock.Resource{Name: "r"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			c := lock.ForceRelease{Resource: "r", Reason: "it hangs", By: "ops"}
			out, err := decide(t, c, now, test.before)
			if !test.ok {
				wantError(t, &lock.NotLockedError{Resource: "r"}, out, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			hold := test.before.Holds[0]
			event := holdEvent(lock.EventForceReleased, hold, now)
			event.Reason, event.By = "it hangs", "ops" // not the reason of the hold
			wantEqual(t, "outcome", changing(ended(hold, now), lock.Outcome{
				Now: now, Hold: hold, Events: []lock.Event{event},
			}), out)
		})
	}
}

// A force-release with a token ends the hold that has this token, or nothing.
func TestForceReleaseWithAToken(t *testing.T) {
	for name, before := range map[string]lock.Resource{
		"held":                heldBy("p1", time.Time{}),
		"kept by its minimum": keptByMinimum(),
		"within its TTL":      heldBy("p1", after(time.Minute)),
	} {
		t.Run(name, func(t *testing.T) {
			now := after(20 * time.Second)
			c := lock.ForceRelease{Resource: "r", Reason: "it hangs", By: "ops"}
			want, err := decide(t, c, now, before)
			if err != nil {
				t.Fatal(err)
			}
			c.Token = 100
			got, err := decide(t, c, now, before)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "with its token (-without +with)", want, got)
			for _, c.Token = range []int64{99, 101} {
				out, err := decide(t, c, now, before)
				wantError(t, &lock.OtherHoldError{Resource: "r", Holder: before.Holds[0]}, out, err)
			}
		})
	}
	for name, before := range map[string]lock.Resource{
		"released": released(100), "expired": heldBy("p1", t0), "never held": {Name: "r"},
	} {
		t.Run(name, func(t *testing.T) {
			c := lock.ForceRelease{Resource: "r", Reason: "it hangs", Token: 100}
			out, err := decide(t, c, after(time.Second), before)
			wantError(t, &lock.NotLockedError{Resource: "r"}, out, err)
		})
	}
}
