package robust_test

import (
	"database/sql"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// fastRecheck makes servers recheck all their waiters ten times as often as by default.
// What only the recheck finds is then found within the length of a scenario.
const fastRecheck = "RECHECK_INTERVAL=100ms"

func absentSQLite(t *testing.T, r *robust.Run) {
	path := testdb.SQLite(t)
	servers := r.Servers(1, "sqlite:///"+path, fastRecheck)
	absent(t, r, servers, open(t, "sqlite3", sqliteSource(path)), "BEGIN IMMEDIATE")
}

func sqliteSource(path string) string { return "file:" + path + "?_busy_timeout=10000" }

func absentPostgres(t *testing.T, r *robust.Run) {
	url := testdb.Postgres(t)
	absent(t, r, r.Servers(2, url, fastRecheck), open(t, "pgx", url),
		"BEGIN; LOCK TABLE resource_locks IN EXCLUSIVE MODE")
}

// stall keeps the database locked while meanwhile runs.
func stall(t *testing.T, r *robust.Run, db *sql.DB, lock string, meanwhile func()) {
	t.Helper()
	db.SetMaxOpenConns(1) // both statements need the same connection
	_, err := db.Exec(lock)
	must(t, err)
	r.Fault(robust.Stalled, robust.NoServer, meanwhile)
	_, err = db.Exec("ROLLBACK")
	must(t, err)
}

// absent runs clients of which many do not read their answers, while another program
// locks the database again and again.
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
