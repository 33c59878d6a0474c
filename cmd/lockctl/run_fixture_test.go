//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// closedPort is a URL whose port is reserved, so that no server listens on it.
const closedPort = "http://127.0.0.1:1"

// buildProbe builds the program that lockctl runs in the tests, into the directory of
// lockd.
var buildProbe = sync.OnceValues(func() (string, error) {
	server, err := lockd()
	if err != nil {
		return "", err
	}
	program := filepath.Join(filepath.Dir(server), "probe")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/probe").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building probe: %w\n%s", err, out)
	}
	return program, nil
})

// probe returns the path of the program.
func probe(tb testing.TB) string {
	tb.Helper()
	program, err := buildProbe()
	must(tb, err)
	return program
}

// instance is a lockd that can be restarted at the same address with the same database.
type instance struct {
	*apptest.Process
	url      string
	port     string
	database string
}

func startInstance(tb testing.TB) *instance {
	tb.Helper()
	s := &instance{port: "0", database: testdb.SQLite(tb)}
	s.start(tb)
	_, s.port, _ = net.SplitHostPort(strings.TrimPrefix(s.url, "http://"))
	return s
}

func (s *instance) start(tb testing.TB) {
	tb.Helper()
	program, err := lockd()
	must(tb, err)
	cmd := exec.Command(program)
	cmd.Dir = tb.TempDir()
	cmd.Env = []string{"DATABASE_URL=sqlite:///" + s.database, "PORT=" + s.port, "LOG_FORMAT=json"}
	s.Process = apptest.Launch(tb, cmd)
	s.url = s.Address(tb)
}

// newClient returns a client for the test itself.
func newClient(tb testing.TB, base string) *client.Client {
	tb.Helper()
	c, err := client.New(base, client.Options{})
	must(tb, err)
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

// job is a running lockctl.
type job struct {
	cmd    *exec.Cmd
	in     *os.File // the other end of its stdin
	tty    *os.File // the other end of its terminal; nil: it has none
	lines  chan string
	seen   []string // the lines received from lines
	stderr *text
	exited chan struct{}
}

// text is the content of a file, or the output of a terminal.
type text struct {
	file string // empty: the output of a terminal

	mu    sync.Mutex
	shown bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shown.Write(p)
}

func (o *text) String() string {
	if o.file != "" {
		content, err := os.ReadFile(o.file)
		if err != nil {
			return err.Error()
		}
		return string(content)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shown.String()
}

// lockctlCommand returns a command that runs lockctl in a session of its own, so that it
// has no terminal.
func lockctlCommand(base string, args ...string) *exec.Cmd {
	cmd := exec.Command("lockctl", args...)
	isSetting := func(v string) bool { return strings.HasPrefix(v, "LOCK") }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isSetting),
		"LOCKCTL_URL="+base, "LOCKCTL_CONFIG="+os.DevNull, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// startRun starts lockctl run without a terminal.
func startRun(tb testing.TB, base string, args ...string) *job {
	tb.Helper()
	return startJob(tb, lockctlCommand(base, append([]string{"run"}, args...)...))
}

// startJob starts a command whose streams are pipes, unless they are set.
func startJob(tb testing.TB, cmd *exec.Cmd) *job {
	tb.Helper()
	in, stdin, err := os.Pipe()
	must(tb, err)
	out, stdout, err := os.Pipe()
	must(tb, err)
	stderr, err := os.CreateTemp(tb.TempDir(), "stderr")
	must(tb, err)
	j := &job{cmd: cmd, in: stdin, stderr: &text{file: stderr.Name()}}
	if cmd.Stdin == nil {
		cmd.Stdin = in
	}
	if cmd.Stdout == nil {
		cmd.Stdout = stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = stderr
	}
	must(tb, cmd.Start())
	for _, file := range []*os.File{in, stdout, stderr} {
		_ = file.Close()
	}
	j.follow(tb, out)
	tb.Cleanup(func() {
		_ = stdin.Close()
		_ = out.Close()
	})
	return j
}

// startOnTerminal starts a command on a terminal of the given width.
func startOnTerminal(tb testing.TB, cmd *exec.Cmd, width uint16) *job {
	tb.Helper()
	terminal, tty, err := pty.Open()
	must(tb, err)
	must(tb, pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: width}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	must(tb, cmd.Start())
	must(tb, tty.Close())
	// A nonblocking file can be closed during a read.
	fd, err := unix.FcntlInt(terminal.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(tb, err)
	must(tb, unix.SetNonblock(fd, true))
	must(tb, terminal.Close())
	terminal = os.NewFile(uintptr(fd), "terminal")
	j := &job{cmd: cmd, tty: terminal, stderr: &text{}}
	j.follow(tb, io.TeeReader(terminal, j.stderr))
	tb.Cleanup(func() { _ = terminal.Close() })
	return j
}

// follow reads the output of a started command and waits for its end.
func (j *job) follow(tb testing.TB, out io.Reader) {
	tb.Helper()
	j.lines, j.exited = make(chan string, 10000), make(chan struct{})
	go func() {
		defer close(j.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			line := strings.TrimRight(scanner.Text(), "\r")
			line = line[strings.LastIndexByte(line, '\r')+1:] // the text before it is overwritten
			j.lines <- strings.TrimPrefix(line, "\x1b[K")
		}
	}()
	go func() {
		_ = j.cmd.Wait()
		close(j.exited)
	}()
	tb.Cleanup(func() {
		_ = j.cmd.Process.Signal(syscall.SIGCONT)
		select {
		case <-j.exited:
		default: // the test has failed, or does not wait for the end
			_ = j.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-j.exited:
			case <-time.After(apptest.Timeout):
				_ = j.cmd.Process.Kill()
				tb.Error("lockctl did not end after TERM")
			}
		}
		if strings.Contains(j.stderr.String(), "DATA RACE") {
			tb.Error("lockctl has a data race")
		}
		if tb.Failed() {
			tb.Logf("%v\nlines: %q\nstderr:\n%s", j.cmd.Args, j.seen, j.stderr)
		}
	})
}

// line waits for a line of stdout that contains a text, and returns the rest of that
// line.
func (j *job) line(tb testing.TB, with string) string {
	tb.Helper()
	timeout := time.After(apptest.Timeout)
	for {
		select {
		case line, open := <-j.lines:
			if !open {
				tb.Fatalf("stdout ended without %q: %q", with, j.seen)
			}
			j.seen = append(j.seen, line)
			if _, rest, is := strings.Cut(line, with); is {
				return strings.TrimSpace(rest)
			}
		case <-timeout:
			tb.Fatalf("timeout without %q on stdout: %q", with, j.seen)
		}
	}
}

// rest waits until stdout is closed, and returns all its lines.
func (j *job) rest(tb testing.TB) []string {
	tb.Helper()
	timeout := time.After(apptest.Timeout)
	for {
		select {
		case line, open := <-j.lines:
			if !open {
				return j.seen
			}
			j.seen = append(j.seen, line)
		case <-timeout:
			tb.Fatalf("a process keeps stdout open: %q", j.seen)
		}
	}
}

// ready waits until the given processes of the probe are ready, and returns their IDs in
// the order of names.
func (j *job) ready(tb testing.TB, names ...string) []int {
	tb.Helper()
	ids := make([]int, len(names))
	for range names {
		line := j.line(tb, "")
		fields := strings.Fields(line)
		i := slices.Index(names, fields[0])
		if i < 0 || len(fields) != 4 || fields[1] != "ready" {
			tb.Fatalf("stdout has %q, want %v to be ready", line, names)
		}
		var err error
		ids[i], err = strconv.Atoi(fields[2])
		must(tb, err)
		tb.Cleanup(func() {
			program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", ids[i]))
			if tb.Failed() && strings.HasPrefix(program, probe(tb)) {
				_ = unix.Kill(ids[i], unix.SIGKILL)
			}
		})
	}
	return ids
}

// waitFor waits until stderr or the terminal contains a text.
func (j *job) waitFor(tb testing.TB, text string) {
	tb.Helper()
	apptest.Eventually(tb, text+" on stderr", func() bool { return strings.Contains(j.stderr.String(), text) })
}

func (j *job) signal(tb testing.TB, s os.Signal) {
	tb.Helper()
	must(tb, j.cmd.Process.Signal(s))
}

// code waits for the end and returns the exit code, 130 for an end by SIGINT, and -1 for
// an end by another signal.
func (j *job) code(tb testing.TB) int {
	tb.Helper()
	select {
	case <-j.exited:
	case <-time.After(apptest.Timeout):
		_ = j.cmd.Process.Signal(syscall.SIGQUIT)
		tb.Fatalf("%v does not end\n%s", j.cmd.Args, j.stderr)
	}
	status := j.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGINT {
		return exitInterrupted
	}
	return j.cmd.ProcessState.ExitCode()
}

func (j *job) wantCode(tb testing.TB, want int) {
	tb.Helper()
	if got := j.code(tb); got != want {
		tb.Errorf("exit code %d, want %d; stderr: %s", got, want, j.stderr)
	}
}

// events returns the events of --json. stderr must not contain other lines.
func (j *job) events(tb testing.TB) []event {
	tb.Helper()
	var list []event
	for line := range strings.Lines(j.stderr.String()) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			tb.Errorf("not a JSON object: %q", line)
		}
		list = append(list, e)
	}
	return list
}

// awaitExit waits until a process has ended. A zombie has ended.
func awaitExit(tb testing.TB, pid int) {
	tb.Helper()
	apptest.Eventually(tb, "the end of process "+strconv.Itoa(pid), func() bool { return !runs(pid) })
}

func runs(pid int) bool {
	s := state(pid)
	return s != "" && s != "Z" && s != "X"
}

// state returns the state letter of a process, as in ps, or "" if there is no such
// process.
func state(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

// awaitHolder waits until owner holds a resource, or until it is free if owner is empty.
func awaitHolder(tb testing.TB, c *client.Client, resource, owner string) {
	tb.Helper()
	apptest.Eventually(tb, resource+" held by "+owner, func() bool { return currentHolder(tb, c, resource) == owner })
}

// currentHolder returns the owner of the hold, or "" if the resource is free.
func currentHolder(tb testing.TB, c *client.Client, resource string) string {
	tb.Helper()
	s, err := c.Status(tb.Context(), resource)
	must(tb, err)
	if s.Holder == nil {
		return ""
	}
	return s.Holder.Owner
}

// awaitWaiter waits until a request of owner is in a queue.
func awaitWaiter(tb testing.TB, c *client.Client, resource, owner string) {
	tb.Helper()
	apptest.Eventually(tb, owner+" waits", func() bool {
		for w, err := range c.Queue(tb.Context(), resource, 0) {
			must(tb, err)
			if w.Owner == owner {
				return true
			}
		}
		return false
	})
}

// hold acquires a resource for the test, and releases it when the test ends.
func hold(tb testing.TB, c *client.Client, resource, owner string) *client.Lock {
	tb.Helper()
	l, err := c.Lock(tb.Context(), resource, client.LockOptions{Owner: owner})
	must(tb, err)
	tb.Cleanup(func() { _ = l.Unlock(tb.Context()) })
	return l
}

// forceRelease ends the current hold of a resource.
func forceRelease(tb testing.TB, c *client.Client, resource, reason string) {
	tb.Helper()
	_, err := c.ForceRelease(tb.Context(), resource, client.ForceReleaseOptions{By: "admin", Reason: reason})
	must(tb, err)
}

// file writes a file into a temporary directory of the test.
func file(tb testing.TB, name, content string, mode os.FileMode) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	must(tb, os.WriteFile(path, []byte(content), mode))
	must(tb, os.Chmod(path, mode))
	return path
}

// signalNumber returns the signal with a name such as TERM.
func signalNumber(name string) syscall.Signal { return unix.SignalNum("SIG" + name) }

// signalCounts returns how often each process of the probe has received each signal. The
// keys have the form "child TERM".
func signalCounts(lines []string) map[string]int {
	counts := map[string]int{}
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "got" {
			name := strings.TrimLeft(fields[0], "^CZ\\") // a terminal shows keys before the name
			counts[name+" "+fields[2]]++
		}
	}
	return counts
}
