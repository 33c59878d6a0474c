package lock_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// drawQueue is a queue with waiters of all kinds, as one server sees it.
func drawQueue(t *rapid.T) []*lock.Waiter {
	kinds := []func(int64, string) *lock.Waiter{
		here, here, elsewhere, dead,
		func(n int64, p string) *lock.Waiter { return away(n, p, after(step)) },
		func(n int64, p string) *lock.Waiter { return away(n, p, t0) },
	}
	var queue []*lock.Waiter
	for n := range rapid.IntRange(0, 9).Draw(t, "waiters") {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		queue = append(queue, kind(int64(n+1), fmt.Sprintf("w%d", n+1)))
	}
	return queue
}

// drawResource is free, or held by "holder" in some state.
func drawResource(t *rapid.T) lock.Resource {
	released := heldBy("holder", after(step))
	released.Holds[0].ReleasedAt, released.Holds[0].MinHoldUntil = t0, after(step)
	minimum := heldBy("holder", after(step))
	minimum.Holds[0].MinHoldUntil = after(step)
	inConnection := heldBy("holder", after(step))
	inConnection.Holds[0].RequestID, inConnection.Holds[0].Connection = "id-holder", 70
	r := rapid.SampledFrom([]lock.Resource{
		free(), freed(100), heldBy("holder", time.Time{}), heldBy("holder", t0), released, minimum, inConnection,
	}).Draw(t, "resource")
	return queued(r, drawQueue(t)...)
}

// drawBatch are commands of one transaction about the resource, by anybody who may be in the queue or not.
func drawBatch(t *rapid.T, r lock.Resource) []lock.Command {
	var batch []lock.Command
	for range rapid.IntRange(1, 6).Draw(t, "commands") {
		some := asking("holder", 70)
		if len(r.Queue) > 0 && rapid.IntRange(0, 4).Draw(t, "whose") > 0 {
			some = rapid.SampledFrom(r.Queue).Draw(t, "waiter").Request
		}
		var c lock.Command
		switch rapid.SampledFrom([]string{"come", "come back", "again", "leave", "release", "break", "settle", "vacate", "renew"}).Draw(t, "command") {
		case "come":
			ask := asking(rapid.SampledFrom([]string{"new", "newer"}).Draw(t, "newcomer"), rapid.Int64Range(80, 83).Draw(t, "connection"))
			ask.Wait = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "wait")
			c = ask
		case "come back":
			some.Connection = rapid.Int64Range(84, 86).Draw(t, "connection")
			some.Wait = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "wait")
			c = some
		case "again":
			some.Requeued = true
			c = some
		case "leave":
			leave := lock.Leave{Request: some, Ticket: 1, Gone: rapid.Bool().Draw(t, "gone"), Why: "because"}
			leave.Keep = step * time.Duration(rapid.IntRange(0, 1).Draw(t, "keep"))
			if i := slices.IndexFunc(r.Queue, func(w *lock.Waiter) bool { return w.Request == some }); i >= 0 {
				leave.Ticket = r.Queue[i].Ticket
				// Only the server of a waiter lets it leave.
				if !r.Queue[i].Local {
					continue
				}
			}
			leave.Place = leave.Gone && rapid.Bool().Draw(t, "place only")
			c = leave
		case "release":
			c = lock.Release{Resource: "r", ProcessID: some.ProcessID}
		case "break":
			c = lock.ForceRelease{Resource: "r"}
		case "settle":
			c = lock.ExpireAndGrant{Names: []string{"r"}}
		case "vacate":
			c = lock.RemoveAbandoned{Gone: []lock.Place{{Resource: "r", ProcessID: some.ProcessID, RequestID: some.RequestID}}, Keep: 0}
		case "renew":
			c = lock.Renew{Resource: "r", ProcessID: some.ProcessID, TTL: step}
		}
		batch = append(batch, c)
	}
	return batch
}

// window is what a store may load of a queue for a batch: see lock.Command.
func window(r lock.Resource, batch []lock.Command) []*lock.Waiter {
	connected := 2
	named := map[lock.Place]bool{}
	for _, c := range batch {
		if lock.HandsOver(c) {
			connected++
		}
		if placed, names := c.(lock.Placed); names {
			for _, p := range placed.Places() {
				named[p] = true
			}
		}
	}
	var loaded []*lock.Waiter
	for _, w := range r.Queue {
		there := w.DetachedUntil.IsZero() && (w.Local || w.AliveUntil.After(t0))
		if there && connected > 0 || named[lock.Place{Resource: "r", ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID}] {
			loaded = append(loaded, w)
		}
		if there {
			connected--
		}
	}
	return loaded
}

// A store need not load the whole queue: with what it loads the commands decide the same, and leave the rest as it is.
func TestWindowOfTheQueueDecidesAsAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := drawResource(t)
		batch := drawBatch(t, whole)
		part := whole
		part.Queue = window(whole, batch)
		rest := slices.DeleteFunc(slices.Clone(whole.Queue), func(w *lock.Waiter) bool { return slices.Contains(part.Queue, w) })
		for _, c := range batch {
			wantOut, wantErr := decide(c, t0, whole)
			gotOut, gotErr := decide(c, t0, part)
			for _, r := range wantOut.Changed {
				whole = r
			}
			for _, r := range gotOut.Changed {
				part = r
			}
			// What was not loaded is where it was; without it both queues are the same.
			var left []*lock.Waiter
			for _, w := range whole.Queue {
				if !slices.Contains(rest, w) {
					left = append(left, w)
				}
			}
			if missing := len(rest) - (len(whole.Queue) - len(left)); missing != 0 {
				t.Fatalf("%#v touched %d waiters that were not loaded", c, missing)
			}
			for i := range wantOut.Changed {
				wantOut.Changed[i].Queue = left
			}
			if diff := cmp.Diff(wantErr, gotErr); diff != "" {
				t.Fatalf("%#v: error (-whole +window):\n%s", c, diff)
			}
			if diff := cmp.Diff(wantOut, gotOut, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%#v: outcome (-whole +window):\n%s", c, diff)
			}
		}
	})
}
