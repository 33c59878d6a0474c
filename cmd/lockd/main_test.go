package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/testdb"
)

const (
	runMain      = "LOCKD_RUN_MAIN" // set to 1: the test binary is lockd, built with the test's flags such as -race
	maxFileBytes = "LOCKD_TEST_MAX_FILE_BYTES"

	patience = 30 * time.Second // for what takes milliseconds: no test passes because of it
)

func TestMain(m *testing.M) {
	if os.Getenv(runMain) == "1" {
		if limit := os.Getenv(maxFileBytes); limit != "" {
			limitFiles(limit)
		}
		main()
		return
	}
	os.Exit(testdb.Main(m))
}

// limitFiles makes writes beyond a size fail, for this process.
func limitFiles(limit string) {
	n, err := strconv.ParseUint(limit, 10, 64)
	if err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
	}
	if err != nil {
		panic(err)
	}
}

// onBoth runs a test on a new database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, sqliteURL(testdb.SQLite(t)))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, testdb.Postgres(t))
	})
}

func sqliteURL(path string) string { return "sqlite:///" + path }

// process is a started lockd.
type process struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{}
}

// launch starts lockd in a folder with nothing but the given variables in its environment. It is stopped when the test
// ends, and then must have stopped in order.
func launch(tb testing.TB, folder string, environment []string, args ...string) *process {
	tb.Helper()
	p := &process{
		cmd:    exec.Command(os.Args[0], args...),
		output: &output{listening: make(chan string, 1), statuses: map[string]int{}},
		exited: make(chan struct{}),
	}
	p.cmd.Dir = folder
	// The race detector would let every process wait for a second before it exits.
	p.cmd.Env = append([]string{runMain + "=1", "GORACE=atexit_sleep_ms=0"}, environment...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no orphans when the tests are killed
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState tells how it ended
		close(p.exited)
	}()
	tb.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			p.stop(tb, syscall.SIGTERM)
		}
		if strings.Contains(p.output.String(), "DATA RACE") {
			tb.Error("the server has a data race")
		}
		if tb.Failed() {
			tb.Logf("output of lockd:\n%s", p.output.tail())
		}
	})
	return p
}

// exitCode waits for the end of the process, -1 being that by a signal.
func (p *process) exitCode(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		tb.Fatal("lockd does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process with a signal and checks that it went in order.
func (p *process) stop(tb testing.TB, signal os.Signal) {
	tb.Helper()
	p.signal(tb, signal)
	p.wantStopped(tb)
}

func (p *process) signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		tb.Error(err)
	}
}

// wantStopped waits for the end of a process that was told to stop, and checks that it went in order.
func (p *process) wantStopped(tb testing.TB) {
	tb.Helper()
	if code := p.exitCode(tb); code != 0 {
		tb.Errorf("exit code %d after a signal", code)
	}
	if last := p.output.lastMessage(); last != "stopped" {
		tb.Errorf("the last log line says %q, want stopped", last)
	}
}

// kill ends the process as a crash would.
func (p *process) kill(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	if code := p.exitCode(tb); code != -1 {
		tb.Fatalf("it ended by itself before it was killed, with code %d", code)
	}
}

// server is a lockd that listens.
type server struct {
	*process
	*client
}

// start runs lockd on a database and waits until it listens.
func start(tb testing.TB, databaseURL string, more ...string) *server {
	tb.Helper()
	return launch(tb, tb.TempDir(), environment(databaseURL, more...)).listening(tb)
}

func environment(databaseURL string, more ...string) []string {
	return append([]string{"DATABASE_URL=" + databaseURL, "PORT=0", "LOG_FORMAT=json"}, more...)
}

// listening waits until the process serves requests.
func (p *process) listening(tb testing.TB) *server {
	tb.Helper()
	select {
	case address := <-p.output.listening:
		return &server{p, newClient(tb, address)}
	case <-p.exited:
		tb.Fatalf("lockd ended with %v instead of listening", p.cmd.ProcessState)
	case <-time.After(patience):
		tb.Fatal("lockd does not listen")
	}
	panic("unreachable")
}

// output collects what a process prints and hands on the address at which it says that it listens.
type output struct {
	listening chan string

	mu   sync.Mutex
	text bytes.Buffer
	seen int // bytes of text that are searched already

	statuses map[string]int // by the ids of finished requests
}

func (o *output) Write(p []byte) (int, error) {
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

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// status of a finished request, 0 while it runs.
func (o *output) status(requestID string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.statuses[requestID]
}

// tail is as much of the end as helps to understand a failure.
func (o *output) tail() string {
	text := o.String()
	return text[max(0, len(text)-2000):]
}

func (o *output) lines() []string {
	return strings.Split(strings.TrimSuffix(o.String(), "\n"), "\n")
}

func (o *output) lastMessage() string {
	lines := o.lines()
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

// eventually tries a few times in quick succession and then at leisure, until it is so.
func eventually(tb testing.TB, what string, isSo func() bool) {
	tb.Helper()
	deadline := time.After(patience)
	for pause := time.Millisecond; !isSo(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-deadline:
			tb.Fatal("this never came: ", what)
		case <-time.After(pause):
		}
	}
}

// only fails unless lines has exactly one element, and returns it.
func only(tb testing.TB, lines []string) string {
	tb.Helper()
	if len(lines) != 1 {
		tb.Fatal(fmt.Sprintf("%d lines, want one:\n", len(lines)) + strings.Join(lines, "\n"))
	}
	return lines[0]
}
