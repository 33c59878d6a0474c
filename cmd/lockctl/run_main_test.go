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

// buildProbe builds the program that the tests have lockctl run, once, beside the server.
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

// probe is the path of the program.
func probe(tb testing.TB) string {
	tb.Helper()
	program, err := buildProbe()
	must(tb, err)
	return program
}

// instance is a lockd that can be started again at the same address with the same
// database.
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

// observed is a client of the tests themselves.
func observed(tb testing.TB, base string) *client.Client {
	tb.Helper()
	c, err := client.New(base, client.Options{})
	must(tb, err)
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

// job is a lockctl that runs.
type job struct {
	cmd    *exec.Cmd
	in     *os.File // the other end of its stdin
	tty    *os.File // the other end of its terminal; nil: it has none
	lines  chan string
	seen   []string // lines that were taken from lines
	stderr *text
	exited chan struct{}
}

// text is what a process has written to a file, or what a terminal has shown.
type text struct {
	file string // empty: it is a terminal

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

// lockctlCommand is lockctl with its arguments, in a session of its own, so that it has
// no terminal.
func lockctlCommand(base string, args ...string) *exec.Cmd {
	cmd := exec.Command("lockctl", args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LOCK") }),
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

// startOnTerminal starts a command that has a terminal of its own with a width.
func startOnTerminal(tb testing.TB, cmd *exec.Cmd, width uint16) *job {
	tb.Helper()
	terminal, tty, err := pty.Open()
	must(tb, err)
	must(tb, pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: width}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	must(tb, cmd.Start())
	must(tb, tty.Close())
	// A file that does not block can be closed while it is read.
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

// follow reads the output of a started command and awaits its end.
func (j *job) follow(tb testing.TB, out io.Reader) {
	tb.Helper()
	j.lines, j.exited = make(chan string, 10000), make(chan struct{})
	go func() {
		defer close(j.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			line := strings.TrimRight(scanner.Text(), "\r")
			line = line[strings.LastIndexByte(line, '\r')+1:] // what was before it is overwritten
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
		default: // the test has failed, or does not care
			_ = j.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-j.exited:
			case <-time.After(apptest.Patience):
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

// line returns the rest of the next line of stdout that contains a text.
func (j *job) line(tb testing.TB, with string) string {
	tb.Helper()
	patience := time.After(apptest.Patience)
	for {
		select {
		case line, open := <-j.lines:
			if !open {
				tb.Fatalf("it printed no %q, but %q", with, j.seen)
			}
			j.seen = append(j.seen, line)
			if _, rest, is := strings.Cut(line, with); is {
				return strings.TrimSpace(rest)
			}
		case <-patience:
			tb.Fatalf("it did not print %q, but %q", with, j.seen)
		}
	}
}

// rest returns all lines that were printed, when the output has been closed.
func (j *job) rest(tb testing.TB) []string {
	tb.Helper()
	patience := time.After(apptest.Patience)
	for {
		select {
		case line, open := <-j.lines:
			if !open {
				return j.seen
			}
			j.seen = append(j.seen, line)
		case <-patience:
			tb.Fatalf("somebody keeps its output open: %q", j.seen)
		}
	}
}

// ready waits until processes of the probe are, and returns their ids in order.
func (j *job) ready(tb testing.TB, names ...string) []int {
	tb.Helper()
	ids := make([]int, len(names))
	for range names {
		line := j.line(tb, "")
		fields := strings.Fields(line)
		i := slices.Index(names, fields[0])
		if i < 0 || len(fields) != 4 || fields[1] != "ready" {
			tb.Fatalf("it printed %q, want %v to be ready", line, names)
		}
		var err error
		ids[i], err = strconv.Atoi(fields[2])
		must(tb, err)
		tb.Cleanup(func() { // of a test that has failed
			if program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", ids[i])); tb.Failed() && strings.HasPrefix(program, probe(tb)) {
				_ = unix.Kill(ids[i], unix.SIGKILL)
			}
		})
	}
	return ids
}

// waitFor waits until stderr, or the terminal, shows a text.
func (j *job) waitFor(tb testing.TB, text string) {
	tb.Helper()
	apptest.Eventually(tb, text+" on stderr", func() bool { return strings.Contains(j.stderr.String(), text) })
}

func (j *job) signal(tb testing.TB, s os.Signal) {
	tb.Helper()
	must(tb, j.cmd.Process.Signal(s))
}

// code waits for the end and returns what a shell would show after Ctrl-C; -1 is the end
// by another signal.
func (j *job) code(tb testing.TB) int {
	tb.Helper()
	select {
	case <-j.exited:
	case <-time.After(apptest.Patience):
		_ = j.cmd.Process.Signal(syscall.SIGQUIT)
		tb.Fatalf("it does not end: %v\n%s", j.cmd.Args, j.stderr)
	}
	if status := j.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() == syscall.SIGINT {
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

// events of --json, which must be all of stderr.
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

// gone waits until a process has ended; one that nobody has awaited has ended as well.
func gone(tb testing.TB, pid int) {
	tb.Helper()
	apptest.Eventually(tb, "the end of process "+strconv.Itoa(pid), func() bool { return !runs(pid) })
}

func runs(pid int) bool {
	s := state(pid)
	return s != "" && s != "Z" && s != "X"
}

// state is the letter that ps shows; empty: there is no such process.
func state(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

// awaitHolder waits until a process holds a resource; empty: nobody.
func awaitHolder(tb testing.TB, c *client.Client, resource, owner string) {
	tb.Helper()
	apptest.Eventually(tb, resource+" held by "+owner, func() bool { return holderNow(tb, c, resource) == owner })
}

func holderNow(tb testing.TB, c *client.Client, resource string) string {
	tb.Helper()
	s, err := c.Status(tb.Context(), resource)
	must(tb, err)
	if s.Holder == nil {
		return ""
	}
	return s.Holder.Owner
}

// awaitWaiter waits until a process is in a queue.
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

// hold has the test itself hold a resource until it ends.
func hold(tb testing.TB, c *client.Client, resource, owner string) *client.Lock {
	tb.Helper()
	l, err := c.Lock(tb.Context(), resource, client.LockOptions{Owner: owner})
	must(tb, err)
	tb.Cleanup(func() { _ = l.Unlock(tb.Context()) })
	return l
}

// file writes a file into a folder of the test.
func file(tb testing.TB, name, content string, mode os.FileMode) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	must(tb, os.WriteFile(path, []byte(content), mode))
	must(tb, os.Chmod(path, mode))
	return path
}

// signalNumber is that of a name such as TERM.
func signalNumber(name string) syscall.Signal { return unix.SignalNum("SIG" + name) }
