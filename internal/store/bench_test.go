package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// BenchmarkPair measures an acquire and a release of an uncontended lock, durable, by
// several concurrent callers.
func BenchmarkPair(b *testing.B) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", driver, callers), func(b *testing.B) {
				s := open(b, config(b, driver))
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				var all sync.WaitGroup
				for i := range callers {
					all.Go(func() {
						resource, process := fmt.Sprint("resource ", i), fmt.Sprint("process ", i)
						for left.Add(-1) >= 0 {
							for _, c := range []lock.Command{
								acquireFor(resource, process, time.Minute),
								lock.Release{Resource: resource, ProcessID: process},
							} {
								if _, err := s.Execute(context.Background(), c); err != nil {
									b.Error(err)
									return
								}
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}
