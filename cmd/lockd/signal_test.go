package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
)

// busy starts a request that keeps a server from stopping until finish is called.
func (s *server) busy(t *testing.T) (finish func()) {
	t.Helper()
	c := dial(t, s)
	body := `{"resource_name":"r","process_id":"p"}`
	c.sendHead(t, len(body))
	return func() {
		t.Helper()
		c.send(t, body)
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		must(t, err)
		must(t, response.Body.Close())
		if response.StatusCode != http.StatusOK {
			t.Errorf("status %d", response.StatusCode)
		}
	}
}

// TestSIGHUP checks that two SIGHUPs are one request to stop. When a terminal
// closes, both the kernel and the shell send one.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	s := start(t, "sqlite://")
	finish := s.busy(t)
	s.Signal(t, syscall.SIGHUP)
	s.waitForRefusal(t)
	s.Signal(t, syscall.SIGHUP)
	finish()
	s.WantStopped(t)
}

// TestSIGHUPThatIsIgnored starts lockd with SIGHUP ignored, as nohup does.
func TestSIGHUPThatIsIgnored(t *testing.T) {
	t.Parallel()
	s := listening(t, launchInto(t, nil, []string{"sh", "-c", `trap "" HUP; exec "$0"`}))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.ID()))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "SigIgn:")
	var ignored uint64
	_, err = fmt.Sscanf(rest, "%x", &ignored)
	must(t, err)
	if ignored&(1<<(syscall.SIGHUP-1)) == 0 {
		t.Error("the server did not ignore SIGHUP")
	}
	s.Signal(t, syscall.SIGHUP)
	s.acquire(t, "r", "p")
	s.Stop(t, syscall.SIGTERM)
}

func TestSignalsThatMeanNothing(t *testing.T) {
	t.Parallel()
	s := start(t, "sqlite://")
	for _, signal := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE} {
		s.Signal(t, signal)
	}
	s.acquire(t, "r", "p")
	s.Stop(t, syscall.SIGTERM)
}

// TestSignalThatComesTwice checks that two signals in quick succession are one. A shell
// signals the process group, and make forwards the signal to its child.
func TestSignalThatComesTwice(t *testing.T) {
	t.Parallel()
	apptest.Eventually(t, "two signals in quick succession", func() bool {
		s := start(t, "sqlite://")
		finish := s.busy(t)
		begun := time.Now()
		s.Signal(t, syscall.SIGTERM)
		s.waitForRefusal(t)
		if time.Since(begun) > 100*time.Millisecond { // on a busy machine the second signal may be too late
			finish()
			s.WantStopped(t)
			return false
		}
		s.Signal(t, syscall.SIGTERM)
		finish()
		s.WantStopped(t)
		return true
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, "sqlite://", "SHUTDOWN_TIMEOUT=1h")
	s.busy(t) // this request is never finished
	s.signalAndWaitForRefusal(t)
	apptest.Eventually(t, "the process has ended", func() bool {
		select {
		case <-s.Exited:
			return true
		default:
			s.Signal(t, syscall.SIGTERM)
			return false
		}
	})
	if code := s.ExitCode(t); code != -1 {
		t.Errorf("exit code %d, want the end by the signal", code)
	}
}

// TestSignalWhileStarting checks that a server that is still starting stops too, with
// exit code 0.
func TestSignalWhileStarting(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	p := launch(t, t.TempDir(), environment("postgresql://u@"+silent.Addr().String()+"/d"))
	conn, err := silent.Accept() // it waits for an answer now
	must(t, err)
	defer conn.Close()
	p.Stop(t, syscall.SIGTERM)
}

// TestMakeRun checks that what ends "make run" ends the server.
func TestMakeRun(t *testing.T) {
	t.Parallel()
	// The build may take minutes, so it is not part of a timed step.
	build := exec.CommandContext(t.Context(), "make", "build")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	tests := map[string]struct {
		signal  syscall.Signal
		toGroup bool
	}{
		"SIGTERM to make":        {syscall.SIGTERM, false},
		"SIGTERM to the group":   {syscall.SIGTERM, true},
		"Ctrl-C in the terminal": {syscall.SIGINT, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("make", "run")
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), environment(sqliteURL(filepath.Join(t.TempDir(), "locks.db")))...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			p := apptest.Launch(t, cmd)
			t.Cleanup(func() { _ = syscall.Kill(-p.ID(), syscall.SIGKILL) })
			s := listening(t, p)
			s.acquire(t, "r", "p")

			whom := p.ID()
			if test.toGroup {
				whom = -whom
			}
			must(t, syscall.Kill(whom, test.signal))
			p.ExitCode(t) // of make, which the signal ends too
			if !strings.Contains(p.Output.String(), `"msg":"stopped"`) {
				t.Error("the server has not stopped in order")
			}
			if _, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://")); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the server still runs: %v", err)
			}
			if err := syscall.Kill(-p.ID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("a process of make's group still runs: %v", err)
			}
		})
	}
}
