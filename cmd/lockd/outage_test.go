package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// TestPostgresGoneForAWhile stops Postgres under load and starts it again. Requests are
// answered 503, nothing acknowledged is lost, and the server recovers by itself.
func TestPostgresGoneForAWhile(t *testing.T) {
	t.Parallel()
	cluster, err := testdb.NewCluster()
	must(t, err)
	t.Cleanup(func() { must(t, cluster.Close()) })
	s := start(t, cluster.URL("postgres"))
	early := s.acquire(t, "early", "p")
	l := s.startLoad(t, 4)
	l.await(t, 50)

	must(t, cluster.Stop())
	apptest.Eventually(t, "the server is not ready",
		func() bool { return s.get(t, "/readyz").Status == http.StatusServiceUnavailable })
	for name, r := range map[string]reply{
		"acquire":    s.request(t, "late", "p"),
		"release":    s.do(t, http.MethodDelete, "/locks/release?resource_name=early&process_id=p", nil),
		"status":     s.status(t, "early"),
		"all-locked": s.get(t, "/locks/all-locked"),
		"readyz":     s.get(t, "/readyz"),
	} {
		wantUnavailable(t, name, r, "database_unavailable")
	}
	for _, path := range []string{"/livez", "/health"} {
		if r := s.get(t, path); r.Status != http.StatusOK {
			t.Errorf("%s without a database: %+v", path, r)
		}
	}

	must(t, cluster.Start())
	apptest.Eventually(t, "the server is ready again", func() bool { return s.get(t, "/readyz").Status == http.StatusOK })
	l.await(t, len(l.granted)+50)
	l.finish()
	for _, err := range l.errors {
		t.Errorf("a client lost its connection to the server: %v", err)
	}
	if len(l.refusals) == 0 {
		t.Error("no client noticed the outage")
	}
	for _, r := range l.refusals {
		wantUnavailable(t, "acquire under load", r, "database_unavailable", "outcome_unknown")
	}
	s.wantHeld(t, append(l.holds, early))
}

// wantUnavailable checks a 503 answer. It contains what the client needs and no
// internals.
func wantUnavailable(t *testing.T, name string, r reply, codes ...string) {
	t.Helper()
	known := false
	for _, code := range codes {
		known = known || r.Code == code
	}
	detail, _ := r.Detail.(string)
	if r.Status != http.StatusServiceUnavailable || !known || r.Header.Get("Retry-After") == "" || detail == "" {
		t.Errorf("%s: %+v", name, r)
	}
	if strings.ContainsAny(detail, "/0123456789") {
		t.Errorf("%s contains internals: %s", name, detail)
	}
}

// TestSQLiteCannotWriteAnyMore limits files to a megabyte, so that SQLite cannot write,
// as on a full disk. The holds that were acknowledged before are kept and shown, also
// after a crash. The refused ones do not exist.
func TestSQLiteCannotWriteAnyMore(t *testing.T) {
	t.Parallel()
	path := testdb.SQLite(t)
	s := start(t, sqliteURL(path), maxFileBytes+"=1048576")
	var held, unknown []string
	var holds []hold
	process := strings.Repeat("p", 255)
	for refusals := 0; refusals < 5; {
		number := string(rune('a'+len(holds)/26)) + string(rune('a'+len(holds)%26))
		resource := strings.Repeat("r", 230) + " " + number + strings.Repeat("!", refusals)
		r := s.request(t, resource, process)
		h, granted := holdOf(r)
		switch {
		case granted && refusals > 0:
			t.Fatal("granted after a refusal, so the files are not limited as the test needs")
		case granted:
			holds = append(holds, h)
			held = append(held, h.resource)
			continue
		case r.Code == "outcome_unknown":
			unknown = append(unknown, resource)
		}
		// Linux answers "file too large". SQLite cannot distinguish that from a broken
		// disk, so the outcome may be unknown.
		wantUnavailable(t, "acquire", r, "database_unavailable", "outcome_unknown")
		refusals++
		if len(holds) > 26*26 {
			t.Fatal("the limit has no effect")
		}
	}

	if diff := cmp.Diff(held, s.locked(t)); diff != "" {
		t.Errorf("held while nothing can be written (-want +got):\n%s", diff)
	}
	for _, h := range holds {
		if r := s.status(t, h.resource); r.Data["locked_by"] != h.process {
			t.Errorf("status of %s: %+v", h.resource, r)
		}
	}
	if r := s.get(t, "/livez"); r.Status != http.StatusOK {
		t.Errorf("livez: %+v", r)
	}
	s.Kill(t)

	s = start(t, sqliteURL(path))
	got := map[string]bool{}
	for _, name := range s.locked(t) {
		got[name] = true
	}
	for _, name := range append(held, unknown...) {
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s was refused, but is held after a restart", name)
	}
	s.wantHeld(t, holds)
	s.acquire(t, "there is room again", "p")
	s.Stop(t, syscall.SIGTERM)
	var verdict string
	must(t, open(t, "sqlite3", path).QueryRow("PRAGMA integrity_check").Scan(&verdict))
	if verdict != "ok" {
		t.Errorf("integrity check: %s", verdict)
	}
}
