//go:build linux

package groupcommit_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/groupcommit"
)

// BenchmarkDo measures what the committer costs its callers, beyond the commit: with one that costs nothing, all there is to
// see is the committer; with one that takes as long as a disk, while the processor is free, how well the callers share it.
func BenchmarkDo(b *testing.B) {
	for _, commit := range []struct {
		name string
		took time.Duration
	}{{"free", 0}, {"200us", 200 * time.Microsecond}} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("commit=%s/callers=%d", commit.name, callers), func(b *testing.B) {
				benchDo(b, callers, commit.took)
			})
		}
	}
}

func benchDo(b *testing.B, callers int, took time.Duration) {
	var batches, left atomic.Int64
	c := groupcommit.New(func(batch []int) ([]groupcommit.Result[int], error) {
		batches.Add(1)
		if took > 0 {
			// A disk keeps a thread waiting in a system call. A timer of Go's would need more than a millisecond for it, which
			// is how exactly the runtime of an idle process waits.
			wait := syscall.NsecToTimespec(took.Nanoseconds())
			_ = syscall.Nanosleep(&wait, nil) // if a signal ends it, it was shorter
		}
		return make([]groupcommit.Result[int], len(batch)), nil
	}, 512, 1024)
	c.Start()
	defer c.Stop()
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := c.Do(b.Context(), 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/float64(batches.Load()), "commands/batch")
}
