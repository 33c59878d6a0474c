package store_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// databaseIDOf opens a store, closes it and returns the id of its database.
func databaseIDOf(t *testing.T, cfg store.Config) string {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.DatabaseID()
}

// The id of a database is made once. Every other database has another id.
func TestDatabaseID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		first := databaseIDOf(t, cfg)
		if !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(first) {
			t.Errorf("the id is %q, want 32 hexadecimal digits", first)
		}
		if again := databaseIDOf(t, cfg); again != first {
			t.Errorf("the id was %s and is %s when the database is opened again", first, again)
		}
		if other := databaseIDOf(t, config(t, cfg.Driver)); other == first {
			t.Errorf("another database has the same id %s", other)
		}
	})
}

// Servers that share a Postgres database have its id. Another schema is another database.
func TestDatabaseIDOfSchemas(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	run(t, cfg, "CREATE SCHEMA other")
	other := cfg
	other.Source += "&search_path=other"
	first, second, apart := open(t, cfg), open(t, cfg), open(t, other)
	if first.DatabaseID() != second.DatabaseID() {
		t.Errorf("two servers of one database have the ids %s and %s", first.DatabaseID(), second.DatabaseID())
	}
	if first.DatabaseID() == apart.DatabaseID() {
		t.Errorf("two schemas have the same id %s", apart.DatabaseID())
	}
}

// A copy of a file is not noticed: it has the id of the original.
func TestDatabaseIDOfACopy(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	want := databaseIDOf(t, cfg)
	text, err := os.ReadFile(cfg.Source)
	if err != nil {
		t.Fatal(err)
	}
	copied := config(t, store.SQLite)
	if err := os.WriteFile(copied.Source, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := databaseIDOf(t, copied); got != want {
		t.Errorf("the copy has the id %s, the original %s", got, want)
	}
}

// A database of an earlier release gets an id and keeps its holds. On Postgres a server
// of that release continues to work.
func TestDatabaseOfTheReleaseBeforeGetsAnID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		before, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		before.Start(nil)
		token := execute(t, before, acquire("old", "p")).Hold.Token
		if cfg.Driver == store.SQLite { // it belongs to one server
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}
		}
		undoMigrations(t, cfg, 7)

		after := open(t, cfg)
		wantVersions(t, cfg)
		if id := after.DatabaseID(); len(id) != 32 || id == before.DatabaseID() {
			t.Errorf("the id is %q, want a new one", id)
		}
		if r, _ := find(t, after, "old"); len(r.Holds) != 1 || r.Holds[0].Token != token {
			t.Errorf("the hold from before: %+v", r)
		}
		if cfg.Driver == store.Postgres {
			execute(t, before, lock.Release{Resource: "old", ProcessID: "p"})
			execute(t, before, acquire("new", "p"))
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The database accepts no other text as its id, and a store does not open without an id.
func TestDatabaseIDIsNothingElse(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		databaseIDOf(t, cfg)
		for _, id := range []string{
			"", "not an id", strings.Repeat("A", 32), strings.Repeat("0", 33), strings.Repeat("0", 31) + "\n",
		} {
			statement := "UPDATE lockd_database SET database_id = '" + id + "'"
			if _, err := connect(t, cfg).ExecContext(t.Context(), statement); err == nil {
				t.Errorf("the database accepts %q as its id", id)
			}
		}
		run(t, cfg, "DELETE FROM lockd_database")
		s, err := store.Open(t.Context(), cfg)
		if err == nil {
			t.Fatal("opened a database without an id", s.Close())
		}
		if !strings.Contains(err.Error(), "lockd_database") {
			t.Errorf("the error does not name the table: %v", err)
		}
	})
}
