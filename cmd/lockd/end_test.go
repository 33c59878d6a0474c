package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
)

// TestKilledServerKeepsEveryAcknowledgedHold kills a server under load and starts it
// again on its database.
func TestKilledServerKeepsEveryAcknowledgedHold(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL)
		l := s.startLoad(t, 8)
		l.await(t, 100)
		s.Kill(t)
		l.finish()
		for _, r := range l.refusals {
			t.Errorf("a healthy server refused: %+v", r)
		}

		s = start(t, databaseURL)
		s.wantHeld(t, l.holds)
		first := l.holds[0]
		s.release(t, first)
		if next := s.acquire(t, first.resource, "next"); next.token <= first.token {
			t.Errorf("token %.0f after %.0f", next.token, first.token)
		}
	})
}

// TestSignalUnderLoad checks that every request is answered completely or not at all, and
// that every granted lock is kept.
func TestSignalUnderLoad(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			onBoth(t, func(t *testing.T, databaseURL string) {
				s := start(t, databaseURL)
				l := s.startLoad(t, 16)
				l.await(t, 100)
				s.Stop(t, signal)
				l.clients.Wait() // each client sees that its connection failed

				for _, r := range l.refusals {
					if r.Status != http.StatusServiceUnavailable || r.Code != "shutting_down" ||
						r.Header.Get("Retry-After") == "" {
						t.Errorf("refused with %+v", r)
					}
				}
				for _, err := range l.errors {
					if !unanswered(err) {
						t.Errorf("a request ended with: %v", err)
					}
				}
				if len(l.errors) != 16 {
					t.Errorf("%d of 16 clients saw their connections fail", len(l.errors))
				}

				s = start(t, databaseURL)
				s.wantHeld(t, l.holds)
			})
		})
	}
}

// unanswered reports whether an error means that the connection was refused, or closed
// before the first byte of an answer.
func unanswered(err error) bool {
	var op *net.OpError
	switch {
	case errors.Is(err, errCutOff), errors.Is(err, io.ErrUnexpectedEOF):
		return false
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	case errors.As(err, &op):
		return !op.Timeout()
	}
	return strings.HasSuffix(err.Error(), "server closed idle connection") // net/http does not export this error
}

func TestSignalWaitsForRequestsInProgress(t *testing.T) {
	t.Parallel()
	s := start(t, "sqlite://")
	c := dial(t, s)
	body := `{"resource_name":"r","process_id":"p"}`
	c.sendHead(t, len(body))
	c.send(t, body[:10])
	s.signalAndWaitForRefusal(t)

	c.send(t, body[10:])
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	if code := s.ExitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestShutdownTimeoutCutsOff has a client that never finishes its request. The server
// stops anyway, and its log says that the request was cut off.
func TestShutdownTimeoutCutsOff(t *testing.T) {
	t.Parallel()
	s := start(t, "sqlite://", "SHUTDOWN_TIMEOUT=300ms")
	c := dial(t, s)
	c.sendHead(t, 100)
	c.send(t, "{")
	s.signalAndWaitForRefusal(t)

	s.ExitCode(t)
	if !strings.Contains(s.Output.String(), "cut off after 300ms") {
		t.Error("the output does not say that a request was cut off")
	}
	if n, err := io.Copy(io.Discard, c); n > 0 && err == nil {
		t.Logf("the client got %d bytes", n)
	}
}

// rawConn is a connection on which a test writes the parts of a request.
type rawConn struct{ net.Conn }

func dial(t *testing.T, s *server) rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(apptest.Timeout)); err != nil {
		t.Fatal(err)
	}
	return rawConn{conn}
}

func (c rawConn) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// sendHead sends the head of a request and returns when the handler runs: only reading
// the body sends "100 Continue".
func (c rawConn) sendHead(t *testing.T, length int) {
	t.Helper()
	c.send(t, fmt.Sprintf("POST /locks/request HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", length))
	const want = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
}

func (s *server) signalAndWaitForRefusal(t *testing.T) {
	t.Helper()
	s.Signal(t, syscall.SIGTERM)
	s.waitForRefusal(t)
}

// waitForRefusal returns when the server refuses new connections.
func (s *server) waitForRefusal(t *testing.T) {
	t.Helper()
	apptest.Eventually(t, "new connections refused", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}
