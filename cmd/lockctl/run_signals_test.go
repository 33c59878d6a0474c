//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"resource-lock-manager/internal/apptest"
)

// Without a terminal, the command and its child get each signal once. The test sends the
// next signal after the previous one has arrived, so it would see a duplicate before the
// next.
func TestSignalsReachTheGroup(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "--process-id", "me", "group", "--", probe(t), "-keep", "-sub", "-stdin", "-code", "7")
	j.ready(t, "grandchild", "child")
	names := []string{"USR1", "USR2", "ALRM", "WINCH", "CONT", "INT", "TERM", "HUP", "QUIT"}
	want := map[string]int{}
	for _, name := range names {
		j.signal(t, signalNumber(name))
		both := []string{j.line(t, ""), j.line(t, "")}
		for _, process := range []string{"child", "grandchild"} {
			received := func(line string) bool { return strings.HasPrefix(line, process+" got "+name+" ") }
			if !slices.ContainsFunc(both, received) {
				t.Errorf("after %s the processes print %q", name, both)
			}
			want[process+" "+name] = 1
		}
	}
	if owner := currentHolder(t, c, "group"); owner != "me" {
		t.Errorf("held by %q while the command runs", owner)
	}
	pids := descendants(j.cmd.Process.Pid, nil)
	must(t, j.in.Close())
	j.wantCode(t, 7)
	if owner := currentHolder(t, c, "group"); owner != "" {
		t.Errorf("held by %q after the end of the command", owner)
	}
	if len(pids) != 2 || !runs(pids[1].pid) { // the grandchild ignores all signals
		t.Errorf("%v: the grandchild did not survive the command", pids)
	}
	must(t, unix.Kill(pids[1].pid, unix.SIGKILL))
	if counts := signalCounts(j.rest(t)); fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("signals: %v, want %v", counts, want)
	}
}

// TSTP stops the command and lockctl, and CONT continues both.
func TestStopSignal(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := startRun(t, base, "stop", "--", probe(t), "-sub", "-stdin")
	pids := j.ready(t, "child", "grandchild")
	j.signal(t, unix.SIGTSTP)
	j.line(t, "got TSTP")
	j.line(t, "got TSTP")
	for _, pid := range []int{j.cmd.Process.Pid, pids[0], pids[1]} {
		apptest.Eventually(t, "a stop", func() bool { return state(pid) == "T" })
	}
	j.signal(t, unix.SIGCONT)
	j.line(t, "got CONT")
	j.line(t, "got CONT")
	must(t, j.in.Close())
	j.wantCode(t, 0)
	must(t, unix.Kill(pids[1], unix.SIGTERM))
	counts := signalCounts(j.rest(t))
	want := "map[child CONT:1 child TSTP:1 grandchild CONT:1 grandchild TERM:1 grandchild TSTP:1]"
	if fmt.Sprint(counts) != want {
		t.Errorf("signals: %v, want %s", counts, want)
	}
}

// If a signal ends the command, the exit code of lockctl is 128 + the signal number.
func TestSignalEndsTheCommand(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	for _, s := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			t.Parallel()
			name := "ends/" + unix.SignalName(s)
			j := startRun(t, base, name, "-c", "ulimit -c 0; echo ready; exec cat")
			j.line(t, "ready")
			j.signal(t, s)
			j.wantCode(t, 128+int(s))
			if owner := currentHolder(t, c, name); owner != "" {
				t.Errorf("held by %q", owner)
			}
		})
	}
}

// nohup and background jobs of a script ignore signals. lockctl does not catch them.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	for _, test := range []struct {
		name    string
		shell   string
		ignored []syscall.Signal
	}{
		{"nohup", `exec nohup lockctl run "$@"`, []syscall.Signal{unix.SIGHUP}},
		{"background", `lockctl run "$@" & wait $!`, []syscall.Signal{unix.SIGINT, unix.SIGQUIT}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := lockctlCommand(base)
			cmd.Path, cmd.Args = "/bin/sh", []string{
				"sh", "-c", test.shell, "sh",
				"ignored/" + test.name, "-c", "echo ready $PPID; exec sleep 100",
			}
			j := startJob(t, cmd)
			var pid int
			_, err := fmt.Sscan(j.line(t, "ready"), &pid)
			must(t, err)
			child := descendants(pid, nil)[0].pid
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
			must(t, err)
			for _, s := range test.ignored {
				if !ignores(t, string(status), s) {
					t.Errorf("the command does not ignore %v", s)
				}
				must(t, unix.Kill(pid, s))
			}
			must(t, unix.Kill(pid, unix.SIGWINCH)) // harmless; it is handled after the other signals
			if !runs(child) {
				t.Error("the command has ended")
			}
			must(t, unix.Kill(pid, unix.SIGTERM))
			j.code(t)
			if test.name == "nohup" {
				j.wantCode(t, 128+15)
			}
		})
	}
}

func ignores(tb testing.TB, status string, s syscall.Signal) bool {
	tb.Helper()
	_, rest, _ := strings.Cut(status, "SigIgn:")
	var mask uint64
	_, err := fmt.Sscanf(strings.TrimSpace(rest), "%x", &mask)
	must(tb, err)
	return mask&(1<<(s-1)) != 0
}

// The command inherits the same signal dispositions as without lockctl.
func TestSignalDispositions(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	plain, err := exec.Command("grep", "^Sig[^Q]", "/proc/self/status").Output()
	must(t, err)
	j := startRun(t, base, "dispositions", "--", "grep", "^Sig[^Q]", "/proc/self/status")
	j.wantCode(t, 0)
	if got := strings.Join(j.rest(t), "\n") + "\n"; got != string(plain) {
		t.Errorf("under lockctl\n%swithout it\n%s", got, plain)
	}
}

// If lockctl is killed, the kernel sends TERM to the command.
func TestKilledLockctl(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := startRun(t, base, "killed", "--", probe(t))
	pid := j.ready(t, "child")[0]
	j.signal(t, os.Kill)
	j.wantCode(t, -1)
	j.line(t, "child got TERM")
	awaitExit(t, pid)
}

// In the same process group without a terminal, lockctl passes each signal on to the
// command.
func TestPgroupSame(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	j := startRun(t, base, "--pgroup", "same", "same", "--", probe(t), "-keep", "-stdin")
	pid := j.ready(t, "child")[0]
	if group, err := unix.Getpgid(pid); err != nil || group != j.cmd.Process.Pid {
		t.Errorf("group %d, %v", group, err)
	}
	for _, name := range []string{"INT", "QUIT", "TERM", "HUP", "USR1", "WINCH"} {
		j.signal(t, signalNumber(name))
		j.line(t, "child got "+name)
	}
	must(t, j.in.Close())
	j.wantCode(t, 0)
}
