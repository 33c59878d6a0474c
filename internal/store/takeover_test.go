package store_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// The table as SQLAlchemy creates it from the model of the Python version.
const (
	pythonSQLite = `CREATE TABLE resource_locks (
		id INTEGER NOT NULL, resource_name VARCHAR NOT NULL, process_id VARCHAR NOT NULL,
		locked_at DATETIME DEFAULT CURRENT_TIMESTAMP, expires_at DATETIME, is_active BOOLEAN, PRIMARY KEY (id))`
	pythonPostgres = `CREATE TABLE resource_locks (
		id SERIAL NOT NULL, resource_name VARCHAR NOT NULL, process_id VARCHAR NOT NULL,
		locked_at TIMESTAMP %[1]s TIME ZONE DEFAULT now(), expires_at TIMESTAMP %[1]s TIME ZONE, is_active BOOLEAN,
		PRIMARY KEY (id))`
	pythonNameIndex = `CREATE UNIQUE INDEX ix_resource_locks_resource_name ON resource_locks (resource_name)`
	// A table of another program.
	pythonForeignKey = `; CREATE TABLE notes (resource_name VARCHAR REFERENCES resource_locks (resource_name))`
	pythonIDIndex    = `CREATE INDEX ix_resource_locks_id ON resource_locks (id)`
)

// pythonRow is a row that the Python version may have left, and what the migration must
// make of it.
type pythonRow struct {
	locked, expires, active string // as SQL

	wantHeld    bool
	wantLocked  string
	wantExpires string // empty: never
	sqliteOnly  bool
}

var pythonRows = []pythonRow{
	{locked: "'2024-01-15 10:30:00'", expires: "NULL", active: "true", wantHeld: true, wantLocked: "2024-01-15T10:30:00Z"},
	{
		locked: "'2024-01-15 10:30:00.123456'", expires: "'2924-01-15 10:35:00.5'", active: "true",
		wantHeld: true, wantLocked: "2024-01-15T10:30:00.123456Z", wantExpires: "2924-01-15T10:35:00.5Z",
	},
	{
		locked: "'2024-01-15T10:30:59.9999'", expires: "'2924-01-15 12:35:00.999999+02:00'", active: "true", sqliteOnly: true,
		wantHeld: true, wantLocked: "2024-01-15T10:30:59.9999Z", wantExpires: "2924-01-15T10:35:00.999999Z",
	},
	{
		locked: "'2024-01-15T10:30:00Z'", expires: "'2924-01-15 10:35'", active: "1", sqliteOnly: true,
		wantHeld: true, wantLocked: "2024-01-15T10:30:00Z", wantExpires: "2924-01-15T10:35:00Z",
	},
	{
		// It expired long ago, which the Python version had not recorded.
		locked: "'2024-01-15 10:30:00.123456'", expires: "'2024-01-15 10:35:00.123456'", active: "true",
		wantLocked: "2024-01-15T10:30:00.123456Z", wantExpires: "2024-01-15T10:35:00.123456Z",
	},
	{locked: "'2024-01-15 10:30:00'", expires: "NULL", active: "false", wantLocked: "2024-01-15T10:30:00Z"},
	{locked: "'2024-01-15 10:30:00'", expires: "NULL", active: "NULL", wantLocked: "2024-01-15T10:30:00Z"},
	{locked: "NULL", expires: "NULL", active: "true", wantHeld: true, wantLocked: "1970-01-01T00:00:00Z"},
	// An expiry that is not a timestamp must not end a hold.
	{
		locked: "'2024-01-15 10:30:00'", expires: "'soon'", active: "true", sqliteOnly: true, wantHeld: true,
		wantLocked: "2024-01-15T10:30:00Z",
	},
}

func TestTakeOverPythonDatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, driver, table, index string }{
		{"sqlite", store.SQLite, pythonSQLite, pythonNameIndex},
		{"sqlite, unique column", store.SQLite, strings.Replace(pythonSQLite, "PRIMARY KEY",
			"UNIQUE (resource_name), PRIMARY KEY", 1), ""},
		{"postgres", store.Postgres, fmt.Sprintf(pythonPostgres, "WITH"), pythonNameIndex},
		{"postgres, no time zone", store.Postgres, fmt.Sprintf(pythonPostgres, "WITHOUT"), pythonNameIndex},
		{"postgres, unique column", store.Postgres, strings.Replace(fmt.Sprintf(pythonPostgres, "WITH"), "PRIMARY KEY",
			"UNIQUE (resource_name), PRIMARY KEY", 1), ""},
		{"postgres, no unique index", store.Postgres, fmt.Sprintf(pythonPostgres, "WITH"), ""},
		{"postgres, foreign key", store.Postgres, fmt.Sprintf(pythonPostgres, "WITH"), pythonNameIndex + pythonForeignKey},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, test.driver)
			statements := []string{test.table, pythonIDIndex}
			if test.index != "" {
				statements = append(statements, test.index)
			}
			if test.driver == store.Postgres {
				statements = append([]string{"SET TIME ZONE 'UTC'"}, statements...)
			}
			want := map[string]lock.Resource{}
			for i, row := range pythonRows {
				if row.sqliteOnly && test.driver != store.SQLite {
					continue
				}
				name := fmt.Sprint("resource ", i)
				statements = append(statements, fmt.Sprintf(
					"INSERT INTO resource_locks (id, resource_name, process_id, locked_at, expires_at, is_active) "+
						"VALUES (%d, '%s', 'p', %s, %s, %s)",
					i+10, name, row.locked, row.expires, row.active))
				want[name] = row.resource(t, int64(i+10), name)
			}
			run(t, cfg, strings.Join(statements, ";\n")) // one session, so that the time zone holds for all

			s := open(t, cfg)
			locks := service.New(s, service.Config{Limits: lock.Limits{MaxTTL: lock.LongestTTL}}, slog.New(slog.DiscardHandler))
			for name, want := range want {
				got, _ := find(t, s, name)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
				_, held := got.Holder(time.Now())
				_, err := locks.Acquire(t.Context(), lock.Request{Resource: name, ProcessID: "new"})
				if granted := err == nil; granted == held {
					t.Errorf("%s: held: %v, granted to another: %v", name, held, granted)
				}
				if held {
					if _, err := locks.Release(t.Context(), lock.Release{Resource: name, ProcessID: "p"}); err != nil {
						t.Errorf("%s: its old holder cannot release it: %v", name, err)
					}
				}
			}
			if want := 1 + strings.Count(test.index, pythonForeignKey); test.driver == store.Postgres {
				const unique = `SELECT count(*) FROM pg_index AS i
					JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
					WHERE i.indrelid = 'resource_locks'::regclass AND i.indisunique AND a.attname = 'resource_name'`
				if n := number(t, connect(t, cfg), unique); n != want {
					t.Errorf("names have %d unique indexes, want %d: each costs every write", n, want)
				}
			}
			fresh := execute(t, s, acquire("fresh", "p"))
			if id := fresh.Resource.ID; id == 0 {
				t.Error("a new row has no id")
			}
		})
	}
}

// resource returns the state that the row must have after the migration.
func (row pythonRow) resource(t *testing.T, id int64, name string) lock.Resource {
	t.Helper()
	parse := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		m, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	hold := lock.Hold{ProcessID: "p", Token: 1, LockedAt: parse(row.wantLocked), ExpiresAt: parse(row.wantExpires)}
	r := lock.Resource{ID: id, Name: name, Token: 1}
	if row.active == "true" || row.active == "1" {
		r.Holds = []lock.Hold{hold}
	} else {
		r.Last, r.EndedAt = hold, hold.LockedAt
	}
	if _, held := r.Holder(time.Now()); held != row.wantHeld {
		t.Fatalf("%s: the test is inconsistent", name)
	}
	return r
}
