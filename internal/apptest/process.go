// Package apptest runs the server as the process that users run, for tests that signal it, kill it and read its log.
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

// Timeout is for what takes milliseconds: no test passes because of it.
const Timeout = 30 * time.Second

// Process is a started lockd.
type Process struct {
	Output    *Output
	Listening <-chan string   // gets the address at which it serves requests, once
	Exited    <-chan struct{} // closed when it has ended

	cmd *exec.Cmd
}

// Launch starts a program that is lockd, whose environment must ask for a log in JSON where the test reads it. The process is
// stopped when the test ends, and then must have stopped in order, unless it has ended before.
func Launch(tb testing.TB, cmd *exec.Cmd) *Process {
	tb.Helper()
	listening, exited := make(chan string, 1), make(chan struct{})
	p := &Process{
		Output:    &Output{listening: listening, statuses: map[string]int{}},
		Listening: listening,
		Exited:    exited,
		cmd:       cmd,
	}
	// The race detector would let every process wait for a second before it exits.
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	if cmd.Stderr == nil { // a test may want the log elsewhere
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
		_ = cmd.Wait() // ProcessState tells how it ended
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

// ID is that of the process.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Address waits until the process serves requests, and returns where.
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

// ExitCode waits for the end of the process, -1 being that by a signal.
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

// Stop ends the process with a signal and checks that it went in order.
func (p *Process) Stop(tb testing.TB, signal os.Signal) {
	tb.Helper()
	p.Signal(tb, signal)
	p.WantStopped(tb)
}

// Signal sends a signal.
func (p *Process) Signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		tb.Error(err)
	}
}

// WantStopped waits for the end of a process that was told to stop, and checks that it went in order.
func (p *Process) WantStopped(tb testing.TB) {
	tb.Helper()
	if code := p.ExitCode(tb); code != 0 {
		tb.Errorf("exit code %d after a signal", code)
	}
	if last := p.Output.lastMessage(); last != "stopped" {
		tb.Errorf("the last log line says %q, want stopped", last)
	}
}

// Kill ends the process as a crash would.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	if code := p.ExitCode(tb); code != -1 {
		tb.Fatalf("it ended by itself before it was killed, with code %d", code)
	}
}

// Output collects what a process prints.
type Output struct {
	listening chan<- string // the address at which it says that it listens

	mu       sync.Mutex
	text     bytes.Buffer
	seen     int            // bytes of text that are searched already
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

// String is all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Status of a finished request, by its X-Request-Id; 0 while it runs. The server must log at the level debug.
func (o *Output) Status(requestID string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.statuses[requestID]
}

// Tail is as much of the end as helps to understand a failure.
func (o *Output) Tail() string {
	text := o.String()
	return text[max(0, len(text)-2000):]
}

// Lines of the output.
func (o *Output) Lines() []string {
	return strings.Split(strings.TrimSuffix(o.String(), "\n"), "\n")
}

// lastMessage is that of the last line, or the line itself if it is no log record.
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

// Eventually tries a few times in quick succession and then at leisure, until it is so.
func Eventually(tb testing.TB, what string, isSo func() bool) {
	tb.Helper()
	deadline := time.After(Timeout)
	for pause := time.Millisecond; !isSo(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-deadline:
			tb.Fatal("this never came: ", what)
		case <-time.After(pause):
		}
	}
}

// Patience is the old name of Timeout.
const Patience = Timeout
