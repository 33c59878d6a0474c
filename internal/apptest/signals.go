package apptest

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// CatchIgnored makes the processes that the tests start begin without ignored signals. A
// script ignores INT and QUIT for its background processes, and nohup ignores HUP. A
// process does not inherit as ignored what this process catches.
func CatchIgnored() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil { // not on Linux
		return
	}
	_, ignored, _ := strings.Cut(string(status), "SigIgn:")
	mask, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(ignored, "\n", 2)[0]), 16, 64)
	if err != nil {
		return
	}
	for number := syscall.Signal(1); number < 32; number++ {
		if mask&(1<<(number-1)) != 0 {
			signal.Notify(make(chan os.Signal, 1), number)
		}
	}
}
