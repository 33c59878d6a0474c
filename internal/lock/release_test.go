package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestRelease(t *testing.T) {
	tests := []struct {
		name    string
		before  lock.Resource
		process string
		token   int64
		ok      bool
		reason  lock.NotHeldReason // if it is refused
	}{
		{"held without expiry", heldBy("p1", time.Time{}), "p1", 0, true, 0},
		{"held", heldBy("p1", after(time.Minute)), "p1", 0, true, 0},
		{"renewed", renewed(3, heldBy("p1", after(time.Minute))), "p1", 0, true, 0},
		{"a nanosecond before the expiry", heldBy("p1", after(time.Second+1)), "p1", 0, true, 0},
		{"expires now", heldBy("p1", after(time.Second)), "p1", 0, false, lock.ReasonExpired},
		{"expired", heldBy("p1", after(time.Millisecond)), "p1", 0, false, lock.ReasonExpired},
		{"another's that expired", heldBy("p1", after(time.Millisecond)), "p2", 0, false, lock.ReasonUnknown},
		{"another's that expired, its token", heldBy("p1", after(time.Millisecond)), "p2", 100, false, lock.ReasonUnknown},
		{"held by another", heldBy("p1", time.Time{}), "p2", 0, false, lock.ReasonUnknown},
		{"a process id that differs in case", heldBy("p1", time.Time{}), "P1", 0, false, lock.ReasonUnknown},
		{"released before", released(100), "p1", 0, false, lock.ReasonUnknown},
		{"never held", lock.Resource{Name: "r"}, "p1", 0, false, lock.ReasonUnknown},
		{"no process id on a free resource", lock.Resource{Name: "r"}, "", 0, false, lock.ReasonUnknown},

		{"with its token", heldBy("p1", time.Time{}), "p1", 100, true, 0},
		{"with an earlier token", heldBy("p1", time.Time{}), "p1", 99, false, lock.ReasonTokenMismatch},
		{"with a token never given", heldBy("p1", time.Time{}), "p1", 101, false, lock.ReasonTokenMismatch},
		{"held by another, with its token", heldBy("p1", time.Time{}), "p2", 100, false, lock.ReasonUnknown},
		{"held by another, with an earlier token", heldBy("p1", time.Time{}), "p2", 99, false, lock.ReasonUnknown},
		{"expired, with its token", heldBy("p1", after(time.Second)), "p1", 100, false, lock.ReasonExpired},
		{"expired, with an earlier token", heldBy("p1", after(time.Second)), "p1", 99, false, lock.ReasonUnknown},
		{"released before, with its token", released(100), "p1", 100, false, lock.ReasonUnknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			c := lock.Release{Resource: "r", ProcessID: test.process, Token: test.token}
			out, err := decide(t, c, now, test.before)
			if !test.ok {
				wantError(t, &lock.NotHeldError{
					Resource: "r", ProcessID: test.process, Reason: test.reason,
				}, out, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			hold := test.before.Holds[0]
			wantEqual(t, "outcome", changing(ended(hold, now), lock.Outcome{
				Now: now, Hold: hold, Events: []lock.Event{holdEvent(lock.EventReleased, hold, now)},
			}), out)
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
		{"a minute before its end", after(2 * time.Minute), after(time.Minute), true},
		{"a nanosecond before its end", after(time.Minute), after(time.Second + 1), true},
		{"without expiry", time.Time{}, after(time.Minute), true},
		{"as long as the TTL", after(time.Minute), after(time.Minute), true},
		{"exactly at its end", after(time.Minute), after(time.Second), false},
		{"after its end", after(time.Minute), after(time.Millisecond), false},
		{"after its end, without expiry", time.Time{}, after(time.Millisecond), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := after(time.Second)
			before := renewed(2, heldBy("p1", test.expires))
			before.Holds[0].MinHoldUntil = test.minimum
			event := holdEvent(lock.EventReleased, before.Holds[0], now)
			out, err := decide(t, lock.Release{Resource: "r", ProcessID: "p1", Token: 100}, now, before)
			if err != nil {
				t.Fatal(err)
			}
			hold := before.Holds[0]
			want := ended(hold, now)
			if test.kept {
				hold.ReleasedAt, hold.ExpiresAt = now, test.minimum
				want = holding(hold)
			}
			wantEqual(t, "outcome", changing(want, lock.Outcome{
				Now: now, Hold: hold, Events: []lock.Event{event},
			}), out)
		})
	}
}

// Until the minimum has passed, no process has the resource, not even the one that
// released it. Then the resource is free.
func TestReleasedHoldKeptByItsMinimum(t *testing.T) {
	until := after(time.Minute)
	before := until.Add(-1)
	hold := keptByMinimum().Holds[0]
	next := lock.Hold{ProcessID: "p2", Token: t0Token + 60e6, LockedAt: until}
	forced := holdEvent(lock.EventForceReleased, hold, before)
	forced.Reason = "why"
	acquire := func(process, request string) lock.Acquire {
		return lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: process, RequestID: request}}
	}
	names := []string{"r"}
	held := &lock.HeldError{Resource: "r", Holder: &hold, Now: before}
	notHeld := &lock.NotHeldError{Resource: "r", ProcessID: "p1", Reason: lock.ReasonReleased}
	unknown := &lock.NotHeldError{Resource: "r", ProcessID: "p1"}
	tests := []struct {
		name    string
		command lock.Command
		now     time.Time
		want    lock.Outcome
		refusal error
	}{
		{"acquire by another, a nanosecond before", acquire("p2", ""), before, lock.Outcome{}, held},
		{"acquire by its process", acquire("p1", ""), before, lock.Outcome{}, held},
		{"acquire with its id", acquire("p1", "id-1"), before, lock.Outcome{}, held},
		{"acquire at the end", acquire("p2", ""), until, changing(holding(next), lock.Outcome{
			// The event of the release is the hold's last. There is none of an expiry.
			Now: until, Hold: next, Events: []lock.Event{holdEvent(lock.EventAcquired, next, until)},
		}), nil},
		{"second release", lock.Release{Resource: "r", ProcessID: "p1"}, before, lock.Outcome{}, notHeld},
		{
			"second release with the token",
			lock.Release{Resource: "r", ProcessID: "p1", Token: 100},
			before,
			lock.Outcome{},
			notHeld,
		},
		{
			"second release with another token",
			lock.Release{Resource: "r", ProcessID: "p1", Token: 99},
			before,
			lock.Outcome{},
			unknown,
		},
		{"second release at the end", lock.Release{Resource: "r", ProcessID: "p1"}, until, lock.Outcome{}, notHeld},
		{"renew", lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour}, before, lock.Outcome{}, notHeld},
		{
			"renew with the token",
			lock.Renew{Resource: "r", ProcessID: "p1", TTL: time.Hour, Token: 100},
			before,
			lock.Outcome{},
			notHeld,
		},
		{"release all", lock.ReleaseAll{Names: names, ProcessID: "p1"}, before, lock.Outcome{Now: before}, nil},
		{"renew all", lock.RenewAll{Names: names, ProcessID: "p1", TTL: time.Hour}, before, lock.Outcome{Now: before}, nil},
		{
			"force-release",
			lock.ForceRelease{Resource: "r", Reason: "why"},
			before,
			changing(ended(hold, before), lock.Outcome{Now: before, Hold: hold, Events: []lock.Event{forced}}), nil,
		},
		{"expire, a nanosecond before", lock.ExpireAndGrant{Names: names}, before, lock.Outcome{Now: before}, nil},
		{
			"expire at the end",
			lock.ExpireAndGrant{Names: names},
			until,
			changing(ended(hold, until), lock.Outcome{Now: until}), nil,
		},
		{
			"expire later",
			lock.ExpireAndGrant{Names: names},
			until.Add(time.Hour),
			changing(ended(hold, until), lock.Outcome{Now: until.Add(time.Hour)}), nil,
		},
		{
			"delete",
			lock.DeleteIdle{Names: names, Before: until.Add(time.Hour)},
			until,
			lock.Outcome{Now: until},
			nil,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := decide(t, test.command, test.now, keptByMinimum())
			wantEqual(t, "refusal", test.refusal, err)
			wantEqual(t, "outcome", test.want, out)
		})
	}
}

// processHolds returns resources in many states. The process p1 holds "forever", "within
// its minimum" and "for a while", which are those at 0, 3 and 7.
func processHolds(now time.Time) []lock.Resource {
	within := named("within its minimum", heldBy("p1", after(time.Hour)))
	within.Holds[0].MinHoldUntil = after(time.Minute)
	return []lock.Resource{
		named("forever", heldBy("p1", time.Time{})), named("another's", heldBy("p2", time.Time{})),
		named("expires now", heldBy("p1", now)), within, named("released, kept", keptByMinimum()), released(100),
		{Name: "new"},
		named("for a while", renewed(4, heldBy("p1", after(time.Minute)))),
	}
}

func TestReleaseAllEndsOnlyItsOwnHolds(t *testing.T) {
	now := after(30 * time.Second)
	before := processHolds(now)
	out, err := lock.ReleaseAll{Names: namesOf(before), ProcessID: "p1"}.Decide(now, before)
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Outcome{Now: now}
	for _, i := range []int{0, 3, 7} {
		r := before[i]
		want.Events = append(want.Events, of(r.Name, holdEvent(lock.EventReleased, r.Holds[0], now)))
		want.Holds = append(want.Holds, lock.HoldRef{Resource: r.Name, Token: 100})
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

// A command for all holds of a process can be restricted to some of them.
func TestOnlyListedHoldsAreReleasedAndRenewed(t *testing.T) {
	now := after(30 * time.Second)
	before := processHolds(now)
	ref := func(name string, token int64) lock.HoldRef { return lock.HoldRef{Resource: name, Token: token} }
	tests := []struct {
		name    string
		only    lock.Only
		holds   []lock.HoldRef // released or renewed
		endless []lock.HoldRef // with renew all
	}{
		{"empty", lock.Only{}, nil, nil},
		{"another token", lock.Only{ref("for a while", 99): true, ref("forever", 101): true}, nil, nil},
		{"another's", lock.Only{ref("another's", 100): true}, nil, nil},
		{"expired", lock.Only{ref("expires now", 100): true}, nil, nil},
		{"one", lock.Only{ref("for a while", 100): true}, []lock.HoldRef{ref("for a while", 100)}, nil},
		{"one without expiry", lock.Only{ref("forever", 100): true}, nil, []lock.HoldRef{ref("forever", 100)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := lock.RenewAll{
				Names: namesOf(before), ProcessID: "p1", TTL: time.Minute, Only: test.only,
			}.Decide(now, before)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "renewed", test.holds, out.Holds)
			wantEqual(t, "without expiry", test.endless, out.Endless)
			wantEqual(t, "number of changes", len(test.holds), len(out.Changed))

			out, err = lock.ReleaseAll{Names: namesOf(before), ProcessID: "p1", Only: test.only}.Decide(now, before)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "released", append(test.holds, test.endless...), out.Holds)
			wantEqual(t, "number of changes", len(out.Holds), len(out.Changed))
		})
	}
}

func TestReleaseAllAndRenewAllAreNeverRefused(t *testing.T) {
	for name, before := range map[string][]lock.Resource{
		"no names": nil, "others' only": {heldBy("p2", time.Time{})},
	} {
		t.Run(name, func(t *testing.T) {
			names := namesOf(before)
			for _, c := range []lock.Command{
				lock.ReleaseAll{Names: names, ProcessID: "p1"},
				lock.RenewAll{Names: names, ProcessID: "p1", TTL: time.Hour},
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
