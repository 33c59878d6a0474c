package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
)

// The migrations of another program and those of this program do not hide each other, in
// either order.
func TestMigrationsOfAnotherProgram(t *testing.T) {
	t.Parallel()
	for _, first := range []int64{0, 1, 4, 9} { // migrations of the other program before ours
		t.Run(fmt.Sprint(first, " before"), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, cfg store.Config) {
				if first > 0 {
					runApplication(t, cfg, first)
				}
				work(t, cfg)
				wantVersions(t, cfg)
				runApplication(t, cfg, 12)
				wantApplication(t, cfg, 12)
				work(t, cfg)
			})
		})
	}
}

// A database of an earlier version is upgraded with its contents, and the version table
// of goose is left to other programs.
func TestTakeOverEarlierVersions(t *testing.T) {
	t.Parallel()
	for version := int64(1); version <= 4; version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, cfg store.Config) {
				makeEarlier(t, cfg, version)
				work(t, cfg)
				wantVersions(t, cfg)
				if found := tables(t, cfg); slices.Contains(found, "goose_db_version") {
					t.Errorf("the version table of goose is still there: %v", found)
				}
				runApplication(t, cfg, 5)
				wantApplication(t, cfg, 5)
				s := open(t, cfg)
				if r, _ := find(t, s, "old"); len(r.Holds) != 1 || r.Holds[0].Token != 7 {
					t.Errorf("the hold from before: %+v", r)
				}
			})
		})
	}
}

// A version table that may belong to another program is left alone, and the log reports
// it.
func TestSharedVersionTableIsLeftAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, cfg store.Config){
		"it went on after us": func(t *testing.T, cfg store.Config) { runApplication(t, cfg, 6) },
		"it has fewer than ours": func(t *testing.T, cfg store.Config) {
			run(t, cfg,
				"DELETE FROM goose_db_version WHERE version_id > 2")
		},
		"it has a gap": func(t *testing.T, cfg store.Config) {
			run(t, cfg,
				"DELETE FROM goose_db_version WHERE version_id = 2")
		},
		"it is empty": func(t *testing.T, cfg store.Config) { run(t, cfg, "DELETE FROM goose_db_version") },
	}
	for name, share := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, cfg store.Config) {
				makeEarlier(t, cfg, 4)
				share(t, cfg)
				const versions = "SELECT version_id FROM goose_db_version ORDER BY version_id"
				before := column(t, cfg, versions)
				var lines bytes.Buffer
				cfg.Logger = slog.New(slog.NewTextHandler(&lines, nil))
				work(t, cfg)
				if text := lines.String(); strings.Count(text, "goose_db_version") != 1 || !strings.Contains(text, "level=WARN") {
					t.Errorf("log: %s", text)
				}
				if diff := cmp.Diff(before, column(t, cfg, versions)); diff != "" {
					t.Errorf("the versions of the other program (-before +after):\n%s", diff)
				}
				wantVersions(t, cfg)
				lines.Reset()
				work(t, cfg)
				if text := lines.String(); strings.Contains(text, "goose_db_version") {
					t.Errorf("log of the second start: %s", text)
				}
			})
		})
	}
}

// A table or an index of another program with one of our names is reported and left
// alone, and no table of ours is created beside it.
func TestForeignNamesAreRefused(t *testing.T) {
	t.Parallel()
	const pythonColumns = "id integer, resource_name text, process_id text, " +
		"locked_at text, expires_at text, is_active boolean"
	tests := map[string]struct{ statement, word string }{
		"resource_locks of another kind":  {"CREATE TABLE resource_locks (n int, fencing_token int)", "resource_locks"},
		"resource_locks with more":        {"CREATE TABLE resource_locks (" + pythonColumns + ", room text)", "room"},
		"resource_locks with a token":     {"CREATE TABLE resource_locks (" + pythonColumns + ", fencing_token int)", "fencing_token"},
		"lock_events":                     {"CREATE TABLE lock_events (n integer)", "lock_events"},
		"lock_servers":                    {"CREATE TABLE lock_servers (n integer)", "lock_servers"},
		"an index":                        {"CREATE TABLE other (n int); CREATE INDEX lock_waiters_request ON other (n)", "lock_waiters_request"},
		"a view":                          {"CREATE VIEW token_floor AS SELECT 1 AS n", "token_floor"},
		"version table of another design": {"CREATE TABLE lockd_schema_version (n integer)", "lockd_schema_version"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, cfg store.Config) {
				run(t, cfg, test.statement)
				before := tables(t, cfg)
				for range 2 {
					s, err := store.Open(t.Context(), cfg)
					if err == nil {
						t.Fatal("opened", s.Close())
					}
					if text := err.Error(); !strings.Contains(text, test.word) || !strings.Contains(text, "of its own") {
						t.Errorf("error: %s", text)
					}
				}
				if diff := cmp.Diff(before, tables(t, cfg)); diff != "" {
					t.Errorf("tables (-before +after):\n%s", diff)
				}
			})
		})
	}
}

// Servers that start at the same time bring the schema up to date once.
func TestServersMigrateAtOnce(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, cfg store.Config){
		"new":             func(*testing.T, store.Config) {},
		"earlier version": func(t *testing.T, cfg store.Config) { makeEarlier(t, cfg, 2) },
		"another program": func(t *testing.T, cfg store.Config) { runApplication(t, cfg, 4) },
		"Python version": func(t *testing.T, cfg store.Config) {
			run(t, cfg, fmt.Sprintf(pythonPostgres, "WITH"),
				"INSERT INTO resource_locks (resource_name, process_id, is_active) VALUES ('r', 'p', true)")
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			prepare(t, cfg)
			var servers sync.WaitGroup
			for range 8 {
				servers.Go(func() {
					s, err := store.Open(context.Background(), cfg)
					if err != nil {
						t.Error(err)
						return
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			servers.Wait()
			wantVersions(t, cfg)
			if left := column(t, cfg, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND "+
				"database = (SELECT oid FROM pg_database WHERE datname = current_database())"); left[0] != "0" {
				t.Errorf("%s advisory locks are left", left[0])
			}
		})
	}
}

// Several lock databases, and other programs, live in schemas of one Postgres database.
func TestSchemas(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	in := func(path string) store.Config {
		cfg := cfg
		cfg.Source += "&search_path=" + path
		return cfg
	}
	run(t, cfg, "CREATE SCHEMA locks", "CREATE SCHEMA later", `CREATE TABLE public.lock_events (n integer)`)
	work(t, in("locks"))
	work(t, in("locks,public")) // finds the tables that exist
	wantVersions(t, in("locks"))

	run(t, cfg, `CREATE SCHEMA "My Locks"`)
	work(t, in("%22My%20Locks%22"))
	wantVersions(t, in("%22My%20Locks%22"))

	run(t, cfg, "DROP TABLE public.lock_events")
	work(t, in("public"))
	wantVersions(t, in("public"))

	for path, words := range map[string][]string{
		// A new, empty lock database would be created in the schema later.
		"later,locks": {"schema locks", "schema later", "search_path"},
		"nowhere":     {"search_path"},
	} {
		s, err := store.Open(t.Context(), in(path))
		if err == nil {
			t.Fatalf("%s: opened, %v", path, s.Close())
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not in: %v", path, word, err)
			}
		}
	}
	if found := column(t, cfg, "SELECT tablename FROM pg_tables WHERE schemaname = 'later'"); len(found) > 0 {
		t.Errorf("created without need: %v", found)
	}
}

// A role that may only read and write the tables can use a schema that is up to date.
func TestRoleThatMayNotChangeTheSchema(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	work(t, cfg)
	var name string
	if err := connect(t, cfg).QueryRow("SELECT 'worker_' || current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	run(t, cfg, "CREATE ROLE "+name+" LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+name,
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+name)
	t.Cleanup(func() { run(t, cfg, "DROP OWNED BY "+name, "DROP ROLE "+name) })
	worker := cfg
	worker.Source = strings.Replace(cfg.Source, "postgres@", name+"@", 1)
	work(t, worker)
}
