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

// A status reads what is committed, by the clock of that moment, and locks nothing. So it may
// say that a hold is over while a renewal, decided before the old end, is being committed after
// it. No guarantee is broken: what was acknowledged had ended. Both checkers accept that. The
// same answer from before the old end, or from after the renewal's answer, is a violation.
func TestStatusWhileARenewalIsCommitted(t *testing.T) {
	t.Parallel()
	const ttl = 500 * time.Millisecond
	r := robust.NewRun(t, robust.Config{Program: robust.Build(t)})
	databaseURL := testdb.Postgres(t)
	through, proxy := throughProxy(t, databaseURL)
	slow, other := r.Servers(1, through)[0], r.Servers(1, databaseURL)[0]
	holder, reader := r.Client(0, slow.URL), r.Client(1, other.URL)
	over := func() bool { // whether a status came between
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
		var newcomer robust.Operation // asks when a status says that nobody has the lock
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
	apptest.Eventually(t, "a status says that the hold is over while it is renewed", over)
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
		early := o.Holder.ExpiresAt.Sub(o.At) > 3*slowest // so early before the old end that the clients know
		if o.Kind != robust.Status || o.Holder == (robust.Hold{}) || unanswered || !early {
			continue
		}
		tried++
		changed := slices.Clone(operations)
		changed[i].Holder, changed[i].At = robust.Hold{}, time.Time{}
		if len(violations(changed)) == 0 {
			t.Errorf("nobody notices when a status says that the hold is over: %v", o)
		}
	}
	if tried == 0 {
		t.Error("no status has shown the hold")
	}
}
