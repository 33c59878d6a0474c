//go:build !linux

package store

import "time"

var processStart = time.Now()

// sinceBoot is Go's monotonic clock, which on some systems stands still while the machine is suspended.
func sinceBoot() time.Duration { return time.Since(processStart) }
