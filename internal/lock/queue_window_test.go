package lock_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// drawQueue returns a queue with waiters of all kinds, as one server loads it.
func drawQueue(t *rapid.T) []*lock.Waiter {
	kinds := []func(int64, string) *lock.Waiter{
		local, local, remote, dead,
		func(n int64, p string) *lock.Waiter { return detached(n, p, after(step)) },
		func(n int64, p string) *lock.Waiter { return detached(n, p, t0) },
	}
	var queue []*lock.Waiter
	for n := range rapid.IntRange(0, 9).Draw(t, "waiters") {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		queue = append(queue, kind(int64(n+1), fmt.Sprintf("w%d", n+1)))
	}
	return queue
}

// drawResource returns a resource that is free or held by "holder" in some state.
func drawResource(t *rapid.T) lock.Resource {
	kept := heldBy("holder", after(step))
	kept.Holds[0].ReleasedAt, kept.Holds[0].MinHoldUntil = t0, after(step)
	minimum := heldBy("holder", after(step))
	minimum.Holds[0].MinHoldUntil = after(step)
	inConnection := heldBy("holder", after(step))
	inConnection.Holds[0].RequestID, inConnection.Holds[0].Connection = "id-holder", 70
	r := rapid.SampledFrom([]lock.Resource{
		free(), released(100), heldBy("holder", time.Time{}), heldBy("holder", t0), kept, minimum, inConnection,
	}).Draw(t, "resource")
	return queued(r, drawQueue(t)...)
}

// drawBatch returns commands of one transaction about the resource, of the holder, of
// waiters and of others.
func drawBatch(t *rapid.T, r lock.Resource) []lock.Command {
	waits := func(w string) time.Duration {
		return rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, w)
	}
	var batch []lock.Command
	for range rapid.IntRange(1, 6).Draw(t, "commands") {
		c := acquireBy("holder", 70)
		var w *lock.Waiter
		if len(r.Queue) > 0 && rapid.IntRange(0, 4).Draw(t, "of a waiter") > 0 {
			w = rapid.SampledFrom(r.Queue).Draw(t, "waiter")
			c = acquireOf(w)
		}
		switch kind := rapid.SampledFrom([]string{
			"acquire", "retry", "requeue", "time out", "disconnect", "drop orphan",
			"release", "force-release", "expire and grant", "remove abandoned", "renew",
		}).Draw(t, "command"); kind {
		case "acquire":
			c = acquireBy(
				rapid.SampledFrom([]string{"new", "newer"}).Draw(t, "newcomer"),
				rapid.Int64Range(80, 83).Draw(t, "connection"),
			)
			c.Wait, c.MayQueue = waits("wait"), rapid.Bool().Draw(t, "may queue")
			batch = append(batch, c)
		case "retry":
			c.Connection = rapid.Int64Range(84, 86).Draw(t, "connection")
			c.Wait, c.MayQueue = waits("wait"), rapid.Bool().Draw(t, "may queue")
			batch = append(batch, c)
		case "requeue":
			c.Requeued = true
			batch = append(batch, c)
		case "time out", "disconnect", "drop orphan":
			if w == nil || w.Local { // only the server of a waiter ends its wait
				batch = append(batch, drawEndOfWait(t, kind, c, w))
			}
		case "release":
			batch = append(batch, lock.Release{Resource: "r", ProcessID: c.ProcessID})
		case "force-release":
			batch = append(batch, lock.ForceRelease{Resource: "r"})
		case "expire and grant":
			batch = append(batch, lock.ExpireAndGrant{Names: []string{"r"}})
		case "remove abandoned":
			place := lock.Place{Resource: "r", ProcessID: c.ProcessID, RequestID: c.RequestID}
			batch = append(batch, lock.RemoveAbandoned{Places: []lock.Place{place}})
		case "renew":
			batch = append(batch, lock.Renew{Resource: "r", ProcessID: c.ProcessID, TTL: step})
		}
	}
	return batch
}

// drawEndOfWait returns a command that ends the wait of the waiter, or the hold if w is
// nil.
func drawEndOfWait(t *rapid.T, kind string, c lock.Acquire, w *lock.Waiter) lock.Command {
	keep, ticket := step*time.Duration(rapid.IntRange(0, 1).Draw(t, "keep")), int64(1)
	if w != nil {
		ticket = w.Ticket
	}
	switch kind {
	case "time out":
		return lock.TimeOut{Of: c, Keep: keep}
	case "disconnect":
		return lock.Disconnect{Of: c, Ticket: ticket, Keep: keep, Why: "because"}
	}
	return lock.DropOrphan{
		Place:      lock.Place{Resource: "r", ProcessID: c.ProcessID, RequestID: c.RequestID},
		Connection: c.Connection,
	}
}

// window returns the part of a queue that a store has to load for a batch: see
// lock.Command.
func window(r lock.Resource, batch []lock.Command) []*lock.Waiter {
	connected := 2
	named := map[lock.Place]bool{}
	for _, c := range batch {
		needs := c.Needs()
		if needs.MayFree {
			connected++
		}
		for _, p := range needs.Places {
			named[p] = true
		}
	}
	var loaded []*lock.Waiter
	for _, w := range r.Queue {
		isConnected := w.DetachedUntil.IsZero() && (w.Local || w.AliveUntil.After(t0))
		place := lock.Place{Resource: "r", ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID}
		if isConnected && connected > 0 || named[place] {
			loaded = append(loaded, w)
		}
		if isConnected {
			connected--
		}
	}
	return loaded
}

// A store need not load the whole queue. With the window the commands decide the same,
// and leave the waiters outside of it as they are.
func TestWindowOfTheQueueDecidesAsAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := drawResource(t)
		batch := drawBatch(t, whole)
		part := whole
		part.Queue = window(whole, batch)
		outside := slices.DeleteFunc(slices.Clone(whole.Queue), func(w *lock.Waiter) bool {
			return slices.Contains(part.Queue, w)
		})
		// inside returns the waiters of a queue that are not outside of the window.
		inside := func(queue []*lock.Waiter) (waiters []*lock.Waiter) {
			for _, w := range queue {
				if !slices.Contains(outside, w) {
					waiters = append(waiters, w)
				}
			}
			return waiters
		}
		for _, c := range batch {
			wantOut, wantErr := c.Decide(t0, []lock.Resource{whole})
			gotOut, gotErr := c.Decide(t0, []lock.Resource{part})
			for _, r := range wantOut.Changed {
				whole = r
			}
			for _, r := range gotOut.Changed {
				part = r
			}
			queue := inside(whole.Queue)
			if missing := len(outside) - (len(whole.Queue) - len(queue)); missing != 0 {
				t.Fatalf("%#v changed %d waiters that were not loaded", c, missing)
			}
			for i := range wantOut.Changed {
				wantOut.Changed[i].Queue = queue
			}
			wantOut.Resource.Queue = inside(wantOut.Resource.Queue)
			if !reflect.DeepEqual(wantErr, gotErr) {
				t.Fatalf("%#v: error with the window %#v, want %#v", c, gotErr, wantErr)
			}
			if diff := cmp.Diff(wantOut, gotOut, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%#v: outcome (-whole +window):\n%s", c, diff)
			}
		}
	})
}
