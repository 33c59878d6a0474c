package robust_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// A status reads what is committed, at its own time, and locks nothing. So it may state
// that a hold has expired while a renewal is being committed that was decided before the
// old end. No guarantee is broken: the acknowledged hold had expired. Both checkers
// accept that. The same answer from before the old end, or from after the renewal's
// answer, is a violation.
func TestStatusWhileARenewalIsCommitted(t *testing.T) {
	t.Parallel()
	const ttl = 500 * time.Millisecond
	r := robust.NewRun(t, robust.Config{Program: robust.Build(t)})
	databaseURL := testdb.Postgres(t)
	through, proxy := throughProxy(t, databaseURL)
	slow, other := r.Servers(1, through)[0], r.Servers(1, databaseURL)[0]
	holder, reader := r.Client(0, slow.URL), r.Client(1, other.URL)
	seemsFree := func() bool { // reports whether a status came in between
		held := holder.Acquire(t.Context(), robust.Operation{Resource: "r", Process: "p", TTL: ttl})
		if held.Outcome != robust.Done {
			t.Fatal(held)
		}
		r.Pause(ttl / 2)
		proxy.SetConditions(robust.NetworkConditions{Only: "commit\x00", Delay: ttl})
		defer proxy.SetConditions(robust.NetworkConditions{})
		renewing, renewed := context.WithCancel(t.Context())
		var renewal robust.Operation
		var work sync.WaitGroup
		work.Go(func() {
			defer renewed()
			renewal = holder.Renew(t.Context(), "r", "p", held.Holder.Token, time.Minute)
		})
		free := false
		var newcomer robust.Operation // requests the lock when a status says free
		for renewing.Err() == nil {
			o := reader.Status(t.Context(), "r")
			if free = o.Outcome == robust.Done && o.Holder == (robust.Hold{}); free {
				newcomer = reader.Acquire(t.Context(), robust.Operation{Resource: "r", Process: "newcomer"})
				break
			}
			r.Pause(10 * time.Millisecond)
		}
		work.Wait()
		if renewal.Outcome != robust.Done { // this machine was too slow
			reader.Release(t.Context(), "r", "newcomer", 0)
			return false
		}
		if free && newcomer.Outcome != robust.Refused {
			t.Errorf("after %v: %v", renewal, newcomer)
		}
		if o := reader.Status(t.Context(), "r"); o.Holder != renewal.Holder {
			t.Errorf("after %v: %v", renewal, o)
		}
		proxy.SetConditions(robust.NetworkConditions{})
		if o := holder.Release(t.Context(), "r", "p", held.Holder.Token); o.Outcome != robust.Done {
			t.Errorf("after %v: %v", renewal, o)
		}
		return free
	}
	apptest.Eventually(t, "a status says free while the hold is renewed", seemsFree)
	if found := violations(r.History.Operations()); len(found) > 0 {
		t.Error("false alarm: ", found)
	}

	tried, operations := 0, r.History.Operations()
	slowest := 10 * time.Millisecond
	for _, o := range operations {
		if o.Kind != robust.Renew {
			slowest = max(slowest, o.Returned-o.Called)
		}
	}
	for i, o := range operations {
		unanswered := slices.ContainsFunc(operations, func(renewal robust.Operation) bool {
			return renewal.Kind == robust.Renew && renewal.Holder == o.Holder && renewal.Returned > o.Called
		})
		// early enough before the old end that the clients know that the hold exists
		early := o.Holder.ExpiresAt.Sub(o.At) > 3*slowest
		if o.Kind != robust.Status || o.Holder == (robust.Hold{}) || unanswered || !early {
			continue
		}
		tried++
		changed := slices.Clone(operations)
		changed[i].Holder, changed[i].At = robust.Hold{}, time.Time{}
		if len(violations(changed)) == 0 {
			t.Errorf("no checker reports a status that says free: %v", o)
		}
	}
	if tried == 0 {
		t.Error("no status has shown the hold")
	}
}
