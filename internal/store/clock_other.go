//go:build !linux

package store

import "time"

var processStart = time.Now()

// sinceBoot is Go's monotonic clock, which on some systems stops while the machine is
// suspended.
func sinceBoot() time.Duration { return time.Since(processStart) }

// bootID is empty: sinceBoot does not continue when the process ends.
func bootID() string { return "" }
