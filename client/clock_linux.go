package client

import (
	"syscall"
	"time"
	"unsafe"
)

// newClock returns a clock that counts through suspend, which Go's own monotonic clock
// does not: a lock expires while the machine of its holder sleeps.
func newClock() func() time.Duration {
	return func() time.Duration {
		const bootTime = 7 // CLOCK_BOOTTIME
		var t syscall.Timespec
		//nolint:gosec // the kernel writes to t, which has the type of the system call on every platform
		_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, bootTime, uintptr(unsafe.Pointer(&t)), 0)
		if errno != 0 {
			panic("CLOCK_BOOTTIME: " + errno.Error()) // every Linux since 2.6.39 has it
		}
		return time.Duration(t.Nano())
	}
}
