package groupcommit_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"resource-lock-manager/internal/groupcommit"
)

// BenchmarkDo measures what the committer itself costs: its transaction does nothing.
func BenchmarkDo(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var batches, left atomic.Int64
			c := groupcommit.New(func(batch []int) ([]groupcommit.Result[int], error) {
				batches.Add(1)
				return make([]groupcommit.Result[int], len(batch)), nil
			}, 512, 1024)
			c.Start()
			defer c.Stop()
			b.ReportAllocs()
			b.ResetTimer()
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := c.Do(b.Context(), 0); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(batches.Load()), "commands/batch")
		})
	}
}
