package lock_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestNeedsOfCommands(t *testing.T) {
	acquire := acquireBy("p", 1)
	anonymous := acquire
	anonymous.RequestID = ""
	place := lock.Place{Resource: "r", ProcessID: "p", RequestID: "id-p"}
	r, several, places := []string{"r"}, []string{"b", "a"}, []lock.Place{place}
	morePlaces := []lock.Place{{Resource: "x"}, place, {Resource: "x"}}
	tests := []struct {
		name    string
		command lock.Command
		want    lock.Needs
	}{
		{"acquire", acquire, lock.Needs{Resources: r, Places: places}},
		{"acquire without a request id", anonymous, lock.Needs{Resources: r}},
		{"release", lock.Release{Resource: "r", ProcessID: "p"}, lock.Needs{Resources: r, MayFree: true}},
		{"renew", lock.Renew{Resource: "r", ProcessID: "p"}, lock.Needs{Resources: r, MayFree: true}},
		{"force-release", lock.ForceRelease{Resource: "r", Reason: "because"}, lock.Needs{Resources: r, MayFree: true}},
		{"renew all", lock.RenewAll{Names: several, ProcessID: "p"}, lock.Needs{Resources: several, MayFree: true}},
		{"release all", lock.ReleaseAll{Names: several, ProcessID: "p"}, lock.Needs{Resources: several, MayFree: true}},
		{"expire and grant", lock.ExpireAndGrant{Names: several}, lock.Needs{Resources: several, MayFree: true}},
		{"delete idle", lock.DeleteIdle{Names: several}, lock.Needs{Resources: several, MayFree: true}},
		{"time out", lock.TimeOut{Of: acquire}, lock.Needs{Resources: r, Places: places, MayFree: true}},
		{"disconnect", lock.Disconnect{Of: acquire}, lock.Needs{Resources: r, Places: places, MayFree: true}},
		{"disconnect without a request id", lock.Disconnect{Of: anonymous}, lock.Needs{Resources: r, MayFree: true}},
		{"drop orphan", lock.DropOrphan{Place: place}, lock.Needs{Resources: r, Places: places, MayFree: true}},
		{"remove abandoned", lock.RemoveAbandoned{Places: places}, lock.Needs{Resources: r, Places: places, MayFree: true}},
		{
			"remove abandoned, several resources",
			lock.RemoveAbandoned{Places: morePlaces},
			lock.Needs{Resources: []string{"r", "x"}, Places: morePlaces, MayFree: true},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantEqual(t, "needs", test.want, test.command.Needs())
		})
	}
}

func TestDueIsTheNextTimeOfATurn(t *testing.T) {
	alive := with(local(1, "a"), func(w *lock.Waiter) { w.AliveUntil = after(1) })
	tests := []struct {
		name string
		r    lock.Resource
		want time.Time
	}{
		{"held for a minute", heldForAMinute, after(time.Minute)},
		{"held for a minute, with a remote waiter", queued(heldForAMinute, remote(1, "a")), after(time.Minute)},
		{"held without expiry", queued(heldBy("holder", time.Time{}), remote(1, "a")), time.Time{}},
		{"released, kept by its minimum", keptByMinimum(), after(time.Minute)},
		{"free", free(), time.Time{}},
		{"expired", heldBy("holder", t0), time.Time{}},
		{"reserved for a remote waiter with a lease", queued(free(), remote(1, "a"), local(2, "b")), after(time.Hour)},
		{"reserved, behind a dead waiter", queued(free(), dead(1, "x"), remoteUntil(2, "a", after(2))), after(2)},
		{"reserved for a local waiter", queued(free(), local(1, "a"), remote(2, "b")), time.Time{}},
		{"reserved for a local waiter with a lease", queued(free(), alive), time.Time{}},
		{"no waiter is connected", queued(free(), detached(1, "a", after(1)), dead(2, "b")), time.Time{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.r.Due(t0); !got.Equal(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// The HTTP API answers with these texts as its detail. Clients of the Python version may
// look for them.
func TestRefusalTexts(t *testing.T) {
	holder := &lock.Hold{ProcessID: "y", Token: 1}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{
			"held", &lock.HeldError{Resource: "x", Holder: &lock.Hold{ProcessID: "y"}},
			"Resource 'x' is already locked by process 'y'",
		},
		{
			"held, with a waiter", &lock.HeldError{Resource: "x", Holder: holder, Next: "z"},
			"Resource 'x' is already locked by process 'y'",
		},
		{
			"held, with characters that a quoting verb would change",
			&lock.HeldError{Resource: `a"b\c'é`, Holder: &lock.Hold{ProcessID: "y"}},
			`Resource 'a"b\c'é' is already locked by process 'y'`,
		},
		{
			"superseded", &lock.HeldError{Resource: "x", Holder: holder, Kind: lock.Superseded},
			"A later request with the same request_id has taken the place of this one in the queue of resource 'x'",
		},
		{
			"superseded, free", &lock.HeldError{Resource: "x", Kind: lock.Superseded},
			"A later request with the same request_id has taken the place of this one in the queue of resource 'x'",
		},
		{
			"reserved", &lock.HeldError{Resource: "x", Next: "y"},
			"Resource 'x' is reserved for process 'y', which waits for it",
		},
		{
			"timed out, reserved", &lock.HeldError{Resource: "x", Next: "y", Kind: lock.TimedOut},
			"Resource 'x' is reserved for process 'y', which waits for it",
		},
		{
			"timed out", &lock.HeldError{Resource: "x", Holder: holder, Kind: lock.TimedOut},
			"Resource 'x' is still locked by process 'y'",
		},
		{
			"timed out, free by then", &lock.HeldError{Resource: "x", Kind: lock.TimedOut},
			"Resource 'x' was not granted",
		},
		{
			"place lost", &lock.PlaceLostError{Resource: "x"},
			"The place in the queue of resource 'x' was lost while this server could not reach the database: repeat the request",
		},
		{
			"queue full", &lock.QueueFullError{Resource: "x", Waiters: 3},
			"Too many requests wait already: there is no place left in the queue of resource 'x'",
		},
		{
			"not held", &lock.NotHeldError{Resource: "x", ProcessID: "y"},
			"No active lock found for resource 'x' by process 'y'",
		},
		{
			"not held with that token", &lock.NotHeldError{Resource: "x", ProcessID: "y", Reason: lock.ReasonTokenMismatch},
			"No active lock found for resource 'x' by process 'y' with this fencing token",
		},
		{
			"released before", &lock.NotHeldError{Resource: "x", ProcessID: "y", Reason: lock.ReasonReleased},
			"No active lock found for resource 'x' by process 'y'",
		},
		{
			"force-released", &lock.NotHeldError{Resource: "x", ProcessID: "y", Reason: lock.ReasonForceReleased},
			"No active lock found for resource 'x' by process 'y': it was force-released",
		},
		{"not locked", &lock.NotLockedError{Resource: "x"}, "Resource 'x' is not locked"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
