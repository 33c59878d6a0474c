package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// logReader is the program at the other end of the log's pipe.
type logReader struct {
	*exec.Cmd
	pipe *os.File // the end that lockd writes to
}

// startLogReader runs cat on a pipe for lockd's log.
func startLogReader(t *testing.T, output io.Writer) *logReader {
	t.Helper()
	reader, pipe, err := os.Pipe()
	must(t, err)
	r := &logReader{Cmd: exec.Command("cat"), pipe: pipe}
	r.Stdin, r.Stdout = reader, output
	r.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, r.Start())
	must(t, reader.Close())
	t.Cleanup(func() { _ = pipe.Close() })
	return r
}

// end kills the reader. After that no process reads the pipe.
func (r *logReader) end(t *testing.T) {
	t.Helper()
	must(t, r.Process.Kill())
	_ = r.Wait() // the error is the signal
}

// launchInto runs lockd on a database in memory with its log in a file. The wrapper is a
// command line that lockd's command line is appended to.
func launchInto(t *testing.T, log *os.File, wrapper []string, more ...string) *apptest.Process {
	t.Helper()
	command := slices.Concat(wrapper, []string{os.Args[0]})
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{runMain + "=1", "PATH=" + os.Getenv("PATH")}, environment("sqlite://", more...)...)
	if log != nil {
		cmd.Stderr = log
	}
	return apptest.Launch(t, cmd)
}

// withoutLog returns the server of a process whose log cannot be read. It gets the
// address from the kernel.
func withoutLog(t *testing.T, p *apptest.Process) *server {
	t.Helper()
	var address string
	apptest.Eventually(t, "lockd listens", func() bool {
		address = listeningAddress(t, p.ID())
		return address != ""
	})
	return &server{p, newClient(t, "http://"+address)}
}

// listeningAddress returns the address of the process's only listening socket, or "" if
// there is none yet.
func listeningAddress(t *testing.T, process int) string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", process))
	must(t, err)
	owned := map[string]bool{}
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil {
			owned[target] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	for line := range strings.Lines(string(table)) {
		const local, state, listens, inode = 1, 3, "0A", 9
		fields := strings.Fields(line)
		var port int
		if fields[state] == listens && owned["socket:["+fields[inode]+"]"] {
			_, err := fmt.Sscanf(fields[local], "0100007F:%X", &port)
			must(t, err)
			return fmt.Sprint("127.0.0.1:", port)
		}
	}
	return ""
}

// wantWorking checks that the server works and stops in order. A waiting request is
// answered by the stop.
func (s *server) wantWorking(t *testing.T) {
	t.Helper()
	h := s.acquire(t, "r", "holder")
	w := s.wait(t, waiting("r", "waiter"))
	s.awaitQueue(t, "r", "waiter")
	s.wantHeld(t, []hold{h})
	begun := time.Now()
	s.Signal(t, syscall.SIGTERM)
	if r := w.answer(t); r.Status != http.StatusServiceUnavailable || r.Code != "shutting_down" {
		t.Errorf("the waiter got %+v", r)
	}
	if code := s.ExitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	within(t, "from the signal to the end", time.Since(begun), 10*time.Second)
}

// TestLogThatCannotBeWritten checks that the server works and stops in order, whatever
// happens to its log.
func TestLogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	t.Run("the reader ends", func(t *testing.T) {
		t.Parallel()
		reader := startLogReader(t, io.Discard)
		s := withoutLog(t, launchInto(t, reader.pipe, nil, "LOG_LEVEL=debug"))
		s.acquire(t, "first", "p")
		must(t, reader.pipe.Close())
		reader.end(t)
		s.wantWorking(t)
	})
	t.Run("it never had a reader", func(t *testing.T) {
		t.Parallel()
		reader, pipe, err := os.Pipe()
		must(t, err)
		must(t, reader.Close())
		t.Cleanup(func() { _ = pipe.Close() })
		withoutLog(t, launchInto(t, pipe, nil, "LOG_LEVEL=debug")).wantWorking(t)
	})
	t.Run("the disk is full", func(t *testing.T) {
		t.Parallel()
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		must(t, err)
		t.Cleanup(func() { _ = full.Close() })
		withoutLog(t, launchInto(t, full, nil, "LOG_LEVEL=debug")).wantWorking(t)
	})
	t.Run("it may only be read", func(t *testing.T) {
		t.Parallel()
		null, err := os.Open(os.DevNull)
		must(t, err)
		t.Cleanup(func() { _ = null.Close() })
		withoutLog(t, launchInto(t, null, nil, "LOG_LEVEL=debug")).wantWorking(t)
	})
	t.Run("it is closed", func(t *testing.T) {
		t.Parallel()
		wrapper := []string{"sh", "-c", `exec "$0" <&- >&- 2>&-`}
		p := launchInto(t, nil, wrapper, "DATABASE_URL="+sqliteURL(testdb.SQLite(t)), "LOG_LEVEL=debug")
		s := withoutLog(t, p)
		// The next opened file gets the lowest free number. If that were the number of
		// the log, the log would overwrite a database.
		for number := range 3 {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.ID(), number))
			if err != nil || target != os.DevNull {
				t.Errorf("descriptor %d is %q, %v", number, target, err)
			}
		}
		s.wantWorking(t)
	})
}

// TestLogReaderThatStandsStill checks that a log that is not read delays no request, and
// that it states afterwards how many lines are missing.
func TestLogReaderThatStandsStill(t *testing.T) {
	t.Parallel()
	for _, goesOn := range []bool{true, false} {
		t.Run(map[bool]string{true: "for a while", false: "for ever"}[goesOn], func(t *testing.T) {
			t.Parallel()
			lines, logged := io.Pipe()
			reader := startLogReader(t, logged)
			s := withoutLog(t, launchInto(t, reader.pipe, nil, "LOG_LEVEL=debug"))
			must(t, reader.Process.Signal(syscall.SIGSTOP))
			t.Cleanup(func() {
				_ = lines.Close() // before the reader, which ends when it has read everything
				reader.end(t)
			})
			if !goesOn {
				s.flood(t, 1000) // their lines are more than a pipe holds
				s.wantWorking(t)
				return
			}
			const requests = 16_000 // their lines are more than the buffer holds
			s.flood(t, requests)
			must(t, reader.Process.Signal(syscall.SIGCONT))
			written, dropped := 0, 0
			for scanner := bufio.NewScanner(lines); dropped == 0 && scanner.Scan(); {
				var line struct {
					Message string `json:"msg"`
					Dropped int    `json:"dropped"`
				}
				must(t, json.Unmarshal(scanner.Bytes(), &line))
				if line.Message == "request" {
					written++
				}
				dropped = line.Dropped
			}
			if dropped == 0 || written+dropped != requests {
				t.Errorf("%d lines were written and %d reported as dropped, of %d requests", written, dropped, requests)
			}
			go func() { _, _ = io.Copy(io.Discard, lines) }()
			s.wantWorking(t)
		})
	}
}

// flood sends many requests with long log lines.
func (s *server) flood(t *testing.T, requests int) {
	t.Helper()
	const connections = 8
	done := make(chan error, connections)
	for range connections {
		go func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				done <- err
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(3 * apptest.Timeout))
			const request = "GET /livez HTTP/1.1\r\nHost: lockd\r\nX-Request-Id: %s\r\n\r\n"
			text := fmt.Sprintf(request, strings.Repeat("x", 128))
			go func() { _, _ = io.WriteString(conn, strings.Repeat(text, requests/connections)) }()
			answers := bufio.NewReader(conn)
			for range requests / connections {
				response, err := http.ReadResponse(answers, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range connections {
		must(t, <-done)
	}
}

// TestLogThatRunsFull checks that a log on a full disk continues when there is space
// again, with complete lines.
func TestLogThatRunsFull(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = log.Close() })
	const limit = 10_000
	s := withoutLog(t, launchInto(t, log, nil, "LOG_LEVEL=debug", fmt.Sprint(maxFileBytes, "=", limit)))
	s.flood(t, 200)
	apptest.Eventually(t, "the log is full", func() bool {
		info, err := log.Stat()
		must(t, err)
		return info.Size() == limit
	})
	// The server may still buffer lines that fill the log again. It has written all of
	// them when the line of a later request is in the log.
	apptest.Eventually(t, "the log continues", func() bool {
		text, err := os.ReadFile(path)
		must(t, err)
		if len(text) == limit {
			must(t, log.Truncate(0))
		}
		s.get(t, "/readyz")
		return len(text) < limit && bytes.Contains(text, []byte(`"/readyz"`))
	})
	s.wantWorking(t)

	text, err := os.ReadFile(path)
	must(t, err)
	_, text2, _ := strings.Cut(string(text), "\n") // the rest of the line that was cut off
	reported := false
	for line := range strings.Lines(text2) {
		var record struct {
			Dropped int    `json:"dropped"`
			Error   string `json:"error"`
		}
		must(t, json.Unmarshal([]byte(line), &record))
		reported = reported || record.Dropped > 0 && strings.Contains(record.Error, "file too large")
	}
	if !reported {
		t.Errorf("the log does not say what is missing:\n%s", text)
	}
}

// TestTerminalThatIsClosed checks that the end of a terminal stops the server in order,
// unless nohup protects the server.
func TestTerminalThatIsClosed(t *testing.T) {
	t.Parallel()
	for _, protected := range []bool{false, true} {
		t.Run(map[bool]string{false: "lockd", true: "nohup lockd"}[protected], func(t *testing.T) {
			t.Parallel()
			terminal, tty, err := pty.Open()
			must(t, err)
			t.Cleanup(func() { _ = tty.Close() })
			var wrapper []string
			if protected {
				wrapper = []string{"sh", "-c", `trap "" HUP; exec "$0"`}
			}
			command := slices.Concat(wrapper, []string{os.Args[0]})
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Dir = t.TempDir()
			cmd.Env = append([]string{runMain + "=1"}, environment("sqlite://", "LOG_LEVEL=debug")...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p := apptest.Launch(t, cmd)
			s := withoutLog(t, p)
			s.acquire(t, "first", "p")
			must(t, terminal.Close())
			if protected {
				s.wantWorking(t)
			} else if code := p.ExitCode(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
