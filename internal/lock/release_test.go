package lock_test

import (
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// kept is a resource that p1 took at t0, with a minimum of a minute, and released ten seconds later.
func kept() lock.Resource {
	r := heldBy("p1", after(time.Minute))
	r.Holds[0].MinHoldUntil, r.Holds[0].ReleasedAt = after(time.Minute), after(10*time.Second)
	r.Holds[0].RequestID = "id-1"
	return r
}

// renewed is a hold's resource with some renewals, which the event of its end tells.
func renewed(times int, r lock.Resource) lock.Resource {
	r.Holds[0].Renewals, r.Holds[0].RenewedAt = times, after(time.Millisecond)
	return r
}

func TestRelease(t *testing.T) {
	tests := []struct {
		name    string
		before  lock.Resource
		process string
		token   int64
		granted bool
		why     lock.NotHeldReason
	}{
		{"held forever", heldBy("p1", time.Time{}), "p1", 0, true, 0},
		{"held for a while", heldBy("p1", after(time.Minute)), "p1", 0, true, 0},
		{"renewed", renewed(3, heldBy("p1", after(time.Minute))), "p1", 0, true, 0},
		{"a nanosecond before it expires", heldBy("p1", after(time.Second+1)), "p1", 0, true, 0},
		{"expired at this very moment", heldBy("p1", after(time.Second)), "p1", 0, false, lock.ReasonExpired},
		{"expired before", heldBy("p1", after(time.Millisecond)), "p1", 0, false, lock.ReasonExpired},
		{"another's that expired", heldBy("p1", after(time.Millisecond)), "p2", 0, false, lock.ReasonUnknown},
		{"another's that expired, with its token", heldBy("p1", after(time.Millisecond)), "p2", 100, false, lock.ReasonUnknown},
		{"held by another", heldBy("p1", time.Time{}), "p2", 0, false, lock.ReasonUnknown},
		{"a process id that differs in case", heldBy("p1", time.Time{}), "P1", 0, false, lock.ReasonUnknown},
		{"released before", freed(100), "p1", 0, false, lock.ReasonUnknown},
		{"never held", lock.Resource{Name: "r"}, "p1", 0, false, lock.ReasonUnknown},
		{"no process id on a free resource", lock.Resource{Name: "r"}, "", 0, false, lock.ReasonUnknown},

		{"with its token", heldBy("p1", time.Time{}), "p1", 100, true, 0},
		{"with an earlier token", heldBy("p1", time.Time{}), "p1", 99, false, lock.ReasonTokenMismatch},
		{"with a token never given", heldBy("p1", time.Time{}), "p1", 101, false, lock.ReasonTokenMismatch},
		{"another's token does not help", heldBy("p1", time.Time{}), "p2", 100, false, lock.ReasonUnknown},
		{"a token that is not another's either", heldBy("p1", time.Time{}), "p2", 99, false, lock.ReasonUnknown},
		{"expired, with its token", heldBy("p1", after(time.Second)), "p1", 100, false, lock.ReasonExpired},
		{"expired, with an earlier token", heldBy("p1", after(time.Second)), "p1", 99, false, lock.ReasonUnknown},
		{"released before, with its token", freed(100), "p1", 100, false, lock.ReasonUnknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			out, err := decide(lock.Release{Resource: "r", ProcessID: test.process, Token: test.token}, now, test.before)
			if !test.granted {
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: test.process, Why: test.why}, out, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			hold := test.before.Holds[0]
			wantEqual(t, "outcome", lock.Outcome{Now: now, Hold: hold, Changed: []lock.Resource{
				{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{}, Last: hold, EndedAt: now},
			}, Events: []lock.Event{told(lock.EventReleased, hold, now)}}, out)
		})
	}
}

func TestReleaseWithAMinimum(t *testing.T) {
	tests := []struct {
		name    string
		expires time.Time
		minimum time.Time
		kept    bool
	}{
		{"long before", after(2 * time.Minute), after(time.Minute), true},
		{"a nanosecond before", after(time.Minute), after(time.Second + 1), true},
		{"without expiry", time.Time{}, after(time.Minute), true},
		{"as long as the TTL", after(time.Minute), after(time.Minute), true},
		{"exactly at its end", after(time.Minute), after(time.Second), false},
		{"after it", after(time.Minute), after(time.Millisecond), false},
		{"after it, without expiry", time.Time{}, after(time.Millisecond), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			before := renewed(2, heldBy("p1", test.expires))
			before.Holds[0].MinHoldUntil = test.minimum
			released := told(lock.EventReleased, before.Holds[0], now)
			out, err := decide(lock.Release{Resource: "r", ProcessID: "p1", Token: 100}, now, before)
			if err != nil {
				t.Fatal(err)
			}
			hold := before.Holds[0]
			want := lock.Resource{ID: 7, Name: "r", Token: 100}
			if test.kept {
				hold.ReleasedAt, hold.ExpiresAt = now, test.minimum
				want.Holds = []lock.Hold{hold}
			} else {
				want.Holds, want.Last, want.EndedAt = []lock.Hold{}, hold, now
			}
			wantEqual(t, "outcome", lock.Outcome{
				Now: now, Hold: hold, Changed: []lock.Resource{want}, Events: []lock.Event{released},
			}, out)
		})
	}
}

// Until its minimum has passed nobody, its process included, has the resource; from then on it is free.
func TestReleasedHoldKeptByItsMinimum(t *testing.T) {
	until := after(time.Minute)
	hold := kept().Holds[0]
	gone := lock.Resource{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{}, Last: hold, EndedAt: until}
	again := lock.Hold{ProcessID: "p2", Token: t0Token + 60e6, LockedAt: until}
	broken := told(lock.EventForceReleased, hold, until.Add(-1))
	broken.Reason = "why"
	ended := gone
	ended.EndedAt = until.Add(-1)
	held := &lock.HeldError{Resource: "r", Holder: hold, Now: until.Add(-1)}
	notHeld := &lock.NotHeldError{Resource: "r", ProcessID: "p1", Why: lock.ReasonReleased}
	unknown := &lock.NotHeldError{Resource: "r", ProcessID: "p1"}
	tests := []struct {
		name    string
		command lock.Command
		now     time.Time
		want    lock.Outcome
		refusal error
	}{
		{"acquire by another, a nanosecond before", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p2"}}, until.Add(-1), lock.Outcome{}, held},
		{"acquire by its process", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1"}}, until.Add(-1), lock.Outcome{}, held},
		{"acquire with its id", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p1", RequestID: "id-1"}}, until.Add(-1), lock.Outcome{}, held},
		{"acquire at the end", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p2"}}, until, lock.Outcome{
			Now: until, Hold: again, Changed: []lock.Resource{{ID: 7, Name: "r", Token: again.Token, Holds: []lock.Hold{again}}},
			Events: []lock.Event{told(lock.EventAcquired, again, until)}, // and none of an expiry: its release has been told
		}, nil},
		{"second release", lock.Release{Resource: "r", ProcessID: "p1"}, until.Add(-1), lock.Outcome{}, notHeld},
		{"second release with the token", lock.Release{Resource: "r", ProcessID: "p1", Token: 100}, until.Add(-1), lock.Outcome{}, notHeld},
		{"second release with another token", lock.Release{Resource: "r", ProcessID: "p1", Token: 99}, until.Add(-1), lock.Outcome{}, unknown},
		{"second release at the end", lock.Release{Resource: "r", ProcessID: "p1"}, until, lock.Outcome{}, notHeld},
		{"renew", lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour}, until.Add(-1), lock.Outcome{}, notHeld},
		{"renew with the token", lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour, Token: 100}, until.Add(-1), lock.Outcome{}, notHeld},
		{"release all", lock.ReleaseAll{Names: []string{"r"}, ProcessID: "p1"}, until.Add(-1), lock.Outcome{Now: until.Add(-1)}, nil},
		{"renew all", lock.RenewAll{Names: []string{"r"}, ProcessID: "p1", TTL: time.Hour}, until.Add(-1), lock.Outcome{Now: until.Add(-1)}, nil},
		{"force-release", lock.ForceRelease{Resource: "r", Reason: "why"}, until.Add(-1), lock.Outcome{
			Now: until.Add(-1), Hold: hold, Changed: []lock.Resource{ended}, Events: []lock.Event{broken},
		}, nil},
		{"expire, a nanosecond before", lock.ExpireAndGrant{Names: []string{"r"}}, until.Add(-1), lock.Outcome{Now: until.Add(-1)}, nil},
		{"expire at the end", lock.ExpireAndGrant{Names: []string{"r"}}, until, lock.Outcome{Now: until, Changed: []lock.Resource{gone}}, nil},
		{"expire later", lock.ExpireAndGrant{Names: []string{"r"}}, until.Add(time.Hour), lock.Outcome{
			Now: until.Add(time.Hour), Changed: []lock.Resource{gone},
		}, nil},
		{"forget", lock.DeleteIdle{Names: []string{"r"}, Before: until.Add(time.Hour)}, until, lock.Outcome{Now: until}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(test.command, test.now, kept())
			wantEqual(t, "refusal", test.refusal, err)
			wantEqual(t, "outcome", test.want, out)
		})
	}
}

func TestReleaseAllEndsOnlyItsOwnHolds(t *testing.T) {
	now := after(30 * time.Second)
	within := named("within its minimum", heldBy("p1", time.Time{}))
	within.Holds[0].MinHoldUntil = after(time.Minute)
	before := []lock.Resource{
		named("forever", heldBy("p1", time.Time{})), named("another's", heldBy("p2", time.Time{})),
		named("expired at this very moment", heldBy("p1", now)), within, named("released, kept", kept()), freed(100),
		{Name: "new"},
		named("for a while", renewed(4, heldBy("p1", after(time.Minute)))),
	}
	out, err := lock.ReleaseAll{Names: namesOf(before), ProcessID: "p1"}.Decide(now, before)
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Outcome{Now: now}
	for _, i := range []int{0, 3, 7} {
		r := before[i]
		event := told(lock.EventReleased, r.Holds[0], now)
		event.Resource = r.Name
		want.Events = append(want.Events, event)
		if i == 3 {
			hold := r.Holds[0]
			hold.ReleasedAt, hold.ExpiresAt = now, hold.MinHoldUntil
			r.Holds = []lock.Hold{hold}
		} else {
			r.Last, r.EndedAt, r.Holds = r.Holds[0], now, []lock.Hold{}
		}
		want.Changed = append(want.Changed, r)
	}
	wantEqual(t, "outcome", want, out)
}

func namesOf(resources []lock.Resource) []string {
	var names []string
	for _, r := range resources {
		names = append(names, r.Name)
	}
	return names
}

// Nothing to do is no reason to refuse.
func TestAllIsNeverRefused(t *testing.T) {
	for name, before := range map[string][]lock.Resource{"no names": nil, "others' only": {heldBy("p2", time.Time{})}} {
		t.Run(name, func(t *testing.T) {
			names := namesOf(before)
			for _, c := range []lock.Command{
				lock.ReleaseAll{Names: names, ProcessID: "p1"}, lock.RenewAll{Names: names, ProcessID: "p1", TTL: time.Hour},
			} {
				out, err := c.Decide(t0, before)
				if err != nil {
					t.Errorf("%T: %v", c, err)
				}
				wantEqual(t, "outcome", lock.Outcome{Now: t0}, out)
			}
		})
	}
}

func TestForceRelease(t *testing.T) {
	within := heldBy("p1", after(time.Hour))
	within.Holds[0].MinHoldUntil = after(time.Hour)
	tests := []struct {
		name   string
		before lock.Resource
		broken bool
	}{
		{"held forever", heldBy("p1", time.Time{}), true},
		{"held for a while", renewed(5, heldBy("p1", after(time.Minute))), true},
		{"within its minimum", within, true},
		{"a nanosecond before it expires", heldBy("p1", after(time.Second+1)), true},
		{"expired at this very moment", heldBy("p1", after(time.Second)), false},
		{"expired before", heldBy("p1", after(time.Millisecond)), false},
		{"released before", freed(100), false},
		{"never held", lock.Resource{Name: "r"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			out, err := decide(lock.ForceRelease{Resource: "r", Reason: "it hangs", By: "ops"}, now, test.before)
			if !test.broken {
				var refusal *lock.NotLockedError
				if !errors.As(err, &refusal) {
					t.Fatalf("got %v, want a NotLockedError", err)
				}
				wantEqual(t, "error", &lock.NotLockedError{Resource: "r"}, refusal)
				wantEqual(t, "outcome", lock.Outcome{}, out)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			hold := test.before.Holds[0]
			event := told(lock.EventForceReleased, hold, now)
			event.Reason, event.By = "it hangs", "ops" // and not why the hold was taken
			wantEqual(t, "outcome", lock.Outcome{Now: now, Hold: hold, Changed: []lock.Resource{
				{ID: 7, Name: "r", Token: 100, Holds: []lock.Hold{}, Last: hold, EndedAt: now},
			}, Events: []lock.Event{event}}, out)
		})
	}
}

// With a token, a force-release ends that very hold or nothing.
func TestForceReleaseOfACertainHold(t *testing.T) {
	for name, before := range map[string]lock.Resource{
		"held": heldBy("p1", time.Time{}), "kept by its minimum": kept(), "within its TTL": heldBy("p1", after(time.Minute)),
	} {
		t.Run(name, func(t *testing.T) {
			now := after(20 * time.Second)
			c := lock.ForceRelease{Resource: "r", Reason: "it hangs", By: "ops"}
			want, err := decide(c, now, before)
			if err != nil {
				t.Fatal(err)
			}
			c.Token = 100
			got, err := decide(c, now, before)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "with its token (-without +with)", want, got)
			for _, c.Token = range []int64{99, 101} {
				out, err := decide(c, now, before)
				var refusal *lock.OtherHoldError
				if !errors.As(err, &refusal) {
					t.Fatalf("token %d: got %v, want an OtherHoldError", c.Token, err)
				}
				wantEqual(t, "error", &lock.OtherHoldError{Resource: "r", Holder: before.Holds[0]}, refusal)
				wantEqual(t, "outcome", lock.Outcome{}, out)
			}
		})
	}
	for name, before := range map[string]lock.Resource{
		"released": freed(100), "expired": heldBy("p1", t0), "never held": {Name: "r"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decide(lock.ForceRelease{Resource: "r", Reason: "it hangs", Token: 100}, after(time.Second), before)
			if !errors.As(err, new(*lock.NotLockedError)) {
				t.Errorf("got %v, want a NotLockedError", err)
			}
		})
	}
}
