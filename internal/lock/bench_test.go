package lock_test

import (
	"fmt"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// BenchmarkDecide measures the rules alone, without a store. One goroutine of a server
// decides all commands.
func BenchmarkDecide(b *testing.B) {
	held := heldBy("holder", after(time.Hour))
	acquire := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: time.Minute}}
	release := lock.Release{Resource: "r", ProcessID: "holder"}
	names := []string{"r"}
	for _, bench := range []struct {
		name    string
		command lock.Command
		before  lock.Resource
		refused bool
	}{
		{"acquire", acquire, free(), false},
		{"acquire refused", acquire, held, true},
		{"acquire repeated", acquireBy("p", 80), holding(lock.Hold{
			ProcessID: "p", RequestID: "id-p", Connection: 80, Token: 100, LockedAt: t0, ExpiresAt: after(time.Hour),
		}), false},
		{"renew", lock.Renew{Resource: "r", ProcessID: "holder", TTL: time.Minute}, held, false},
		{"release", release, held, false},
		{"release refused", lock.Release{Resource: "r", ProcessID: "p"}, held, true},
		{"wait", acquireBy("p", 2000), queued(held, localWaiters(3)...), false},
		{"hand-over, 3 wait", release, queued(held, localWaiters(3)...), false},
		{"hand-over, 512 wait", release, queued(held, localWaiters(512)...), false},
		{"expiry, 512 wait", lock.ExpireAndGrant{Names: names}, queued(heldBy("holder", t0), localWaiters(512)...), false},
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

// BenchmarkTurns grants a resource to each waiter of a queue in one batch, as happens
// with a lock that many requests wait for. Each release sees what the previous one left,
// so its cost must not grow with the number of remaining waiters. An operation is one
// hand-over.
func BenchmarkTurns(b *testing.B) {
	for _, n := range []int{3, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			whole := queued(heldBy("holder", after(time.Hour)), localWaiters(n)...)
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

// localWaiters returns n local waiters.
func localWaiters(n int) []*lock.Waiter {
	queue := make([]*lock.Waiter, n)
	for i := range queue {
		queue[i] = local(int64(i+1), fmt.Sprint("w", i+1))
		queue[i].Request.TTL = time.Minute
	}
	return queue
}
