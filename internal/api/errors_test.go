package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// secret is a detail of an error that clients must not see.
const secret = "dial tcp 10.0.0.7:5432: password of user lockd"

// brokenStore fails with the error that fail returns. Methods that it does not override
// panic.
type brokenStore struct {
	service.Store
	fail func(context.Context) error
}

func (s brokenStore) Execute(ctx context.Context, _ lock.Command) (lock.Outcome, error) {
	return lock.Outcome{}, s.fail(ctx)
}

func (s brokenStore) ExecuteWithin(ctx context.Context, _ lock.Command, _ time.Duration) (lock.Outcome, error) {
	return lock.Outcome{}, s.fail(ctx)
}

func (s brokenStore) Find(ctx context.Context, _ string) (service.Snapshot, error) {
	return service.Snapshot{}, s.fail(ctx)
}

func (s brokenStore) Held(
	ctx context.Context, _ service.ListFilter, _ func(total int, now time.Time) error, _ func(lock.Resource) error,
) error {
	return s.fail(ctx)
}

func (s brokenStore) HeldBy(ctx context.Context, _, _ string, _ int) ([]string, error) {
	return nil, s.fail(ctx)
}

func (s brokenStore) Queue(ctx context.Context, _ string, _ int64, _ int) (service.QueuePage, error) {
	return service.QueuePage{}, s.fail(ctx)
}

func (s brokenStore) History(ctx context.Context, _ service.HistoryFilter) ([]lock.Event, error) {
	return nil, s.fail(ctx)
}

// brokenServer serves a store and a database that fail. It also returns a function that
// returns the log, to be called once at the end.
func brokenServer(t *testing.T, fail func(context.Context) error) (*server, func() []logLine) {
	t.Helper()
	log, lines := newLog(t)
	s := serve(t, service.New(brokenStore{fail: fail}, withLimits(lock.Limits{MaxTTL: maxTTL}), log), fail, log)
	return s, func() []logLine {
		s.Close() // waits for the requests, whose lines are written after their responses
		return lines()
	}
}

// lockOperations are the requests that need the database.
var lockOperations = []struct{ method, target, route, body string }{
	{"POST", "/locks/request", "/locks/request", validRequest},
	{"DELETE", "/locks/release?resource_name=r&process_id=p", "/locks/release", ""},
	{"POST", "/locks/renew", "/locks/renew", `{"resource_name":"r","process_id":"p","ttl_seconds":60}`},
	{"POST", "/locks/renew-all", "/locks/renew-all", `{"process_id":"p","ttl_seconds":60}`},
	{"DELETE", "/locks/release-all?process_id=p", "/locks/release-all", ""},
	{"DELETE", "/locks/force-release?resource_name=r&reason=x", "/locks/force-release", ""},
	{"GET", "/locks/status?resource_name=r", "/locks/status", ""},
	{"GET", "/locks/queue?resource_name=r", "/locks/queue", ""},
	{"GET", "/locks/validate?resource_name=r&fencing_token=1", "/locks/validate", ""},
	{"GET", "/locks/all-locked", "/locks/all-locked", ""},
	{"GET", "/locks/history", "/locks/history", ""},
}

func TestStoreErrors(t *testing.T) {
	wrapped := func(sentinels ...error) error {
		return fmt.Errorf("batch of 3: %w: %s", errors.Join(sentinels...), secret)
	}
	tests := []struct {
		name   string
		err    error
		status int
		code   wire.Code
		detail string
	}{
		{"unavailable", wrapped(service.ErrUnavailable), 503, wire.CodeUnavailable, "The database is not available"},
		{
			"overloaded", wrapped(service.ErrOverloaded), 503, wire.CodeOverloaded,
			"Too many requests are waiting for the database",
		},
		{"stopping", wrapped(service.ErrStopping), 503, wire.CodeStopping, "The server is shutting down"},
		{
			"outcome unknown", wrapped(service.ErrOutcomeUnknown), 503, wire.CodeOutcomeUnknown,
			"The database did not confirm the change: it may or may not have happened",
		},
		{
			// It would be wrong to say that nothing was changed.
			"outcome unknown because unavailable", wrapped(service.ErrUnavailable, service.ErrOutcomeUnknown), 503,
			wire.CodeOutcomeUnknown,
			"The database did not confirm the change: it may or may not have happened",
		},
		{
			// The client is still connected and needs the truth.
			"outcome unknown because cancelled", wrapped(context.Canceled, service.ErrOutcomeUnknown), 503,
			wire.CodeOutcomeUnknown,
			"The database did not confirm the change: it may or may not have happened",
		},
		{"unknown", errors.New("syntax error at or near: " + secret), 500, wire.CodeInternal, "Internal Server Error"},
		{
			"deadline", fmt.Errorf("%w: %s", context.DeadlineExceeded, secret), 500, wire.CodeInternal,
			"Internal Server Error",
		},
		{"panic", nil, 500, wire.CodeInternal, "Internal Server Error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, logged := brokenServer(t, func(context.Context) error {
				if test.err == nil {
					panic(secret)
				}
				return test.err
			})
			var want []logLine
			for _, o := range lockOperations {
				a := s.call(t, o.method, o.target, o.body)
				a.wantFailure(t, test.status, test.code, test.detail)
				if strings.Contains(a.body, "10.0.0.7") || strings.Contains(fmt.Sprint(a.header), "10.0.0.7") {
					t.Errorf("%s: the response reveals the cause: %v %s", o.route, a.header, a.body)
				}
				id := a.header.Get("X-Request-Id")
				level := "ERROR"
				if test.code == wire.CodeStopping {
					level = "INFO"
				}
				want = append(want,
					logLine{ID: id, Level: level, Method: o.method, Route: o.route, Status: test.status})
				wantRetry, wantID := "", ""
				if test.status == http.StatusServiceUnavailable {
					wantRetry = "1"
				} else {
					wantID = id
				}
				if got := a.header.Get("Retry-After"); got != wantRetry {
					t.Errorf("%s: Retry-After %q, want %q", o.route, got, wantRetry)
				}
				if got := decode[wire.Failure](t, a.body).RequestID; got != wantID {
					t.Errorf("%s: request_id %q with the header X-Request-Id %q, want %q", o.route, got, id, wantID)
				}
			}
			got := logged()
			for i, line := range got {
				if !strings.Contains(line.Error, secret) {
					t.Errorf("the log does not contain the cause: %q", line.Error)
				}
				if test.err == nil && !strings.Contains(line.Error, "errors_test.go") {
					t.Errorf("the log does not contain the origin of the panic: %q", line.Error)
				}
				got[i].Error = ""
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("log lines (-want +got):\n" + diff)
			}
		})
	}
}

// refusingStore refuses every command, and cannot read the history.
type refusingStore struct{ brokenStore }

func (s refusingStore) Execute(context.Context, lock.Command) (lock.Outcome, error) {
	return lock.Outcome{}, &lock.NotHeldError{Resource: "r", ProcessID: "p"}
}

func (s refusingStore) LastEnd(ctx context.Context, _, _ string, _ int64) (lock.Event, bool, error) {
	return lock.Event{}, false, s.fail(ctx)
}

// TestRefusalWithoutItsReason: the refusal stands even if the server cannot find its
// reason.
func TestRefusalWithoutItsReason(t *testing.T) {
	log, _ := newLog(t)
	locks := refusingStore{brokenStore: brokenStore{fail: func(context.Context) error { return service.ErrUnavailable }}}
	s := serve(t, service.New(locks, withLimits(lock.Limits{MaxTTL: maxTTL}), log), nil, log)
	const detail = "No active lock found for resource 'r' by process 'p'"
	s.release(t, "r", "p").wantFailure(t, 404, wire.CodeNotHeld, detail)
	s.releaseToken(t, "r", "p", 1).wantFailure(t, 404, wire.CodeNotHeld, detail)
	s.renew(t, "r", "p", 60, 1).wantFailure(t, 404, wire.CodeNotHeld, detail)
}

// TestProbes: only the readiness probe reads from the database.
func TestProbes(t *testing.T) {
	const healthy = `{"status":"healthy","service":"Resource Lock Manager"}`
	tests := []struct {
		name   string
		ping   error
		path   string
		status int
		body   string
	}{
		{"database down", errors.New(secret), "/health", 200, healthy},
		{"database down", errors.New(secret), "/livez", 200, `{"status":"ok"}`},
		{
			"database down", errors.New(secret), "/readyz", 503,
			`{"detail":"The database is not available","code":"database_unavailable"}`,
		},
		{"database up", nil, "/health", 200, healthy},
		{"database up", nil, "/livez", 200, `{"status":"ok"}`},
		{"database up", nil, "/readyz", 200, `{"status":"ok"}`},
	}
	for _, test := range tests {
		t.Run(test.name+" "+test.path, func(t *testing.T) {
			var bounded, asked bool
			s, logged := brokenServer(t, func(ctx context.Context) error {
				asked = true
				_, bounded = ctx.Deadline()
				return test.ping
			})
			a := s.call(t, "GET", test.path, "").want(t, test.status)
			if got := compact(t, a.body); got != test.body {
				t.Errorf("got %s, want %s", got, test.body)
			}
			// Probes are sent every few seconds, so they are only logged if they fail.
			want := logLine{
				ID: a.header.Get("X-Request-Id"), Level: "DEBUG", Method: "GET", Route: test.path,
				Status: test.status,
			}
			if test.status == 503 {
				want.Level, want.Error = "ERROR", "the database is not available: "+secret
				if a.header.Get("Retry-After") != "1" {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
			}
			if diff := cmp.Diff([]logLine{want}, logged()); diff != "" {
				t.Error("log (-want +got):\n" + diff)
			}
			if wanted := test.path == "/readyz"; asked != wanted || bounded != wanted {
				t.Errorf("the database was read: %t, with a deadline: %t", asked, bounded)
			}
		})
	}
}

// interrupted panics in the middle of the body. It hides the length of the body, by which
// a client could notice that the body is incomplete.
type interrupted struct{ http.ResponseWriter }

func (w interrupted) WriteHeader(status int) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(status)
}

func (w interrupted) Write(body []byte) (int, error) {
	if _, err := w.ResponseWriter.Write(body[:len(body)/2]); err != nil {
		return 0, err
	}
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		return 0, err
	}
	panic(secret)
}

// TestPanicAfterTheAnswerBegan: the client must not take half a response for a complete
// one.
func TestPanicAfterTheAnswerBegan(t *testing.T) {
	log, lines := newLog(t)
	handler := api.New(service.New(brokenStore{}, service.Config{}, log), databaseID, nil, log)
	s := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(interrupted{w}, r)
	}), log)
	response, err := s.Client().Do(s.request(t, "GET", "/health", ""))
	if err != nil {
		t.Fatal(err) // what was flushed before the panic has a status
	}
	if body, err := io.ReadAll(response.Body); err == nil || len(body) == 0 {
		t.Errorf("got %q and the error %v, want half a response and a broken connection", body, err)
	}
	_ = response.Body.Close()
	s.Close()
	if got := lines(); len(got) != 1 || got[0].Status != 200 || !strings.Contains(got[0].Error, secret) {
		t.Errorf("log: %+v, want one line with the panic", got)
	}
}

// TestServerErrorsGoToTheLog: complaints of net/http are logged, not written to standard
// error.
func TestServerErrorsGoToTheLog(t *testing.T) {
	log, lines := newLog(t)
	s := serve(t, service.New(brokenStore{}, service.Config{}, log), nil, log)
	s.Config.ErrorLog.Print("net/http complains")
	if got := lines(); len(got) != 1 || got[0].Level != slog.LevelWarn.String() {
		t.Errorf("log: %+v", got)
	}
}
