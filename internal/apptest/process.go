// Package apptest runs the server as a process, as users do, for tests that signal it,
// kill it and read its log.
package apptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Timeout is the timeout for what takes milliseconds. No test passes by reaching it.
const Timeout = 30 * time.Second

// Process is a started lockd.
type Process struct {
	Output    *Output
	Listening <-chan string   // receives the address at which it serves requests, once
	Exited    <-chan struct{} // closed when it has ended

	cmd *exec.Cmd
}

// Launch starts a lockd. Its environment must select a log in JSON if the test reads the
// log. When the test ends, the process is stopped, unless it has ended before. Then it
// must have stopped in order.
func Launch(tb testing.TB, cmd *exec.Cmd) *Process {
	tb.Helper()
	listening, exited := make(chan string, 1), make(chan struct{})
	p := &Process{
		Output:    &Output{listening: listening, statuses: map[string]int{}},
		Listening: listening,
		Exited:    exited,
		cmd:       cmd,
	}
	// With its default the race detector makes every process wait for a second before it
	// exits.
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	if cmd.Stderr == nil { // the test has not set a destination of its own
		cmd.Stdout, cmd.Stderr = p.Output, p.Output
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // no orphans when the tests are killed
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState has the result
		close(exited)
	}()
	tb.Cleanup(func() {
		select {
		case <-p.Exited:
		default:
			p.Stop(tb, syscall.SIGTERM)
		}
		if strings.Contains(p.Output.String(), "DATA RACE") {
			tb.Error("the server has a data race")
		}
		if tb.Failed() {
			tb.Logf("output of lockd:\n%s", p.Output.Tail())
		}
	})
	return p
}

// ID returns the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Address waits until the process serves requests, and returns its address.
func (p *Process) Address(tb testing.TB) string {
	tb.Helper()
	select {
	case address := <-p.Listening:
		return address
	case <-p.Exited:
		tb.Fatalf("lockd ended with %v instead of listening", p.cmd.ProcessState)
	case <-time.After(Timeout):
		tb.Fatal("lockd does not listen")
	}
	panic("unreachable")
}

// ExitCode waits for the end of the process and returns its exit code, or -1 if a signal
// ended it.
func (p *Process) ExitCode(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.Exited:
	case <-time.After(Timeout):
		_ = p.cmd.Process.Kill()
		tb.Fatal("lockd does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop stops the process with a signal and checks that it stopped in order.
func (p *Process) Stop(tb testing.TB, signal os.Signal) {
	tb.Helper()
	p.Signal(tb, signal)
	p.WantStopped(tb)
}

func (p *Process) Signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		tb.Error(err)
	}
}

// WantStopped waits for the end of a process that was signaled to stop, and checks that
// it stopped in order.
func (p *Process) WantStopped(tb testing.TB) {
	tb.Helper()
	if code := p.ExitCode(tb); code != 0 {
		tb.Errorf("exit code %d after a signal", code)
	}
	if last := p.Output.lastMessage(); last != "stopped" {
		tb.Errorf("the last log line says %q, want stopped", last)
	}
}

// Kill ends the process as a crash does.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	if code := p.ExitCode(tb); code != -1 {
		tb.Fatalf("lockd ended before it was killed, with code %d", code)
	}
}

// Output collects what a process prints.
type Output struct {
	listening chan<- string // receives the address of the log line

	mu       sync.Mutex
	text     bytes.Buffer
	seen     int            // the number of bytes of text that were searched already
	statuses map[string]int // by the ids of finished requests
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	for {
		line, _, whole := bytes.Cut(o.text.Bytes()[o.seen:], []byte("\n"))
		if !whole {
			return len(p), nil
		}
		o.seen += len(line) + 1
		switch r, err := parseRecord(line); {
		case err != nil:
		case r.Message == "listening":
			o.listening <- r.Address
		case r.Message == "request":
			o.statuses[r.RequestID] = r.Status
		}
	}
}

// String returns the whole output.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Status returns the status of a finished request by its X-Request-Id. It returns 0 while
// the request runs. The server must log at the level debug.
func (o *Output) Status(requestID string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.statuses[requestID]
}

// Tail returns the last 2,000 bytes.
func (o *Output) Tail() string {
	text := o.String()
	return text[max(0, len(text)-2000):]
}

// Lines returns the lines of the output.
func (o *Output) Lines() []string {
	return strings.Split(strings.TrimSuffix(o.String(), "\n"), "\n")
}

// lastMessage returns the message of the last line, or the line itself if it is no log
// record.
func (o *Output) lastMessage() string {
	lines := o.Lines()
	last := lines[len(lines)-1]
	r, err := parseRecord([]byte(last))
	if err != nil {
		return last
	}
	return r.Message
}

// record is a line of the JSON log.
type record struct {
	Message   string `json:"msg"`
	Address   string `json:"address"`
	RequestID string `json:"request_id"`
	Status    int    `json:"status"`
}

func parseRecord(line []byte) (record, error) {
	var r record
	err := json.Unmarshal(line, &r)
	if err == nil && r.Message == "" {
		err = errors.New("no message")
	}
	return r, err
}

// Eventually waits until a condition is true. The pauses between its checks grow. It
// fails the test after Timeout.
func Eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.After(Timeout)
	for pause := time.Millisecond; !condition(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-deadline:
			tb.Fatal("timed out waiting for: ", what)
		case <-time.After(pause):
		}
	}
}
