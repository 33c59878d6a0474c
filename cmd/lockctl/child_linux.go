package main

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// setUp has the kernel end the command when lockctl is killed.
func setUp(cmd *exec.Cmd, newGroup bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: newGroup, Pdeathsig: syscall.SIGTERM}
}

// descendants returns the processes that a process has started, and those that these have, without
// those whose parent has ended.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			parent := parentOf(n)
			children[parent] = append(children[parent], n)
		}
	}
	found := children[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// parentOf returns 0 for a process that has ended meanwhile.
func parentOf(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name of the program stands in parentheses and may hold anything; the state follows it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}
