//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/apptest"
)

// onTerminalRun starts lockctl run on a terminal.
func onTerminalRun(tb testing.TB, base string, args ...string) *job {
	tb.Helper()
	return startOnTerminal(tb, lockctlCommand(base, append([]string{"run"}, args...)...), 80)
}

// typed types keys on the terminal.
func (j *job) typed(tb testing.TB, keys string) {
	tb.Helper()
	_, err := j.tty.WriteString(keys)
	must(tb, err)
}

// The terminal signals both lockctl and the command. So lockctl must not pass the signal
// on, and must not end before the command.
func TestKeysOfTheTerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := onTerminalRun(t, base, "--process-id", "me", "keys", "--", probe(t), "-keep", "-sub", "-code", "9", "-stdin")
	pids := j.ready(t, "child", "grandchild")
	if group, err := unix.Getpgid(pids[0]); err != nil || group != j.cmd.Process.Pid {
		t.Errorf("group %d, %v: want that of lockctl, %d", group, err, j.cmd.Process.Pid)
	}
	want := map[string]int{}
	for _, key := range []struct{ typed, signal string }{{"\x03", "INT"}, {"\x1c", "QUIT"}} {
		j.typed(t, key.typed)
		j.line(t, "got "+key.signal)
		j.line(t, "got "+key.signal)
		want["child "+key.signal], want["grandchild "+key.signal] = 1, 1
	}
	must(t, pty.Setsize(j.tty, &pty.Winsize{Rows: 30, Cols: 90}))
	j.line(t, "got WINCH")
	j.line(t, "got WINCH")
	want["child WINCH"], want["grandchild WINCH"] = 1, 1
	// Signals that other processes send to lockctl go to the command only.
	for _, name := range []string{"USR1", "HUP", "TERM"} {
		j.signal(t, signalNumber(name))
		j.line(t, "child got "+name)
		want["child "+name] = 1
	}
	if owner := currentHolder(t, c, "keys"); owner != "me" {
		t.Errorf("held by %q", owner)
	}
	j.typed(t, "some text\n")
	j.line(t, "child read some text")
	j.typed(t, "\x04")
	j.wantCode(t, 9)
	if counts := signalCounts(j.seen); fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("signals: %v, want %v", counts, want)
	}
	must(t, unix.Kill(pids[1], unix.SIGKILL))
}

// After Ctrl-C the exit code is that of the command.
func TestCtrlCEndsTheCommand(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	for name, test := range map[string]struct {
		args []string
		code int
	}{
		"caught":     {[]string{probe(t), "-code", "5"}, 5},
		"not caught": {[]string{"sh", "-c", "echo child ready 0 0; exec sleep 1000"}, 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := onTerminalRun(t, base, append([]string{"ctrl-c/" + name, "--"}, test.args...)...)
			j.line(t, "child ready")
			j.typed(t, "\x03")
			j.wantCode(t, test.code)
			awaitHolder(t, newClient(t, base), "ctrl-c/"+name, "")
		})
	}
}

// A shell ends its loop only if its command was ended by the signal.
func TestCtrlCEndsALoop(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	hold(t, c, "loop/held", "other")
	for name, command := range map[string]string{
		"run":     "lockctl run loop/run -- sh -c 'echo ready; exec sleep 1000'",
		"waiting": "lockctl run loop/held -- true",
		"acquire": "lockctl acquire loop/held",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := lockctlCommand(base)
			script := "for i in 1 2 3; do " + command + "; done; echo not reached"
			cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script}
			j := startOnTerminal(t, cmd, 80)
			if name == "run" {
				j.line(t, "ready")
			} else {
				j.waitFor(t, "waiting for loop/held")
			}
			j.typed(t, "\x03")
			j.wantCode(t, 130)
			if shown := j.stderr.String(); strings.Contains(shown, "not reached") {
				t.Errorf("the loop continued: %q", shown)
			}
		})
	}
}

// Ctrl-C during the wait removes the place from the queue.
func TestCtrlCDuringTheWait(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	l := hold(t, c, "waits", "other")
	j := onTerminalRun(t, base, "waits", "--", "true")
	j.waitFor(t, "waiting for waits: held by other")
	j.typed(t, "\x03")
	j.wantCode(t, 130)
	must(t, l.Unlock(t.Context()))
	next, err := c.TryLock(t.Context(), "waits", client.LockOptions{})
	must(t, err)
	must(t, next.Unlock(t.Context()))
	shown := j.stderr.String()
	if !strings.HasSuffix(shown, "\r\x1b[K") {
		t.Errorf("the last line is not cleared: %q", shown)
	}
}

// The waiting line is rewritten, fits into the width of the terminal, and is removed when
// the command starts.
func TestWaitingLine(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	name := strings.Repeat("漢字", 20)
	options := client.LockOptions{Owner: "other", Reason: strings.Repeat("long ", 30)}
	l, err := c.Lock(t.Context(), name, options)
	must(t, err)
	j := startOnTerminal(t, lockctlCommand(base, "run", name, "--", "echo", "mine"), 60)
	apptest.Eventually(t, "a rewritten line", func() bool {
		return strings.Count(j.stderr.String(), "waiting for ") > 1
	})
	must(t, l.Unlock(t.Context()))
	j.line(t, "mine")
	j.wantCode(t, 0)
	shown := j.stderr.String()
	parts := strings.Split(shown, "\r\x1b[K")
	for _, part := range parts[:len(parts)-1] {
		columns := 0
		for _, r := range part {
			columns++
			if r == '漢' || r == '字' {
				columns++
			}
		}
		if !strings.HasPrefix(part, "waiting for 漢字") || !strings.HasSuffix(part, "…") ||
			columns > 59 || columns < 56 || strings.ContainsAny(part, "\r\n") {
			t.Errorf("%d columns: %q", columns, part)
		}
	}
	if last := parts[len(parts)-1]; last != "mine\r\n" {
		t.Errorf("the command's output is %q", last)
	}
}

// The command can open the terminal although its streams are not the terminal, like sudo.
func TestCommandOpensTheTerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := onTerminalRun(t, base, "tty", "--", "sh", "-c", `
		exec </dev/null
		printf 'name?\n' >/dev/tty
		read answer </dev/tty
		echo "hello $answer"
		stty -a </dev/tty >/dev/null`)
	j.line(t, "name?")
	j.typed(t, "you\n")
	j.line(t, "hello you")
	j.wantCode(t, 0)
}

// On a terminal the shell is in the same process group, so lockctl signals the
// descendants instead of the group.
func TestLossWithATerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	for name, test := range map[string]struct {
		args  []string
		grace string
		term  int
	}{
		"ends":    {[]string{"-sub"}, "1h", 2},
		"ignores": {[]string{"-sub", "-ignore", "TERM"}, "200ms", 0},
		"session": {[]string{"-sub", "-session"}, "1h", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The shell is in the group, but must not be stopped.
			cmd := lockctlCommand(base)
			script := `lockctl run --ttl 5s "$@"; echo code $?`
			args := []string{"sh", "-c", script, "sh", "--grace", test.grace, "loss/" + name, "--", probe(t)}
			args = append(args, test.args...)
			cmd.Path, cmd.Args = "/bin/sh", args
			j := startOnTerminal(t, cmd, 200)
			pids := j.ready(t, "child", "grandchild")
			forceRelease(t, c, "loss/"+name, "why")
			j.line(t, "code 76")
			for _, pid := range pids {
				if runs(pid) {
					t.Errorf("process %d still runs", pid)
				}
			}
			j.wantCode(t, 0)
			counts := signalCounts(j.seen)
			if counts["child TERM"]+counts["grandchild TERM"] != test.term || counts["child TERM"] > 1 {
				t.Errorf("signals: %v", counts)
			}
		})
	}
}

// A process that the command starts during the stop is stopped as well, although its
// parent has ended and it is not in a group of the command.
func TestOrphansWithATerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := onTerminalRun(t, base, "--ttl", "5s", "--grace", "2s", "orphans", "-c", `
		trap '(trap "" TERM HUP; echo late; exec sleep 1000) & exit 0' TERM
		sh -c 'echo ready $$; exec sleep 1000' &
		wait`)
	var pid int
	_, err := fmt.Sscan(j.line(t, "ready"), &pid)
	must(t, err)
	forceRelease(t, newClient(t, base), "orphans", "why")
	j.line(t, "late")
	j.wantCode(t, 76)
	if runs(pid) {
		t.Errorf("process %d still runs", pid)
	}
	list, err := processes()
	must(t, err)
	for _, p := range list {
		if p.group == j.cmd.Process.Pid {
			t.Errorf("process %d still runs", p.pid)
		}
	}
}

// With a new process group, Ctrl-Z and Ctrl-C signal only lockctl, which passes them on.
func TestNewGroupOnATerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := onTerminalRun(t, base, "--pgroup", "new", "newgroup", "--", probe(t), "-sub", "-keep")
	pids := j.ready(t, "child", "grandchild")
	for _, key := range []struct{ typed, signal string }{
		{"\x03", "INT"}, {"\x1c", "QUIT"}, {"\x1a", "TSTP"},
	} {
		j.typed(t, key.typed)
		j.line(t, "got "+key.signal)
		j.line(t, "got "+key.signal)
	}
	for _, pid := range append(pids, j.cmd.Process.Pid) {
		apptest.Eventually(t, "a stop", func() bool { return state(pid) == "T" })
	}
	j.signal(t, unix.SIGCONT)
	j.line(t, "got CONT")
	j.line(t, "got CONT")
	for _, pid := range pids {
		must(t, unix.Kill(pid, unix.SIGKILL))
	}
	j.wantCode(t, 128+9)
	want := "map[child CONT:1 child INT:1 child QUIT:1 child TSTP:1 " +
		"grandchild CONT:1 grandchild INT:1 grandchild QUIT:1 grandchild TSTP:1]"
	if counts := signalCounts(j.seen); fmt.Sprint(counts) != want {
		t.Errorf("signals: %v, want %s", counts, want)
	}
}

// Ctrl-C during the stop kills the command.
func TestCtrlCDuringTheStop(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := onTerminalRun(t, base, "--ttl", "5s", "--grace", "1h", "twice", "--", probe(t), "-keep")
	pid := j.ready(t, "child")[0]
	forceRelease(t, newClient(t, base), "twice", "why")
	j.line(t, "got TERM")
	j.typed(t, "\x03")
	j.wantCode(t, 76)
	awaitExit(t, pid)
}

// Ctrl-Z stops the job of a shell. After fg the job continues, and the lock is renewed
// without delay.
func TestJobControl(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	cmd := lockctlCommand(base)
	bash, err := exec.LookPath("bash")
	must(t, err)
	cmd.Path, cmd.Args = bash, []string{"bash", "--norc", "--noprofile", "-i"}
	cmd.Env = append(cmd.Env, "PS1=$ ", "HISTFILE=/dev/null")
	j := startOnTerminal(t, cmd, 200)
	j.typed(t, "lockctl run --json --ttl 6s --grace 100ms --process-id me job -- "+probe(t)+" -stdin -code 5\n")
	var pid int
	_, err = fmt.Sscan(j.line(t, "child ready "), &pid)
	must(t, err)
	lockctlID := parent(t, pid)
	renewals := func() int {
		s, err := c.Status(t.Context(), "job")
		must(t, err)
		return s.Holder.Renewals
	}
	// The probe catches TSTP and stops itself; lockctl is stopped by the terminal.
	j.typed(t, "\x1a")
	j.waitFor(t, "child got TSTP")
	apptest.Eventually(t, "a stop", func() bool { return state(pid) == "T" && state(lockctlID) == "T" })
	j.waitFor(t, "Stopped ")
	j.typed(t, "echo in the shell $((40+2))\n")
	j.line(t, "in the shell 42")
	before := renewals()
	apptest.Eventually(t, "the time for a renewal", func() bool {
		s, err := c.Status(t.Context(), "job")
		must(t, err)
		return s.Holder.ExpiresIn < 3*time.Second
	})
	j.typed(t, "fg\n")
	j.line(t, "child got CONT")
	j.typed(t, "go on\n")
	j.line(t, "child read go on")
	apptest.Eventually(t, "a renewal", func() bool { return renewals() > before })
	j.typed(t, "\x04")
	j.line(t, "child end true")
	j.typed(t, "echo code $?\n")
	j.line(t, "code 5")
	awaitHolder(t, c, "job", "")
	j.typed(t, "exit 0\n")
	j.wantCode(t, 0)
}

// parent returns the parent of a process.
func parent(tb testing.TB, pid int) int {
	tb.Helper()
	list, err := processes()
	must(tb, err)
	for _, p := range list {
		if p.pid == pid {
			return p.parent
		}
	}
	tb.Fatalf("there is no process %d", pid)
	return 0
}

// When the terminal is closed, the command gets HUP, and the lock is released.
func TestClosedTerminal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := onTerminalRun(t, base, "hangup", "--", "sh", "-c", "echo ready; exec sleep 1000")
	j.line(t, "ready")
	must(t, j.tty.Close())
	j.wantCode(t, 128+int(syscall.SIGHUP))
	awaitHolder(t, newClient(t, base), "hangup", "")
}
