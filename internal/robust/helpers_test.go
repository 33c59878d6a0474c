package robust_test

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sqlite(t *testing.T) string { return "sqlite:///" + testdb.SQLite(t) }

func newCluster(t *testing.T, options ...string) *testdb.Cluster {
	t.Helper()
	cluster, err := testdb.NewCluster(options...)
	must(t, err)
	t.Cleanup(func() { must(t, cluster.Close()) })
	return cluster
}

// open connects to a database directly, with one of the drivers pgx and sqlite3.
func open(t *testing.T, driver, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, source)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// between returns a random duration.
func between(r *robust.Run, shortest, longest time.Duration) time.Duration {
	return shortest + time.Duration(r.Rand.Int64N(int64(longest-shortest)))
}

// restart returns a function that kills a server, runs meanwhile, and starts the server
// again.
func restart(t *testing.T, s *robust.Server, meanwhile func()) func() {
	t.Helper()
	return func() {
		s.Kill(t)
		meanwhile()
		s.Start(t)
	}
}
