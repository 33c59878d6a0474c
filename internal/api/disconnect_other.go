//go:build !unix

package api

import (
	"net"
	"time"
)

// resetWithin reports false, because it cannot detect a reset on this system: the client
// counts as one that still reads.
func resetWithin(net.Conn, time.Duration) bool { return false }
