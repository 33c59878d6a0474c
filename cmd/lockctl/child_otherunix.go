//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

func setUp(cmd *exec.Cmd, newGroup bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: newGroup}
}

func adoptOrphans() {}

// process is one that runs.
type process struct {
	pid, group int
	started    string
}

func groupRuns(group int) bool { return syscall.Kill(-group, 0) == nil }

// descendants are not known on this system: what is not in the command's own group is not
// stopped.
func descendants(int, map[int]string) []process { return nil }
