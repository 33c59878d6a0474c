package store_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/testdb"
)

const fencedWrite = "-- write only while the token is current"

// The user's own table is in the database of the locks: the write and the check of the
// token are one transaction.
func TestFencedWriteInTheUsersTransaction(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	s := open(t, cfg)
	db := connect(t, cfg)
	run(t, cfg, "CREATE TABLE accounts (id int PRIMARY KEY, balance int)", "INSERT INTO accounts VALUES (1, 100)")
	statement := testdb.Example(t, fencedWrite)
	// write reports whether the database accepted the write.
	write := func(tx *sql.Tx, balance int, token int64) bool {
		t.Helper()
		result, err := tx.ExecContext(t.Context(), statement, balance, 1, "account 1", token)
		if err != nil {
			t.Fatal(err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
	begin := func() *sql.Tx {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}

	first := execute(t, s, acquireFor("account 1", "slow", time.Hour))
	tx := begin()
	if !write(tx, 110, first.Hold.Token) {
		t.Error("the holder's write was refused")
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}

	// The slow process is paused. Its hold is force-released and another process works.
	execute(t, s, lock.ForceRelease{Resource: "account 1", Reason: "no heartbeat"})
	tx = begin()
	if write(tx, 120, first.Hold.Token) {
		t.Error("a write was accepted while no process holds the lock")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	second := execute(t, s, acquireFor("account 1", "quick", time.Hour))
	tx = begin()
	if write(tx, 130, first.Hold.Token) {
		t.Error("the stale holder's write was accepted")
	}
	if !write(tx, 140, second.Hold.Token) {
		t.Error("the new holder's write was refused")
	}

	// Until that transaction ends, no other process can become the holder: the check and
	// the write are one.
	released := make(chan error, 1)
	go func() {
		_, err := s.Execute(context.Background(), lock.ForceRelease{Resource: "account 1", Reason: "too early"})
		released <- err
	}()
	waitForLock(t, db)
	select {
	case err := <-released:
		t.Errorf("the hold was force-released during its holder's transaction: %v", err)
	default:
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-released; err != nil {
		t.Error(err)
	}

	// The write of an expired hold is refused, too, whether or not its end was recorded.
	expired := execute(t, s, acquireFor("account 1", "late", time.Microsecond))
	tx = begin()
	if write(tx, 150, expired.Hold.Token) {
		t.Error("the write of an expired holder was accepted")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	var balance int
	if err := db.QueryRowContext(t.Context(), "SELECT balance FROM accounts").Scan(&balance); err != nil ||
		balance != 140 {
		t.Errorf("balance %d, %v", balance, err)
	}
}

// waitForLock returns when a session of the database waits for a row.
func waitForLock(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		var waiting bool
		err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		if waiting {
			return
		}
	}
}

// The second method of the page: the protected table stores the highest token that it has
// seen.
func TestFencedByHighestToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		run(t, cfg, "CREATE TABLE documents (id int PRIMARY KEY, body text, fencing_token bigint NOT NULL DEFAULT 0)",
			"INSERT INTO documents (id) VALUES (1)")
		statement := testdb.Example(t, "-- refuse a token lower than the highest one seen")
		if cfg.Driver == store.SQLite { // numbers its parameters with question marks
			statement = strings.NewReplacer("$1", "?1", "$2", "?2", "$3", "?3").Replace(statement)
		}
		db := connect(t, cfg)
		write := func(body string, token int64) int64 {
			t.Helper()
			result, err := db.ExecContext(t.Context(), statement, body, 1, token)
			if err != nil {
				t.Fatal(err)
			}
			n, err := result.RowsAffected()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		first := execute(t, s, acquire("doc", "p")).Hold.Token
		if write("one", first) != 1 || write("one again", first) != 1 {
			t.Error("the first holder was refused")
		}
		execute(t, s, lock.ForceRelease{Resource: "doc", Reason: "gone"})
		second := execute(t, s, acquire("doc", "q")).Hold.Token
		if write("two", second) != 1 {
			t.Error("the second holder was refused")
		}
		if write("late", first) != 0 {
			t.Error("the first holder overwrote the second")
		}
	})
}
