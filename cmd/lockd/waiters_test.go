package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// fleet is a number of servers on one database.
type fleet []*server

// at returns the servers in turn.
func (f fleet) at(i int) *server { return f[i%len(f)] }

// startFleet starts the servers one after the other. Servers that start at the same time
// wait a second for each other's migrations.
func startFleet(tb testing.TB, databaseURL string, servers int, settings ...string) fleet {
	tb.Helper()
	f := make(fleet, servers)
	for i := range f {
		f[i] = start(tb, databaseURL, settings...)
	}
	return f
}

// onFleets runs a test on every kind of servers that serve a queue together. Servers with
// notifications do not recheck, so that every hand-over is due to a notification.
func onFleets(t *testing.T, test func(t *testing.T, f fleet), settings ...string) {
	t.Parallel()
	notified := append([]string{"RECHECK_INTERVAL=1h"}, settings...)
	polling := append([]string{"NOTIFICATIONS=false", "RECHECK_INTERVAL=50ms"}, settings...)
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, startFleet(t, sqliteURL(testdb.SQLite(t)), 1, notified...))
	})
	t.Run("three servers, notified", func(t *testing.T) {
		t.Parallel()
		test(t, startFleet(t, testdb.Postgres(t), 3, notified...))
	})
	t.Run("two servers, polling", func(t *testing.T) {
		t.Parallel()
		test(t, startFleet(t, testdb.Postgres(t), 2, polling...))
	})
}

// waiting returns the body of a request that may wait for longer than any test takes.
func waiting(resource, process string) map[string]any {
	body := acquisition(resource, process)
	body["wait_seconds"] = 2 * apptest.Timeout.Seconds()
	return body
}

// named returns the body of a waiting request that can be retried.
func named(resource, process, requestID string) map[string]any {
	body := waiting(resource, process)
	body["request_id"] = requestID
	return body
}

// expiring returns the body of a request for a hold with a TTL.
func expiring(resource, process string, ttl time.Duration) map[string]any {
	body := acquisition(resource, process)
	body["ttl_seconds"] = ttl.Seconds()
	return body
}

// waiter is an open request.
type waiter struct {
	process    string
	disconnect context.CancelFunc
	done       chan struct{} // closed when it was answered or its connection ended

	// The following fields are valid after done.
	reply reply
	err   error
	at    time.Time
}

// wait sends a request that waits.
func (c *client) wait(tb testing.TB, body map[string]any) *waiter {
	ctx, cancel := context.WithCancel(context.Background())
	w := &waiter{process: body["process_id"].(string), disconnect: cancel, done: make(chan struct{})}
	body = maps.Clone(body)
	go func() {
		defer close(w.done)
		w.reply, w.err = c.tryUntil(ctx, http.MethodPost, "/locks/request", body)
		w.at = time.Now()
	}()
	tb.Cleanup(func() {
		cancel()
		<-w.done
	})
	return w
}

func (w *waiter) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// end waits until the request has ended.
func (w *waiter) end(tb testing.TB) {
	tb.Helper()
	select {
	case <-w.done:
	case <-time.After(apptest.Timeout):
		tb.Fatalf("%s was not answered", w.process)
	}
}

// answer waits for the answer.
func (w *waiter) answer(tb testing.TB) reply {
	tb.Helper()
	w.end(tb)
	if w.err != nil {
		tb.Fatalf("%s waits: %v", w.process, w.err)
	}
	return w.reply
}

// granted waits for the answer, which must be a grant.
func (w *waiter) granted(tb testing.TB) hold {
	tb.Helper()
	r := w.answer(tb)
	h, ok := holdOf(r)
	if !ok || h.process != w.process {
		tb.Fatalf("%s waited for the lock, got %+v", w.process, r)
	}
	return h
}

// queue returns the processes that wait for a resource, in their order.
func (c *client) queue(tb testing.TB, resource string) []string {
	tb.Helper()
	var processes []string
	query := url.Values{"resource_name": {resource}, "limit": {"1000"}}
	for {
		r := c.get(tb, "/locks/queue?"+query.Encode())
		entries, ok := r.Data["waiters"].([]any)
		if r.Status != http.StatusOK || !ok {
			tb.Fatalf("queue of %s: %+v", resource, r)
		}
		for _, entry := range entries {
			waiter := entry.(map[string]any)
			processes = append(processes, waiter["process_id"].(string))
			if waiter["position"] != float64(len(processes)) {
				tb.Errorf("entry %d of the queue has position %v", len(processes), waiter["position"])
			}
		}
		next, more := r.Data["next_cursor"].(string)
		if !more {
			return processes
		}
		query.Set("cursor", next)
	}
}

func (c *client) wantQueue(tb testing.TB, resource string, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, c.queue(tb, resource)); diff != "" {
		tb.Errorf("queue (-want +got):\n%s", diff)
	}
}

// awaitQueue waits until exactly these processes wait.
func (c *client) awaitQueue(tb testing.TB, resource string, want ...string) {
	tb.Helper()
	await(tb, "queue", want, func() []string { return c.queue(tb, resource) })
}

// awaitFree waits until no process holds the resource.
func (c *client) awaitFree(tb testing.TB, resource string) {
	tb.Helper()
	await(tb, "holder", nil, func() any { return c.status(tb, resource).Data["locked_by"] })
}

// await calls get until it returns want.
func await[T any](tb testing.TB, what string, want T, get func() T) {
	tb.Helper()
	deadline := time.After(apptest.Timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		got := get()
		if cmp.Equal(want, got) {
			return
		}
		select {
		case <-deadline:
			tb.Fatalf("%s (-want +got):\n%s", what, cmp.Diff(want, got))
		case <-time.After(pause):
		}
	}
}

// enqueue queues n waiters one after the other, each on another server.
func (f fleet) enqueue(tb testing.TB, resource string, n int) []*waiter {
	tb.Helper()
	waiters := make([]*waiter, n)
	names := make([]string, n)
	for i := range waiters {
		names[i] = fmt.Sprint("waiter ", i)
		waiters[i] = f.at(i).wait(tb, waiting(resource, names[i]))
		f.at(i+1).awaitQueue(tb, resource, names[:i+1]...)
	}
	return waiters
}

// drain releases the hold, and those that the waiters are granted in turn, on varying
// servers. The waiters must be granted theirs in the given order.
func (f fleet) drain(tb testing.TB, h hold, waiters ...*waiter) {
	tb.Helper()
	for i, w := range waiters {
		f.at(i).release(tb, h)
		next := w.granted(tb)
		if next.token <= h.token {
			tb.Errorf("%s has token %.0f after %.0f", w.process, next.token, h.token)
		}
		h = next
	}
	f.at(len(waiters)).release(tb, h)
	f.at(0).wantQueue(tb, h.resource)
	f.at(1).awaitFree(tb, h.resource)
}

// timeIn returns a time of an answer.
func timeIn(tb testing.TB, r reply, field string) time.Time {
	tb.Helper()
	text, _ := r.Data[field].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		tb.Fatalf("%s: %v in %+v", field, err, r)
	}
	return at
}

// queuedAt returns when a granted request was queued, or when it was granted if it was
// granted at once.
func queuedAt(tb testing.TB, r reply) time.Time {
	tb.Helper()
	waited, _ := r.Data["waited_seconds"].(float64)
	return timeIn(tb, r, "locked_at").Add(-time.Duration(waited * float64(time.Second))).Round(time.Microsecond)
}
