//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/apptest"
)

// An outage that is shorter than the TTL does not affect the command.
func TestOutageShorterThanTheTTL(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	j := startRun(t, s.url, "--ttl", "10s", "--grace", "1s", "--json", "outage", "--",
		probe(t), "-stdin", "-code", "4")
	j.ready(t, "child")
	before := currentHolder(t, newClient(t, s.url), "outage")
	s.Kill(t)
	j.waitFor(t, `"renew_failed"`)
	s.start(t)
	j.waitFor(t, `"renewed"`)
	if after := currentHolder(t, newClient(t, s.url), "outage"); after != before {
		t.Errorf("held by %q, want %q", after, before)
	}
	must(t, j.in.Close())
	j.wantCode(t, 4)
	if counts := signalCounts(j.rest(t)); len(counts) != 0 {
		t.Errorf("signals: %v", counts)
	}
}

// If the outage is longer than the TTL, the command gets TERM a grace before the
// deadline, and KILL at the deadline. Both are before the server can grant the lock
// again.
func TestServerUnreachableForLonger(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	// The flag --grace is longer than the possible grace, a third of the TTL.
	const ttl, grace, margin = 6 * time.Second, 2 * time.Second, time.Second
	j := startRun(t, s.url, "--ttl", ttl.String(), "--grace", "1h", "--json", "longer", "--",
		probe(t), "-ignore", "INT", "-keep", "-sub")
	pids := j.ready(t, "child", "grandchild")
	j.waitFor(t, `"renewed"`)
	s.Kill(t)
	var ends [2]int64
	for i := range ends {
		_, err := fmt.Sscan(j.line(t, "got TERM"), &ends[i])
		must(t, err)
	}
	for _, pid := range pids {
		awaitExit(t, pid)
	}
	killed := time.Now()
	j.wantCode(t, 76)
	s.start(t)
	c := newClient(t, s.url)
	var expiry time.Time
	apptest.Eventually(t, "the expiry in the history", func() bool {
		history := c.History(t.Context(), client.HistoryOptions{Resource: "longer", Events: []string{"expired"}})
		for e, err := range history {
			must(t, err)
			expiry = e.At
		}
		return !expiry.IsZero()
	})
	for _, at := range ends {
		if early := expiry.Sub(time.UnixMilli(at)); early < grace || early > grace+margin+ttl/3 {
			t.Errorf("TERM %v before the expiry of the lock, want %v or slightly more", early, grace+margin)
		}
	}
	if early := expiry.Sub(killed); early < 0 {
		t.Errorf("the command ended %v after the expiry of the lock", -early)
	}
	if said := j.stderr.String(); !strings.Contains(said, `"why":"unreachable"`) {
		t.Errorf("stderr %s", said)
	}
}

// If the server is down when the command ends, the exit code is the command's. The
// release is retried until the lock expires, or for a few seconds after a signal.
func TestOutageAtTheEnd(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	short := startRun(t, s.url, "--ttl", "6s", "--grace", "0s", "end/short", "--",
		probe(t), "-stdin", "-code", "3")
	long := startRun(t, s.url, "--ttl", "1h", "end/long", "--", probe(t), "-stdin", "-code", "3")
	short.ready(t, "child")
	long.ready(t, "child")
	s.Kill(t)
	for _, j := range []*job{short, long} {
		must(t, j.in.Close())
		j.waitFor(t, "retrying")
	}
	long.signal(t, unix.SIGTERM)
	long.wantCode(t, 3)
	short.wantCode(t, 3)
	for _, j := range []*job{short, long} {
		if stderr := j.stderr.String(); !strings.Contains(stderr, "lockctl: cannot release end/") {
			t.Errorf("stderr %q", stderr)
		}
	}
}

// Waiting requests keep their places in the queue over a restart of the server.
func TestRestartDuringTheWait(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	c := newClient(t, s.url)
	_, err := post(t.Context(), s.url, `{"resource_name":"restart","process_id":"other"}`)
	must(t, err)
	first := startRun(t, s.url, "--process-id", "first", "restart", "-c", "echo mine; cat")
	awaitWaiter(t, c, "restart", "first")
	second := startRun(t, s.url, "--process-id", "second", "restart", "-c", "echo mine")
	awaitWaiter(t, c, "restart", "second")
	s.Kill(t)
	for _, j := range []*job{second, first} { // the second one may retry first
		j.waitFor(t, "retrying")
	}
	s.start(t)
	awaitWaiter(t, c, "restart", "first")
	awaitWaiter(t, c, "restart", "second")
	must(t, c.Release(t.Context(), "restart", "other", 0))
	first.line(t, "mine")
	if owner := currentHolder(t, c, "restart"); owner != "first" {
		t.Errorf("held by %q", owner)
	}
	must(t, first.in.Close())
	first.wantCode(t, 0)
	second.wantCode(t, 0)
}

// proxy forwards requests to a server. It drops the answer if lose returns true.
func proxy(tb testing.TB, base string, lose func(*http.Request) bool) string {
	tb.Helper()
	target, err := url.Parse(base)
	must(tb, err)
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(r *http.Response) error {
		if lose(r.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	p.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	server := &http.Server{Handler: p}
	go func() { _ = server.Serve(l) }()
	tb.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String()
}

// If the answer of an acquire is lost, the request is repeated, and the command runs once
// under the first hold.
func TestLostAnswerOfAnAcquire(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	var requests atomic.Int32
	proxied := proxy(t, base, func(r *http.Request) bool {
		return r.URL.Path == "/locks/request" && requests.Add(1) == 1
	})
	j := startRun(t, proxied, "lost", "-c", "echo ran $LOCK_FENCING_TOKEN")
	j.wantCode(t, 0)
	var acquired []string
	history := c.History(t.Context(), client.HistoryOptions{Resource: "lost", Events: []string{"acquired"}})
	for e, err := range history {
		must(t, err)
		acquired = append(acquired, fmt.Sprintf("ran %d", e.FencingToken))
	}
	if got := j.rest(t); len(acquired) != 1 || len(got) != 1 || got[0] != acquired[0] || requests.Load() != 2 {
		t.Errorf("stdout is %q, the server has granted %q for %d requests", got, acquired, requests.Load())
	}
	awaitHolder(t, c, "lost", "")
}

// If the answer of a release is lost, the release is repeated. The lock does not count as
// lost.
func TestLostAnswerOfARelease(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	var requests atomic.Int32
	proxied := proxy(t, base, func(r *http.Request) bool {
		return r.URL.Path == "/locks/release" && requests.Add(1) == 1
	})
	j := startRun(t, proxied, "release", "--", "true")
	j.wantCode(t, 0)
	if requests.Load() != 2 {
		t.Errorf("%d requests, want 2", requests.Load())
	}
}

// Two runs with the same process ID exclude each other.
func TestSameProcessID(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	first := startRun(t, base, "--process-id", "both", "same", "--", probe(t), "-stdin")
	first.ready(t, "child")
	second := startRun(t, base, "--process-id", "both", "same", "--", probe(t), "-stdin")
	awaitWaiter(t, c, "same", "both")
	third := startRun(t, base, "-n", "--process-id", "both", "same", "--", "true")
	third.wantCode(t, 75)
	must(t, first.in.Close())
	first.wantCode(t, 0)
	second.ready(t, "child")
	awaitHolder(t, c, "same", "both")
	must(t, second.in.Close())
	second.wantCode(t, 0)
	awaitHolder(t, c, "same", "")
}

// Many runs exclude each other, and leave neither a hold nor a place in the queue.
func TestManyRuns(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	dir := t.TempDir()
	const runs = 40
	var jobs []*job
	for range runs {
		jobs = append(jobs, startRun(t, base, "many", "--", "sh", "-c", `mkdir "$0/alone" && rmdir "$0/alone"`, dir))
	}
	for _, j := range jobs {
		j.wantCode(t, 0)
	}
	awaitHolder(t, c, "many", "")
	for w, err := range c.Queue(t.Context(), "many", 0) {
		must(t, err)
		t.Errorf("%+v still waits", w)
	}
}
