//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"resource-lock-manager/client"
)

// After a force-release the command and its children get TERM, and lockctl reports who
// did it and why. The grandchild becomes a zombie, which must not keep lockctl from
// ending.
func TestForceReleased(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "--ttl", "5s", "forced", "--", probe(t), "-sub")
	pids := j.ready(t, "child", "grandchild")
	forceRelease(t, c, "forced", "the runner has died")
	j.line(t, "got TERM")
	j.line(t, "got TERM")
	j.wantCode(t, 76)
	for _, pid := range pids {
		if runs(pid) {
			t.Errorf("process %d still runs", pid)
		}
	}
	want := "forced: the lock is lost: force-released by admin: the runner has died; stopping the command"
	if stderr := j.stderr.String(); !strings.Contains(stderr, want) {
		t.Errorf("stderr %q", stderr)
	}
}

// With --on-lost warn the command is not signaled.
func TestOnLostWarn(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	for _, test := range []struct{ command, lockctl int }{{0, 76}, {3, 3}} {
		t.Run(strconv.Itoa(test.command), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("warn/%d", test.command)
			j := startRun(t, base, "--ttl", "5s", "--on-lost", "warn", name, "--",
				probe(t), "-stdin", "-code", strconv.Itoa(test.command))
			j.ready(t, "child")
			forceRelease(t, c, name, "maintenance")
			j.waitFor(t, "force-released by admin: maintenance; the command continues")
			must(t, j.in.Close())
			j.wantCode(t, test.lockctl)
			if counts := signalCounts(j.rest(t)); len(counts) != 0 {
				t.Errorf("signals: %v", counts)
			}
		})
	}
}

// If the lock was lost before the command succeeded, the exit code is 76.
func TestLossBeforeTheEnd(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "ends", "--", probe(t), "-stdin") // the first renewal is after 20 seconds
	j.ready(t, "child")
	forceRelease(t, c, "ends", "why")
	must(t, j.in.Close())
	j.wantCode(t, 76)
	j.waitFor(t, "ends: the lock is lost: force-released by admin: why")
}

// A lockctl that was stopped for longer than the TTL detects the loss when it continues.
func TestStoppedForLongerThanTheTTL(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "--ttl", "5s", "--json", "paused", "--", probe(t), "-sub")
	pids := j.ready(t, "child", "grandchild")
	j.signal(t, unix.SIGSTOP)
	awaitHolder(t, c, "paused", "")
	next, err := c.TryLock(t.Context(), "paused", client.LockOptions{})
	must(t, err)
	j.signal(t, unix.SIGCONT)
	j.line(t, "got TERM")
	j.wantCode(t, 76)
	for _, pid := range pids {
		awaitExit(t, pid)
	}
	must(t, next.Unlock(t.Context())) // the release of the old hold must not have ended the new hold
}

// If the lock is granted to a stopped lockctl and expires, lockctl waits again when it
// continues.
func TestStoppedDuringTheWait(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	before := hold(t, c, "waits", "before")
	j := startRun(t, base, "--ttl", "5s", "--process-id", "me", "waits", "--", "echo", "mine")
	awaitWaiter(t, c, "waits", "me")
	j.signal(t, unix.SIGSTOP)
	must(t, before.Unlock(t.Context()))
	awaitHolder(t, c, "waits", "me")
	awaitHolder(t, c, "waits", "")
	after := hold(t, c, "waits", "after")
	j.signal(t, unix.SIGCONT)
	awaitWaiter(t, c, "waits", "me")
	select {
	case line := <-j.lines:
		t.Errorf("the command ran beside another holder: %q", line)
	default:
	}
	must(t, after.Unlock(t.Context()))
	j.line(t, "mine")
	j.wantCode(t, 0)
}

// All processes of the command have ended when lockctl ends.
func TestWhatIgnoresTermIsKilled(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	program := probe(t)
	for _, test := range []struct {
		name  string
		args  []string
		names []string
	}{
		{"the command", []string{"-ignore", "TERM"}, []string{"child"}},
		{"both", []string{"-ignore", "TERM", "-sub"}, []string{"child", "grandchild"}},
		{"in another session", []string{"-ignore", "TERM", "-sub", "-session"}, []string{"child", "grandchild"}},
		{"an orphan", []string{"-orphan"}, []string{"orphan", "child"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			name := "killed/" + test.name
			args := []string{"--ttl", "5s", "--grace", "100ms", "-v", name, "--", program}
			j := startRun(t, base, append(args, test.args...)...)
			pids := j.ready(t, test.names...)
			forceRelease(t, c, name, "why")
			j.wantCode(t, 76)
			for _, pid := range pids {
				if runs(pid) {
					t.Errorf("process %d still runs", pid)
				}
			}
			if !strings.Contains(j.stderr.String(), "killing the command") {
				t.Errorf("stderr %q", j.stderr)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "1h", "stopped", "-c", "echo ready; kill -STOP $$")
		j.line(t, "ready")
		forceRelease(t, c, "stopped", "why")
		j.wantCode(t, 76)
	})
	t.Run("started during the stop", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "1s", "started", "-c", `
			trap '(trap "" TERM; echo late $$; exec sleep 1000) & exit 0' TERM
			echo ready
			while :; do sleep 0.01; done`)
		j.line(t, "ready")
		forceRelease(t, c, "started", "why")
		j.line(t, "late")
		j.wantCode(t, 76)
		j.rest(t) // no process keeps its output open
	})
	t.Run("new processes all the time", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "50ms", "bomb", "-c", `
			trap '' TERM
			echo ready
			# Two processes at any time: each starts another one and ends, a limited number of times.
			f() { sleep 0.02; [ $1 -gt 500 ] || f $(($1+1)) & }
			f 0 & f 0
			sleep 1000`)
		j.line(t, "ready")
		forceRelease(t, c, "bomb", "why")
		j.wantCode(t, 76)
		j.rest(t)
	})
}

// lockctl does not stop processes that a shell has started before it has executed
// lockctl.
func TestEarlierProcessesAreNotStopped(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	cmd := lockctlCommand(base)
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", `
		sleep 1000 & echo sidecar $!
		exec lockctl run --ttl 5s sidecar -c '
			trap "echo stopped; exit 0" TERM; echo ready; while :; do sleep 0.01; done' > >(
			trap '' TERM; echo tee $BASHPID; exec cat)`}
	j := startJob(t, cmd)
	var pids []int
	for _, name := range []string{"sidecar", "tee"} {
		pid, err := strconv.Atoi(strings.TrimPrefix(j.line(t, name), name+" "))
		must(t, err)
		pids = append(pids, pid)
	}
	j.line(t, "ready")
	forceRelease(t, c, "sidecar", "why")
	j.line(t, "stopped") // the reader of the output has passed it on
	j.wantCode(t, 76)
	if !runs(pids[0]) {
		t.Error("the earlier process has ended")
	}
	must(t, syscall.Kill(pids[0], syscall.SIGKILL))
}

// Processes that the command leaves in the background continue without the lock.
func TestBackgroundProcesses(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "background", "-c", "sleep 1000 & echo started $!")
	var pid int
	_, err := fmt.Sscan(j.line(t, "started"), &pid)
	must(t, err)
	j.wantCode(t, 0)
	if !runs(pid) {
		t.Error("the process in the background has ended")
	}
	if owner := currentHolder(t, c, "background"); owner != "" {
		t.Errorf("held by %q", owner)
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	awaitExit(t, pid)
}
