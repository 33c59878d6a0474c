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

// BenchmarkDo measures the cost of the committer itself, with a commit that takes no
// time, and how well callers share a commit that takes as long as a sync of a disk.
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
	var batches, remaining atomic.Int64
	c := groupcommit.New(func(batch []int) ([]groupcommit.Result[int], error) {
		batches.Add(1)
		if took > 0 {
			// A sync blocks a thread in a system call. A Go timer cannot simulate that:
			// in an idle process it has a resolution of more than a millisecond.
			wait := syscall.NsecToTimespec(took.Nanoseconds())
			_ = syscall.Nanosleep(&wait, nil) // a signal may shorten it
		}
		return make([]groupcommit.Result[int], len(batch)), nil
	}, groupcommit.Config{MaxBatch: 512, MaxQueue: 1024})
	c.Start()
	defer c.Stop()
	remaining.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for remaining.Add(-1) >= 0 {
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
