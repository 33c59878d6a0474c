package apptest

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// CatchIgnored has what the tests start begin without ignored signals, whoever has
// started the tests: INT and QUIT are ignored in the background of a script, HUP after
// nohup. What this process catches is not ignored by others that it starts.
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
