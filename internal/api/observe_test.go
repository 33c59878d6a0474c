package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// logLine is the log line of a request, with all its attributes.
type logLine struct {
	ID     string `json:"request_id"`
	Level  string `json:"level"`
	Method string `json:"method"`
	Route  string `json:"route"`
	Status int    `json:"status"`
	Error  string `json:"error"`
}

// newLog returns a logger of every level, and a function that returns what it wrote.
func newLog(t *testing.T) (*slog.Logger, func() []logLine) {
	var mu sync.Mutex
	var text bytes.Buffer
	write := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	})
	return slog.New(slog.NewJSONHandler(write, &slog.HandlerOptions{Level: slog.LevelDebug})), func() []logLine {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		var lines []logLine
		for decoder := json.NewDecoder(bytes.NewReader(text.Bytes())); ; {
			var whole json.RawMessage
			if err := decoder.Decode(&whole); err == io.EOF {
				return lines
			} else if err != nil {
				t.Fatal(err)
			}
			line := decode[logLine](t, string(whole))
			if duration := decode[struct{ Duration *int64 }](t, string(whole)).Duration; line.Method != "" &&
				(duration == nil || *duration <= 0) {
				t.Errorf("no duration in %s", whole)
			}
			lines = append(lines, line)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestOneLineForEachRequest: refusals are no errors of the server, and no content of a
// request is logged.
func TestOneLineForEachRequest(t *testing.T) {
	tests := []struct {
		name, method, target, body, route string
		status                            int
	}{
		{"acquire", "POST", "/locks/request", validRequest, "/locks/request", 200},
		{"conflict", "POST", "/locks/request", validRequest, "/locks/request", 409},
		{"invalid body", "POST", "/locks/request", "SECRET", "/locks/request", 422},
		{"status", "GET", "/locks/status?resource_name=SECRET", "", "/locks/status", 200},
		{"HEAD", "HEAD", "/locks/status?resource_name=r", "", "/locks/status", 200},
		{"invalid query", "GET", "/locks/status?SECRET=%zz", "", "/locks/status", 422},
		{"not held", "DELETE", "/locks/release?resource_name=r&process_id=SECRET", "", "/locks/release", 404},
		{"release", "DELETE", "/locks/release?resource_name=r&process_id=p", "", "/locks/release", 200},
		{"list", "GET", "/locks/all-locked", "", "/locks/all-locked", 200},
		{"page", "GET", "/redoc", "", "/redoc", 200},
		{"asset", "GET", "/docs/swagger-ui.css", "", "/docs/*", 200},
		{"unknown path", "GET", "/SECRET", "", "", 404},
		{"wrong method", "PUT", "/locks/status", "", "", 405},
	}
	db, _ := openStore(t, "sqlite", "")
	log, lines := newLog(t)
	s := serve(t, newService(db, withLimits(lock.Limits{MaxTTL: maxTTL}), log), db.Ping, log)
	var want []logLine
	for _, test := range tests {
		a := s.call(t, test.method, test.target, test.body).want(t, test.status)
		want = append(want, logLine{
			ID: a.header.Get("X-Request-Id"), Level: "DEBUG", Method: test.method, Route: test.route,
			Status: test.status,
		})
	}
	s.Close() // waits for the requests, whose lines are written after their responses
	if diff := cmp.Diff(want, lines()); diff != "" {
		t.Error("log (-want +got):\n" + diff)
	}
}

// TestLogLevel: a log of the level INFO has only the requests that the server could not
// serve. A log of the level ERROR does not even have those that a shutdown refused.
func TestLogLevel(t *testing.T) {
	for level, want := range map[slog.Level][]string{
		slog.LevelInfo:  {service.ErrUnavailable.Error(), service.ErrStopping.Error()},
		slog.LevelError: {service.ErrUnavailable.Error()},
	} {
		var (
			text    strings.Builder
			failure error
		)
		log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level}))
		locks := service.New(brokenStore{fail: func(context.Context) error { return failure }}, service.Config{}, log)
		handler := api.New(locks, databaseID, nil, log)
		for _, failure = range []error{service.ErrUnavailable, service.ErrStopping} {
			handler.ServeHTTP(httptest.NewRecorder(),
				httptest.NewRequestWithContext(t.Context(), "GET", "/locks/all-locked", nil))
		}
		for _, path := range []string{"/health", "/nowhere", "/locks/status"} {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		}
		lines := strings.SplitAfter(text.String(), "\n")
		if len(lines) != len(want)+1 {
			t.Errorf("%s: log: %s, want %q", level, text.String(), want)
			continue
		}
		for i, failure := range want {
			if !strings.Contains(lines[i], "route=/locks/all-locked") || !strings.Contains(lines[i], failure) {
				t.Errorf("%s: got %s, want %q", level, lines[i], failure)
			}
		}
	}
}

func TestRequestID(t *testing.T) {
	tests := []struct {
		name string
		id   string
		kept bool
	}{
		{"word", "deploy-42", true},
		{"one character", "x", true},
		{"first and last visible character", "!~", true},
		{"128 characters", strings.Repeat("x", 128), true},
		{"129 characters", strings.Repeat("x", 129), false},
		{"none", "", false},
		{"space inside", "a b", false},
		{"only spaces", "  ", false},
		{"tab", "a\tb", false},
		{"line feed", "a\nlevel=ERROR", false},
		{"escape", "\x1b[31m", false},
		{"delete", "a\x7f", false},
		{"not ASCII", "é", false},
		{"not UTF-8", "\xff", false},
	}
	log, lines := newLog(t)
	handler := api.New(service.New(brokenStore{}, service.Config{}, log), databaseID, nil, log)
	seen := map[string]bool{}
	var want []string
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// Directly to the handler: net/http's client and server would refuse some of
			// these ids.
			req := httptest.NewRequestWithContext(t.Context(), "GET", "/livez", nil)
			req.Header["X-Request-Id"] = []string{test.id}
			response := httptest.NewRecorder()
			handler.ServeHTTP(response, req)
			got := response.Header().Get("X-Request-Id")
			want = append(want, got)
			switch {
			case test.kept && got != test.id:
				t.Errorf("%q was replaced by %q", test.id, got)
			case !test.kept && (got == test.id || len(got) < 16 || seen[got] ||
				strings.Trim(got, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != ""):
				t.Errorf("%q was replaced by %q, want a new id", test.id, got)
			}
			seen[got] = true
		})
	}
	var logged []string
	for _, line := range lines() {
		logged = append(logged, line.ID)
	}
	if diff := cmp.Diff(want, logged); diff != "" {
		t.Error("ids in the log (-answered +logged):\n" + diff)
	}
}

// TestRequestIDEverywhere: every response has an id, also pages and refusals.
func TestRequestIDEverywhere(t *testing.T) {
	s := realServer(t, "sqlite")
	for _, path := range []string{
		"/health", "/docs", "/docs/index.html", "/redoc", "/openapi.json", "/nowhere",
		"/locks/request", "/locks/status",
	} {
		req := s.request(t, "GET", path, "")
		req.Header.Set("X-Request-Id", "mine")
		if got := s.do(t, req).header["X-Request-Id"]; len(got) != 1 || got[0] != "mine" {
			t.Errorf("%s: X-Request-Id %q", path, got)
		}
	}
	if got := s.call(t, http.MethodGet, "/health", "").header.Get("X-Request-Id"); got == "" {
		t.Error("no id of its own")
	}
}

// TestReasonsStayInTheirLogLine: a reason may have line breaks, and an error of the
// database may quote it. The log still has one line for each request.
func TestReasonsStayInTheirLogLine(t *testing.T) {
	const reason = "a\nlevel=ERROR msg=forged\r\n\tb"
	for name, handler := range map[string]func(w io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler {
			return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"JSON": func(w io.Writer) slog.Handler {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var text bytes.Buffer
			log := slog.New(handler(writerFunc(func(p []byte) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				return text.Write(p)
			})))
			broken := brokenStore{fail: func(context.Context) error { return errors.New("could not store: " + reason) }}
			s := serve(t, service.New(broken, withLimits(lock.Limits{MaxTTL: maxTTL}), log), nil, log)
			s.acquireWith(t, "r", "p", fields{"reason": reason}).want(t, 500)
			s.forceRelease(t, "r", reason).want(t, 500)
			s.Close() // waits for the requests, whose lines are written after their responses
			if got := strings.Count(text.String(), "\n"); got != 2 || strings.ContainsAny(text.String(), "\r\t") {
				t.Errorf("%d lines for 2 requests:\n%s", got, text.String())
			}
		})
	}
}
