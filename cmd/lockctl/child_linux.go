package main

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// setUp makes the kernel end the command when lockctl is killed.
func setUp(cmd *exec.Cmd, newGroup bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: newGroup, Pdeathsig: syscall.SIGTERM}
}

// adoptOrphans makes lockctl the parent of descendants whose own parent ends later, so
// that lockctl can still find them.
func adoptOrphans() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// process is a running process.
type process struct {
	pid, parent, group int
	started            string // the start time; distinguishes it from a later process with the same pid
}

// processes returns all running processes, without zombies: a zombie may never be reaped,
// as in a container without an init.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	var list []process
	for _, e := range entries {
		pid, notNumber := strconv.Atoi(e.Name())
		if notNumber != nil {
			continue
		}
		stat, gone := os.ReadFile("/proc/" + e.Name() + "/stat")
		if gone != nil {
			continue
		}
		// The name of the program is in parentheses and may contain any character. State,
		// parent, group and start time follow it.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
			continue
		}
		p := process{pid: pid, started: string(fields[19])}
		p.parent, _ = strconv.Atoi(string(fields[1]))
		p.group, _ = strconv.Atoi(string(fields[2]))
		list = append(list, p)
	}
	return list, err
}

// groupRuns reports whether a process group has a running process.
func groupRuns(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	list, err := processes()
	for _, p := range list {
		if p.group == group {
			return true
		}
	}
	return err != nil
}

// descendants returns the children of a process and their descendants. It leaves out the
// processes in without, given by pid and start time, and their descendants.
func descendants(pid int, without map[int]string) []process {
	list, _ := processes()
	children := map[int][]process{}
	for _, p := range list {
		if without[p.pid] != p.started {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	found := children[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found
}
