package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// TestMain makes this test binary the commands lockctl and terminal, which the tests
// start.
func TestMain(m *testing.M) {
	testscript.Main(cleanUp{m}, map[string]func(){"lockctl": main, "terminal": onTerminal})
}

// cleanUp runs the tests and removes the programs that they have built.
type cleanUp struct{ *testing.M }

func (c cleanUp) Run() int {
	apptest.CatchIgnored()
	// Most tests wait for processes, so more tests than cores can run in parallel.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := c.M.Run()
	if built.Load() {
		if program, err := lockd(); err == nil {
			_ = os.RemoveAll(filepath.Dir(program))
		}
	}
	return code
}

// lockd builds the server when a test first needs it, and returns the path of the
// program.
var lockd = sync.OnceValues(func() (string, error) {
	built.Store(true)
	dir, err := os.MkdirTemp("", "lockctl-test")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", dir, "../lockd").CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("building lockd: %w\n%s", err, out)
	}
	return filepath.Join(dir, "lockd"), nil
})

// built reports whether lockd was called, so that there is a directory to remove.
var built atomic.Bool

// startServer runs lockd on a new SQLite database and returns its base URL.
func startServer(tb testing.TB) string {
	tb.Helper()
	program, err := lockd()
	must(tb, err)
	cmd := exec.Command(program)
	cmd.Dir = tb.TempDir()
	cmd.Env = []string{"DATABASE_URL=sqlite:///" + testdb.SQLite(tb), "PORT=0", "LOG_FORMAT=json"}
	return apptest.Launch(tb, cmd).Address(tb)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// result is the result of a command line.
type result struct {
	code     int
	out, err string
}

// lockctl runs a command line in this process.
func lockctl(tb testing.TB, in io.Reader, base string, args ...string) result {
	tb.Helper()
	var out, errs bytes.Buffer
	environ := []string{"LOCKCTL_URL=" + base, "LOCKCTL_CONFIG=" + os.DevNull, "LOCKCTL_PROCESS_ID=tester"}
	code := run(tb.Context(), args, environ, in, &out, &errs)
	return result{code, out.String(), errs.String()}
}

// onTerminal is the command "terminal INPUT COMMAND ARG...". It runs a command on a
// terminal, types INPUT as a line unless it is empty, prints the output of the terminal,
// and exits with the command's exit code.
func onTerminal() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 200})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	watchdog := time.AfterFunc(apptest.Timeout, func() { _ = cmd.Process.Kill() })
	if input := os.Args[1]; input != "" {
		_, _ = tty.WriteString(input + "\n")
	}
	shown, _ := io.ReadAll(tty) // returns a system error when the command has ended
	_ = cmd.Wait()
	watchdog.Stop()
	_, _ = os.Stdout.Write(bytes.ReplaceAll(shown, []byte("\r\n"), []byte("\n")))
	os.Exit(cmd.ProcessState.ExitCode())
}

func TestScripts(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			host, err := os.Hostname()
			env.Setenv("LOCKCTL_URL", base)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "settings"))
			env.Setenv("USER", "tester")
			env.Setenv("HOST", host)
			env.Setenv("LONG", strings.Repeat("漢", 255))
			env.Setenv("RLO", "names/\u202egpj")
			env.Setenv("ESC", "\x1b")
			env.Setenv("BROKEN", "names\xff")
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  wantCode,
			"lock":  func(ts *testscript.TestScript, _ bool, args []string) { lock(ts, base, args[0]) },
			"await": func(ts *testscript.TestScript, _ bool, args []string) { await(ts, base, args[0]) },
		},
	})
}

// wantCode is the script command "code N COMMAND ARG...". It fails unless the exit code
// is N.
func wantCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, is := errors.AsType[*exec.ExitError](err)
		if !is {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// lock is the script command "lock JSON". It acquires a lock and sets TOKEN.
func lock(ts *testscript.TestScript, base, body string) {
	answer, err := post(context.Background(), base, body)
	ts.Check(err)
	ts.Setenv("TOKEN", strconv.FormatInt(answer.FencingToken, 10))
}

// await is the script command "await JSON". It starts a request and returns when the
// request waits. The request is canceled when the script ends.
func await(ts *testscript.TestScript, base, body string) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = post(ctx, base, body)
	}()
	ts.Defer(func() {
		cancel()
		<-ended
	})
	var request struct {
		Resource string `json:"resource_name"`
		Process  string `json:"process_id"`
	}
	ts.Check(json.Unmarshal([]byte(body), &request))
	c, err := client.New(base, client.Options{})
	ts.Check(err)
	defer c.CloseIdleConnections()
	for ctx, stop := context.WithTimeout(ctx, apptest.Timeout); ; {
		for waiter, err := range c.Queue(ctx, request.Resource, 0) {
			ts.Check(err)
			if waiter.Owner == request.Process {
				stop()
				return
			}
		}
	}
}

func post(ctx context.Context, base, body string) (client.Hold, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/locks/request", strings.NewReader(body))
	if err != nil {
		return client.Hold{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return client.Hold{}, err
	}
	defer res.Body.Close()
	var answer struct {
		Data   client.Hold     `json:"data"`
		Detail json.RawMessage `json:"detail"`
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer.Detail)
	}
	return answer.Data, err
}

// force-release does not end a new hold that began while the user was asked.
func TestForceReleaseEndsOnlyTheShownHold(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	_, err := post(t.Context(), base, `{"resource_name":"web","process_id":"first"}`)
	must(t, err)
	terminal, tty, err := pty.Open()
	must(t, err)
	t.Cleanup(func() {
		terminal.Close()
		tty.Close()
	})
	asked, stderr := io.Pipe()
	code := make(chan int, 1)
	go func() {
		environ := []string{"LOCKCTL_URL=" + base, "LOCKCTL_CONFIG=" + os.DevNull}
		args := []string{"force-release", "web", "--reason", "gone"}
		code <- run(t.Context(), args, environ, tty, io.Discard, stderr)
		stderr.Close()
	}()
	shown := bufio.NewReader(asked)
	question, err := shown.ReadString('?')
	must(t, err)
	if !strings.Contains(question, "web: locked by first since ") {
		t.Errorf("the question is %q", question)
	}
	c, err := client.New(base, client.Options{})
	must(t, err)
	t.Cleanup(c.CloseIdleConnections)
	must(t, c.Release(t.Context(), "web", "first", 0))
	_, err = post(t.Context(), base, `{"resource_name":"web","process_id":"second"}`)
	must(t, err)
	_, err = terminal.WriteString("y\n")
	must(t, err)
	rest, err := io.ReadAll(shown)
	must(t, err)
	want := "web: the hold of first had ended before; nothing was changed"
	if got := <-code; got != exitNo || !strings.Contains(string(rest), want) {
		t.Errorf("exit code %d, stderr %q", got, rest)
	}
	s, err := c.Status(t.Context(), "web")
	must(t, err)
	if s.Holder == nil || s.Holder.Owner != "second" {
		t.Errorf("the new hold was ended: %+v", s.Holder)
	}
}

// Commands other than run and acquire are ended by SIGINT itself. So a shell reports 130
// and ends its loops.
func TestSignalEndsACommand(t *testing.T) {
	t.Parallel()
	requested := make(chan struct{}, 1)
	base := silentServer(t, requested)
	cmd := exec.Command("lockctl", "status", "web", "--url", base)
	must(t, cmd.Start())
	<-requested
	must(t, cmd.Process.Signal(os.Interrupt))
	err := cmd.Wait()
	if exit, is := errors.AsType[*exec.ExitError](err); !is || exit.String() != "signal: interrupt" {
		t.Errorf("lockctl ended with %v", err)
	}
}
