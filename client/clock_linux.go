package client

import (
	"syscall"
	"time"
	"unsafe"
)

// newClock returns a clock that continues while the machine is suspended, unlike Go's
// monotonic clock: a lock expires also while its holder is suspended.
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
