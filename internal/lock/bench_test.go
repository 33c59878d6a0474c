package lock_test

import (
	"fmt"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// BenchmarkDecide measures the rules alone: what a command costs the one goroutine that decides all of them.
func BenchmarkDecide(b *testing.B) {
	held := heldBy("holder", after(time.Hour))
	for _, bench := range []struct {
		name    string
		command lock.Command
		before  lock.Resource
		refused bool
	}{
		{"acquire", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: time.Minute}}, free(), false},
		{"acquire refused", lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: time.Minute}}, held, true},
		{"acquire repeated", asking("p", 80), taken(lock.Hold{
			ProcessID: "p", RequestID: "id-p", Connection: 80, Token: 100, LockedAt: t0, ExpiresAt: after(time.Hour),
		}), false},
		{"renew", lock.Renew{Resource: "r", ProcessID: "holder", TTL: time.Minute}, held, false},
		{"release", lock.Release{Resource: "r", ProcessID: "holder"}, held, false},
		{"release refused", lock.Release{Resource: "r", ProcessID: "p"}, held, true},
		{"wait", asking("p", 2000), queued(held, waiters(3)...), false},
		{"hand-over, 3 wait", lock.Release{Resource: "r", ProcessID: "holder"}, queued(held, waiters(3)...), false},
		{"hand-over, 512 wait", lock.Release{Resource: "r", ProcessID: "holder"}, queued(held, waiters(512)...), false},
		{"expiry, 512 wait", lock.ExpireAndGrant{Names: []string{"r"}}, queued(heldBy("holder", t0), waiters(512)...), false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			before := []lock.Resource{bench.before}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.command.Decide(t0, before); (err != nil) != bench.refused {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTurns has all of a queue hand over to one another in one batch, as a lock does that many wait for: each release
// sees what the one before has left, so that its cost must not grow with those who still wait. An operation is a hand-over.
func BenchmarkTurns(b *testing.B) {
	for _, n := range []int{3, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			whole := queued(heldBy("holder", after(time.Hour)), waiters(n)...)
			b.ReportAllocs()
			r := whole
			for b.Loop() {
				if len(r.Queue) == 0 {
					r = whole
				}
				out, err := lock.Release{Resource: "r", ProcessID: r.Holds[0].ProcessID}.Decide(t0, []lock.Resource{r})
				if err != nil || len(out.Granted) != 1 {
					b.Fatal(err, out.Granted)
				}
				r = out.Changed[0]
			}
		})
	}
}

// waiters that are all connected to the server that decides.
func waiters(n int) []*lock.Waiter {
	queue := make([]*lock.Waiter, n)
	for i := range queue {
		queue[i] = here(int64(i+1), fmt.Sprint("w", i+1))
		queue[i].Request.TTL = time.Minute
	}
	return queue
}
