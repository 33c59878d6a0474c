//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

func setUp(cmd *exec.Cmd, newGroup bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: newGroup}
}

// descendants are not known on this system: with a terminal, only the command itself is stopped.
func descendants(int) []int { return nil }
