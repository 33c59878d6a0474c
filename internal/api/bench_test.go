package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// instantStore decides in memory on states that it makes up, so that a request costs only
// what HTTP and the rules cost.
type instantStore struct{ service.Store }

func (instantStore) Execute(_ context.Context, c lock.Command) (lock.Outcome, error) {
	now := time.Now()
	state := lock.Resource{ID: 1, Name: c.Needs().Resources[0]}
	if c, ends := c.(lock.Release); ends {
		state.Holds = []lock.Hold{heldBy(c.ProcessID, now)}
	}
	if state.Name == "taken" {
		state.Holds = []lock.Hold{heldBy("holder", now)}
	}
	return c.Decide(now, []lock.Resource{state})
}

func (instantStore) Find(_ context.Context, name string) (service.Snapshot, error) {
	now := time.Now()
	return service.Snapshot{
		Resource: lock.Resource{ID: 1, Name: name, Holds: []lock.Hold{heldBy("holder", now)}},
		At:       now,
	}, nil
}

func heldBy(process string, now time.Time) lock.Hold {
	return lock.Hold{
		ProcessID: process, Token: now.UnixMicro(), LockedAt: now,
		ExpiresAt: now.Add(299876544 * time.Microsecond),
	}
}

// frequent is a request that clients send often, and the status of its answer.
type frequent struct {
	name, method, target, body string
	status                     int
}

var frequents = []frequent{
	{
		"acquire", "POST", "/locks/request",
		`{"resource_name": "database_backup", "process_id": "process_123", "ttl_seconds": 300}`, 200,
	},
	{"release", "DELETE", "/locks/release?resource_name=database_backup&process_id=process_123", "", 200},
	{"status", "GET", "/locks/status?resource_name=database_backup", "", 200},
	{
		"refused", "POST", "/locks/request",
		`{"resource_name": "taken", "process_id": "process_123", "ttl_seconds": 300}`, 409,
	},
}

// sender returns a function that sends the request to the whole handler, at little cost
// of its own, and reports whether the response has the expected status.
func (f frequent) sender(tb testing.TB) func() bool {
	log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelInfo}))
	handler := api.New(service.New(instantStore{}, withLimits(lock.Limits{MaxTTL: maxTTL}), log), databaseID, nil, log)
	body := strings.NewReader(f.body)
	r := httptest.NewRequestWithContext(tb.Context(), f.method, f.target, body)
	if f.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := &discarded{header: http.Header{}}
	return func() bool {
		body.Reset(f.body)
		clear(w.header)
		w.status = 0
		handler.ServeHTTP(w, r)
		return w.status == f.status
	}
}

// discarded is a response writer that keeps only the status.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header            { return d.header }
func (d *discarded) WriteHeader(status int)         { d.status = status }
func (d *discarded) Write(body []byte) (int, error) { return len(body), nil }

// BenchmarkRequest measures a request in this package and in the rules, without a
// connection and without a database.
func BenchmarkRequest(b *testing.B) {
	for _, f := range frequents {
		b.Run(f.name, func(b *testing.B) {
			send := f.sender(b)
			b.ReportAllocs()
			for b.Loop() {
				if !send() {
					b.Fatal("got another status than expected")
				}
			}
		})
	}
}
