package store_test

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/testdb"
)

// config returns the settings for a fresh database of the driver.
func config(tb testing.TB, driver string) store.Config {
	tb.Helper()
	cfg := store.Config{Driver: driver, MaxQueue: 1024, Logger: slog.New(slog.DiscardHandler), Notifications: true}
	switch driver {
	case store.SQLite:
		cfg.Source = testdb.SQLite(tb)
	case store.Postgres:
		cfg.Source = testdb.Postgres(tb)
	}
	return cfg
}

// open starts a store that is closed when the test ends.
func open(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	return openObserved(tb, cfg, nil)
}

// openObserved is open with an observer of the commits.
func openObserved(tb testing.TB, cfg store.Config, onCommit func(service.Commit)) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.Start(onCommit)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// onBoth runs a test on a fresh database of each driver.
func onBoth(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, config(t, driver))
		})
	}
}

func execute(tb testing.TB, s *store.Store, c lock.Command) lock.Outcome {
	tb.Helper()
	out, err := s.Execute(context.Background(), c)
	if err != nil {
		tb.Fatalf("%+v: %v", c, err)
	}
	return out
}

// acquire returns a request that does not wait, for a hold that never expires.
func acquire(resource, process string) lock.Acquire {
	return lock.Acquire{Request: lock.Request{Resource: resource, ProcessID: process}}
}

// acquireFor is acquire for a hold that expires.
func acquireFor(resource, process string, ttl time.Duration) lock.Acquire {
	c := acquire(resource, process)
	c.TTL = ttl
	return c
}

// find returns the stored state of a resource and the time of the read.
func find(tb testing.TB, s *store.Store, name string) (lock.Resource, time.Time) {
	tb.Helper()
	seen, err := s.Find(context.Background(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return seen.Resource, seen.At
}

// held returns every resource that matches the filter.
func held(tb testing.TB, s *store.Store, f service.ListFilter) []lock.Resource {
	tb.Helper()
	var found []lock.Resource
	total := -1
	err := s.Held(context.Background(), f, func(n int, _ time.Time) error {
		total = n
		return nil
	}, func(r lock.Resource) error {
		found = append(found, r)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if total != len(found) {
		tb.Errorf("%d resources announced, %d passed on", total, len(found))
	}
	return found
}

// connect opens the database by its bare driver.
func connect(tb testing.TB, cfg store.Config) *sql.DB {
	tb.Helper()
	driver := map[string]string{store.SQLite: "sqlite3", store.Postgres: "pgx"}[cfg.Driver]
	db, err := sql.Open(driver, cfg.Source)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// run executes statements on a database, past the store.
func run(tb testing.TB, cfg store.Config, statements ...string) {
	tb.Helper()
	db := connect(tb, cfg)
	for _, statement := range statements {
		if _, err := db.ExecContext(context.Background(), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
}

// number returns the result of a statement.
func number(tb testing.TB, db *sql.DB, statement string) int {
	tb.Helper()
	var n int
	if err := db.QueryRowContext(context.Background(), statement).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
	return n
}

// column returns the first column of a query as strings.
func column(t *testing.T, cfg store.Config, query string) (found []string) {
	t.Helper()
	rows, err := connect(t, cfg).QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		found = append(found, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// eventually fails the test unless a condition becomes true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(60 * time.Second); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
