//go:build !linux

package client

import (
	"sync"
	"time"
)

// newClock returns a clock that continues while the machine is suspended, as far as this
// can be detected. The monotonic clock may stop in a suspend, and the wall clock may be
// set. Each reading adds the larger time that has passed by one of the two clocks. A wall
// clock that is set ahead therefore ends a lock too early, which is safe.
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
