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

// fastRecheck servers look at all their waiters again ten times as often as usual, so that what they find is found in time.
const fastRecheck = "RECHECK_INTERVAL=100ms"

func absentSQLite(t *testing.T, r *robust.Run) {
	path := testdb.SQLite(t)
	servers := r.Servers(1, "sqlite:///"+path, fastRecheck)
	absent(t, r, servers, openLocker(t, "sqlite3", sqliteSource(path)), "BEGIN IMMEDIATE")
}

func sqliteSource(path string) string { return "file:" + path + "?_busy_timeout=10000" }

func absentPostgres(t *testing.T, r *robust.Run) {
	url := testdb.Postgres(t)
	absent(t, r, r.Servers(2, url, fastRecheck), openLocker(t, "pgx", url), "BEGIN; LOCK TABLE resource_locks IN EXCLUSIVE MODE")
}

// openLocker connects as another program does.
func openLocker(t *testing.T, driver, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	return db
}

// stall keeps the database locked for a time.
func stall(t *testing.T, r *robust.Run, db *sql.DB, lock string, meanwhile func()) {
	t.Helper()
	if _, err := db.Exec(lock); err != nil {
		t.Fatal(err)
	}
	r.Fault(robust.Stalled, robust.NoServer, meanwhile)
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
}

// absent has clients at work of which many are not there for their answers, while another program keeps the database locked
// again and again.
func absent(t *testing.T, r *robust.Run, servers []*robust.Server, db *sql.DB, lock string) {
	t.Helper()
	r.Work(robust.Workload{Clients: 6}, servers...)
	r.Absent(robust.Workload{Resources: 40}, 12, servers...)
	for r.Running() {
		r.Pause(between(r, 0, 300*time.Millisecond))
		stall(t, r, db, lock, func() { r.Pause(between(r, 300*time.Millisecond, 800*time.Millisecond)) })
	}
	r.Judge()
}
