//go:build unix

package api

import (
	"net"
	"syscall"
	"time"
)

// resetWithin reports whether a connection whose peer has ended its stream is reset
// within d. No other goroutine may read from the connection meanwhile.
func resetWithin(conn net.Conn, d time.Duration) (reset bool) {
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sys.SyscallConn()
	if err != nil || conn.SetReadDeadline(time.Now().Add(d)) != nil {
		return true // it is closed
	}
	// Read calls the function again at each event of the connection, until the deadline.
	// A real read would return the end of the stream each time and never the reset after
	// it.
	_ = raw.Read(func(fd uintptr) bool {
		pending, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		reset = err != nil || pending != 0
		return reset
	})
	return reset
}
