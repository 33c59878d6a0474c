//go:build linux

package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/client"
)

func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	held := hold(t, c, "held", "other")
	dir := t.TempDir()
	plain := file(t, "plain", "echo no\n", 0o644)
	script := file(t, "script", "echo \"ran with $1 and $LOCK_RESOURCE_NAME\"\nexit 5\n", 0o755)
	lost := file(t, "lost", "#!/nonexistent/interpreter\n", 0o755)
	notText := file(t, strings.Repeat("\xff", 200)+"\x1b", "#!/bin/sh\necho ran\n", 0o755)
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string // a part of stderr; empty: stderr must be empty
	}{
		{"success", []string{"free/0", "--", "true"}, 0, "", ""},
		{"the command's own", []string{"free/1", "-c", "exit 3"}, 3, "", ""},
		{"the largest", []string{"free/2", "-c", "exit 255"}, 255, "", ""},
		{"the same as a code of lockctl", []string{"free/3", "-c", "exit 75"}, 75, "", ""},
		{"killed", []string{"free/4", "-c", "kill -KILL $$"}, 128 + 9, "", ""},
		{"ended by a signal", []string{"free/5", "-c", "kill -USR1 $$"}, 128 + 10, "", ""},
		{"a script without an interpreter", []string{"free/6", "--", script, "one"}, 5, "ran with one and free/6\n", ""},
		{"a command whose name is not UTF-8", []string{"free/20", "--", notText}, 0, "ran\n", ""},
		{"an argument that is not UTF-8", []string{"free/21", "--", "printf", "a\xff\n"}, 0, "a\xff\n", ""},
		{"an empty argument", []string{"free/7", "--", "printf", "<%s>", ""}, 0, "<>", ""},
		{"-c of nothing", []string{"free/8", "-c", ""}, 0, "", ""},
		{"-c before the name", []string{"-c", "echo $LOCK_RESOURCE_NAME", "free/9"}, 0, "free/9\n", ""},
		{"a name that looks like a flag", []string{"--", "-n", "--", "printenv", "LOCK_RESOURCE_NAME"}, 0, "-n\n", ""},
		{"no file mode x", []string{"free/10", "--", plain}, 126, "", "cannot execute " + plain},
		{"a directory", []string{"free/11", "--", dir}, 126, "", "cannot execute " + dir},
		{"an interpreter that does not exist", []string{"free/12", "--", lost}, 126, "", "cannot execute " + lost},
		{"not found", []string{"free/13", "--", "no-such-program"}, 127, "", "cannot find no-such-program"},
		{"not found by its path", []string{"free/14", "--", "/no/such/program"}, 127, "", "cannot find /no/such/program"},
		{"no name for a command", []string{"free/15", "--", ""}, 127, "", "cannot find"},
		{"not found, although the lock is held", []string{"-n", "held", "--", "no-such-program"}, 127, "", "cannot find"},
		{
			"held, without a wait",
			[]string{"-n", "held", "--", "echo", "no"},
			75, "", "lockctl: not acquired: held: locked by other",
		},
		{"held until the wait has timed out", []string{"-w", "100ms", "held", "--", "echo", "no"}, 75, "", "locked by other"},
		{"held, another code", []string{"-n", "-E", "9", "held", "--", "echo", "no"}, 9, "", "locked by other"},
		{"held, skipped quietly", []string{"-n", "-E", "0", "held", "--", "echo", "no"}, 0, "", ""},
		{"held, skipped, verbose", []string{"-v", "-n", "-E", "0", "held", "--", "echo", "no"}, 0, "", "locked by other"},
		{
			"max-hold",
			[]string{"--max-hold", "50ms", "--grace", "20s", "free/16", "--", "sleep", "100"},
			124, "", "--max-hold of 50ms has passed",
		},
		{
			"max-hold, the command ignores TERM",
			[]string{"--max-hold", "50ms", "--grace", "50ms", "free/17", "-c", "trap '' TERM; sleep 100"},
			124, "", "--max-hold",
		},
		{
			"max-hold, another signal",
			[]string{
				"--max-hold", "1s", "--signal", "int", "--grace", "20s", "free/18",
				"-c", "trap 'kill $!; echo cleaned; exit 4' INT; sleep 100 & wait",
			},
			124, "cleaned\n", "--max-hold",
		},

		{"no arguments", nil, 64, "", "want NAME -- COMMAND"},
		{"no command", []string{"x"}, 64, "", "command is missing"},
		{"no command after --", []string{"x", "--"}, 64, "", "command is missing"},
		{"an empty name", []string{"", "--", "echo", "no"}, 64, "", "NAME"},
		{"no --", []string{"x", "echo", "no"}, 64, "", "want -- between NAME and COMMAND"},
		{"two names", []string{"x", "y", "--", "echo", "no"}, 64, "", `unexpected argument "y"`},
		{"a command beside -c", []string{"x", "-c", "echo no", "--", "echo"}, 64, "", "beside -c"},
		{"a name that is not UTF-8", []string{"x\xff", "--", "echo", "no"}, 64, "", "UTF-8"},
		{"a name that the server rejects", []string{"x\ty", "--", "echo", "no"}, 64, "", "resource_name"},
		{"a name that is too long", []string{strings.Repeat("x", 300), "--", "echo", "no"}, 64, "", "resource_name"},
		{"an unknown flag", []string{"--no-such", "x", "--", "echo", "no"}, 64, "", "unknown flag"},
		{"both waits", []string{"-n", "-w", "1s", "x", "--", "echo", "no"}, 64, "", "none of the others can be"},
		{"a wait without a unit", []string{"-w", "5", "x", "--", "echo", "no"}, 64, "", "want a number with a unit"},
		{"a negative wait", []string{"-w=-1s", "x", "--", "echo", "no"}, 64, "", "want a number with a unit"},
		{"a short TTL", []string{"--ttl", "4999ms", "x", "--", "echo", "no"}, 64, "", "at least 5s"},
		{"no TTL", []string{"--ttl", "0s", "x", "--", "echo", "no"}, 64, "", "--ttl"},
		{"an unknown signal", []string{"--signal", "NOPE", "x", "--", "echo", "no"}, 64, "", "unknown signal"},
		{"an empty signal", []string{"--signal", "", "x", "--", "echo", "no"}, 64, "", "unknown signal"},
		{"an unknown policy", []string{"--on-lost", "hope", "x", "--", "echo", "no"}, 64, "", "want stop or warn"},
		{"an unknown group", []string{"--pgroup", "old", "x", "--", "echo", "no"}, 64, "", "want auto, new or same"},
		{"a code above 255", []string{"-E", "256", "x", "--", "echo", "no"}, 64, "", "0 to 255"},
		{"a negative code", []string{"-E=-1", "x", "--", "echo", "no"}, 64, "", "0 to 255"},
		{"quiet and verbose", []string{"-q", "-v", "x", "--", "echo", "no"}, 64, "", "none of the others can be"},
		{"a wrong URL", []string{"--url", "localhost:8000", "x", "--", "echo", "no"}, 64, "", "--url"},
		{
			"no server",
			[]string{"--url", closedPort, "--server-timeout", "1ms", "x", "--", "echo", "no"},
			69, "", "not acquired",
		},
		{
			"no server until the wait has timed out",
			[]string{"--url", closedPort, "-w", "200ms", "x", "--", "echo", "no"},
			69, "", "not acquired",
		},
	}
	t.Run("cases", func(t *testing.T) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				j := startRun(t, base, test.args...)
				j.wantCode(t, test.code)
				if got := strings.Join(j.rest(t), "\n"); got != strings.TrimSpace(test.stdout) {
					t.Errorf("stdout %q, want %q", got, test.stdout)
				}
				stderr := j.stderr.String()
				if !strings.Contains(stderr, test.stderr) || (test.stderr == "") != (stderr == "") {
					t.Errorf("stderr %q, want %q", stderr, test.stderr)
				}
				for line := range strings.Lines(stderr) {
					if !strings.HasPrefix(line, "lockctl: ") {
						t.Errorf("stderr has a line without the name of the program: %q", line)
					}
				}
				if len(test.args) > 0 && test.args[0] != "x" && strings.HasPrefix(test.args[0], "free/") {
					if owner := currentHolder(t, c, test.args[0]); owner != "" {
						t.Errorf("still held by %s", owner)
					}
				}
			})
		}
	})
	if err := held.Err(); err != nil {
		t.Errorf("the lock of the test has ended: %v", err)
	}
	for e, err := range c.History(t.Context(), client.HistoryOptions{Resource: "x"}) {
		must(t, err)
		t.Errorf("an invalid command line has acquired a lock: %+v", e)
	}
}

// An invalid setting ends lockctl before it sends a request.
func TestInvalidSettings(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	for name, variable := range map[string]string{
		"url":         "LOCKCTL_URL=ftp://x",
		"no file":     "LOCKCTL_CONFIG=/no/such/file",
		"broken file": "LOCKCTL_CONFIG=" + file(t, "config", "LOCKCTL_URL", 0o600),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := lockctlCommand(base, "run", "x", "--", "echo", "no")
			cmd.Env = append(cmd.Env, variable)
			j := startJob(t, cmd)
			j.wantCode(t, 78)
			if got := j.rest(t); len(got) != 0 {
				t.Errorf("stdout %q", got)
			}
		})
	}
}

// A signal ends the wait and removes the place from the queue, so the next waiter gets
// the lock.
func TestSignalDuringTheWait(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	for _, verb := range []string{"run", "acquire"} {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
			name := verb + "/" + s.String()
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := hold(t, c, name, "first")
				args := []string{verb, "--process-id", "second", name}
				if verb == "run" {
					args = append(args, "--", "echo", "no")
				}
				second := startJob(t, lockctlCommand(base, args...))
				awaitWaiter(t, c, name, "second")
				third := startRun(t, base, "--process-id", "third", name, "-c", "echo mine; cat")
				awaitWaiter(t, c, name, "third")
				second.signal(t, s)
				second.wantCode(t, 128+int(s))
				if got := second.rest(t); len(got) != 0 {
					t.Errorf("stdout %q", got)
				}
				must(t, l.Unlock(t.Context()))
				third.line(t, "mine")
				if owner := currentHolder(t, c, name); owner != "third" {
					t.Errorf("held by %q", owner)
				}
				must(t, third.in.Close())
				third.wantCode(t, 0)
			})
		}
	}
}

// acquire prints the token only.
func TestAcquire(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	args := []string{"acquire", "--ttl", "10m", "--reason", "release", "--metadata", "build=7", "web"}
	j := startJob(t, lockctlCommand(base, args...))
	j.wantCode(t, 0)
	out := j.rest(t)
	s, err := c.Status(t.Context(), "web")
	must(t, err)
	if s.Holder == nil || len(out) != 1 || out[0] != strconv.FormatInt(s.Holder.FencingToken, 10) ||
		s.Holder.Reason != "release" {
		t.Errorf("stdout is %q, and the server shows %+v", out, s.Holder)
	}
	if j.stderr.String() != "" {
		t.Errorf("stderr %q", j.stderr)
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	cmd := lockctlCommand(base, "acquire", "unprinted")
	cmd.Stdout = full
	j = startJob(t, cmd)
	if code := j.code(t); code == 0 || !strings.Contains(j.stderr.String(), "no space left") {
		t.Errorf("exit code %d, stderr %q", code, j.stderr)
	}
	awaitHolder(t, c, "unprinted", "")
}
