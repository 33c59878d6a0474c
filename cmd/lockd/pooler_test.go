package main

import (
	"database/sql"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/testdb"
)

// settings are all settings that a server of this program could change, and that a
// session could leave changed.
const settings = `
	SELECT concat_ws(' ', 'seqscan', current_setting('enable_seqscan'),
		'bitmapscan', current_setting('enable_bitmapscan'),
		'jit', current_setting('jit'), 'sync', current_setting('synchronous_commit'),
		'idle', current_setting('idle_in_transaction_session_timeout'),
		'statement', current_setting('statement_timeout'),
		'lock', current_setting('lock_timeout'), 'zone', current_setting('TimeZone'),
		'dates', current_setting('DateStyle'), 'path', current_setting('search_path'),
		'listens', (SELECT count(*) FROM pg_listening_channels()),
		'prepared', (SELECT count(*) FROM pg_prepared_statements))`

// advisoryLocks counts the advisory locks of the database.
const advisoryLocks = `
	SELECT count(*) FROM pg_locks
	WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// TestPooler has servers share connections with another program through a PgBouncer in
// transaction mode. Everything works as documented, and the other program sees no change
// of its connections.
func TestPooler(t *testing.T) {
	t.Parallel()
	for name, connections := range map[string]int{"one connection for all": 1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := testdb.Postgres(t)
			db := open(t, "pgx", direct)
			name := one(t, db, "SELECT current_database()")
			for _, setting := range []string{
				"synchronous_commit = off", "TimeZone = 'Asia/Kathmandu'",
				"DateStyle = 'German'", "statement_timeout = '1h'",
			} {
				execute(t, db, "ALTER DATABASE "+name+" SET "+setting)
			}
			want := one(t, open(t, "pgx", direct+"&default_query_exec_mode=exec"), settings)
			pooled := testdb.PgBouncer(t, direct, connections) + "&default_query_exec_mode=exec"
			n := startOtherProgram(t, pooled, want)

			f := startFleet(t, pooled, 2, "NOTIFICATIONS=false", "LOG_LEVEL=debug")
			execute(t, db, `
				CREATE TABLE seen (operation text, settings text);
				CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					INSERT INTO seen SELECT current_setting('synchronous_commit'), concat_ws(' ',
						current_setting('enable_seqscan'), current_setting('enable_bitmapscan'), current_setting('jit'),
						current_setting('idle_in_transaction_session_timeout'));
					RETURN NULL;
				END $$;
				CREATE TRIGGER see AFTER INSERT OR UPDATE ON resource_locks EXECUTE FUNCTION see();`)
			firstComeFirstServed(t, f, "in order")
			expiryHandsOver(t, f, "expiring")
			f.at(0).wantHeld(t, []hold{f.at(1).acquire(t, "kept", "p")})
			late := start(t, pooled, "NOTIFICATIONS=false") // no migrations to do
			if got := late.locked(t); !cmp.Equal(got, []string{"kept"}) {
				t.Errorf("locked: %v", got)
			}

			n.stop()
			if n.reads.Load() < 100 {
				t.Errorf("the other program read its settings only %d times", n.reads.Load())
			}
			got := one(t, db, "SELECT string_agg(DISTINCT operation || ' ' || settings, '; ') FROM seen")
			if got != "on off off off 5s" {
				t.Errorf("a transaction that changes locks has the settings %q", got)
			}
			if got := one(t, db, advisoryLocks); got != "0" {
				t.Errorf("%s advisory locks are left", got)
			}
		})
	}
}

// TestPoolerWithNotifications leaves NOTIFICATIONS on. A server that detects a pooler
// logs that, and does not make another program's connection listen.
func TestPoolerWithNotifications(t *testing.T) {
	t.Parallel()
	direct := testdb.Postgres(t)
	want := one(t, open(t, "pgx", direct+"&default_query_exec_mode=exec"), settings)
	pooled := testdb.PgBouncer(t, direct, 1) + "&default_query_exec_mode=exec"
	n := startOtherProgram(t, pooled, want)
	f := startFleet(t, pooled, 2, "LOG_LEVEL=debug")
	firstComeFirstServed(t, f, "in order")
	await(t, "a warning about the pooler", true,
		func() bool { return strings.Contains(f[0].Output.String(), "NOTIFICATIONS=false") })
	n.stop()
}

// otherProgram is another program's connection through the same pooler.
type otherProgram struct {
	reads atomic.Int64
	stop  func()
}

// startOtherProgram compares the settings of its connection with the wanted ones, again
// and again.
func startOtherProgram(t *testing.T, databaseURL, want string) *otherProgram {
	t.Helper()
	n := &otherProgram{}
	db := open(t, "pgx", databaseURL)
	db.SetMaxOpenConns(1)
	var reading sync.WaitGroup
	var quit atomic.Bool
	n.stop = func() {
		quit.Store(true)
		reading.Wait()
	}
	t.Cleanup(n.stop)
	reading.Go(func() {
		for !quit.Load() {
			var got string
			switch err := db.QueryRow(settings).Scan(&got); {
			case err != nil:
				t.Error(err)
				return
			case got != want:
				t.Errorf("another program's connection has\n%s, want\n%s", got, want)
				return
			}
			n.reads.Add(1)
		}
	})
	return n
}

// one returns the only value of a query as text.
func one(t *testing.T, db *sql.DB, query string) (value string) {
	t.Helper()
	must(t, db.QueryRow(query).Scan(&value))
	return value
}
