//go:build !linux

package client

import (
	"sync"
	"time"
)

// newClock returns a clock that counts through suspend as far as it can be known: of the
// time that has passed by the monotonic clock, which may stop in a suspend, and by the
// wall clock, which may be set, each reading counts the larger one. A wall clock that is
// set ahead therefore ends a lock too early, which is the safe side.
func newClock() func() time.Duration {
	var (
		mu      sync.Mutex
		last    = time.Now()
		elapsed time.Duration
	)
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		elapsed += max(now.Sub(last), now.Round(0).Sub(last.Round(0)), 0)
		last = now
		return elapsed
	}
}
