package main

import (
	"net/http"
	"regexp"
	"syscall"
	"testing"

	"resource-lock-manager/internal/testdb"
)

// database returns the id of the database in an answer.
func (r reply) database(t *testing.T) string {
	t.Helper()
	ids := r.Header.Values("Lock-Database")
	if len(ids) != 1 || !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(ids[0]) {
		t.Fatalf("status %d, code %q: Lock-Database %q, want 32 hexadecimal digits", r.Status, r.Code, ids)
	}
	return ids[0]
}

// TestAnswersNameTheDatabase also covers refusals and answers of an overloaded server.
func TestAnswersNameTheDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL, "MAX_WAITERS=1")
		want := s.get(t, "/health").database(t)
		h := s.acquire(t, "r", "holder")
		s.wait(t, waiting("r", "waiter"))
		s.awaitQueue(t, "r", "waiter")
		for _, test := range []struct {
			method, path string
			body         any
			status       int
			code         string
		}{
			{"GET", "/readyz", nil, http.StatusOK, ""},
			{"GET", "/locks/status?resource_name=r", nil, http.StatusOK, ""},
			{"GET", "/locks/all-locked", nil, http.StatusOK, ""},
			{"POST", "/locks/request", acquisition("other", "p"), http.StatusOK, ""},
			{"DELETE", "/locks/release?resource_name=r&process_id=p", nil, http.StatusNotFound, "not_held"},
			{"GET", "/nowhere", nil, http.StatusNotFound, "not_found"},
			{"POST", "/locks/request", acquisition(h.resource, "p"), http.StatusConflict, "already_locked"},
			{"GET", "/locks/status", nil, http.StatusUnprocessableEntity, "validation_error"},
			{"POST", "/locks/request", waiting("r", "p"), http.StatusServiceUnavailable, "queue_full"},
		} {
			r := s.do(t, test.method, test.path, test.body)
			if r.Status != test.status || r.Code != test.code {
				t.Errorf("%s %s: %+v, want status %d and code %q", test.method, test.path, r, test.status, test.code)
			}
			if got := r.database(t); got != want {
				t.Errorf("%s %s, status %d: Lock-Database %s, want %s", test.method, test.path, r.Status, got, want)
			}
		}
	})
}

// TestDatabasesAreDistinguished checks that servers with the same locks state the same
// database id, also after a restart, and that all others state another one.
func TestDatabasesAreDistinguished(t *testing.T) {
	t.Parallel()
	postgresURL := testdb.Postgres(t)
	execute(t, open(t, "pgx", postgresURL), "CREATE SCHEMA other")
	seen := map[string]string{}
	for _, space := range []struct{ name, databaseURL string }{
		{"a SQLite file", sqliteURL(testdb.SQLite(t))},
		{"another file", sqliteURL(testdb.SQLite(t))},
		{"a database in memory", "sqlite://"},
		{"a Postgres database", postgresURL},
		{"another database", testdb.Postgres(t)},
		{"another schema", postgresURL + "&search_path=other"},
	} {
		s := start(t, space.databaseURL)
		id := s.get(t, "/health").database(t)
		if other, found := seen[id]; found {
			t.Errorf("%s and %s have the same id %s", space.name, other, id)
		}
		seen[id] = space.name
		if space.databaseURL == "sqlite://" {
			continue // the database ends with its server
		}
		if space.databaseURL[:6] != "sqlite" {
			if got := start(t, space.databaseURL).get(t, "/health").database(t); got != id {
				t.Errorf("%s: the second server states the database %s, the first %s", space.name, got, id)
			}
		}
		s.Stop(t, syscall.SIGTERM)
		if got := start(t, space.databaseURL).get(t, "/health").database(t); got != id {
			t.Errorf("%s: after a restart the server states the database %s, before %s", space.name, got, id)
		}
	}
}
