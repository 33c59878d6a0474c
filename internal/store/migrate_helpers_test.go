package store_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/migrations"
)

// gooseOn returns goose as a Go program uses it: with its default version table.
func gooseOn(t *testing.T, cfg store.Config, files fs.FS) *goose.Provider {
	t.Helper()
	dialect := map[string]goose.Dialect{
		store.SQLite:   goose.DialectSQLite3,
		store.Postgres: goose.DialectPostgres,
	}[cfg.Driver]
	provider, err := goose.NewProvider(dialect, connect(t, cfg), files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// runApplication applies the migrations 1 to n of another program. Each of them creates a
// table.
func runApplication(t *testing.T, cfg store.Config, n int64) {
	t.Helper()
	files := fstest.MapFS{}
	for v := int64(1); v <= n; v++ {
		text := fmt.Sprintf("-- +goose Up\nCREATE TABLE app_%d (n integer);\n", v)
		files[fmt.Sprintf("%05d_app.sql", v)] = &fstest.MapFile{Data: []byte(text)}
	}
	if _, err := gooseOn(t, cfg, files).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// makeEarlier creates a database of an earlier version in the way of that version.
func makeEarlier(t *testing.T, cfg store.Config, version int64) {
	t.Helper()
	files, err := fs.Sub(migrations.FS, cfg.Driver)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gooseOn(t, cfg, files).UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	run(t, cfg, "INSERT INTO resource_locks (resource_name, process_id, locked_at, is_active, fencing_token) "+
		"VALUES ('old', 'p', '2024-01-15 10:30:00.000000', true, 7)")
}

func tables(t *testing.T, cfg store.Config) []string {
	t.Helper()
	return column(t, cfg, map[string]string{
		store.SQLite:   "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
		store.Postgres: "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename",
	}[cfg.Driver])
}

// undoMigrations takes a database back to an earlier version: it drops the tables and the
// columns that the later migrations have added.
func undoMigrations(t *testing.T, cfg store.Config, version int) {
	t.Helper()
	earlier := config(t, cfg.Driver)
	files, err := fs.Glob(migrations.FS, cfg.Driver+"/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files[:version] {
		text, err := migrations.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		run(t, earlier, string(text))
	}
	kept := map[string]bool{"lockd_schema_version": true}
	for _, name := range column(t, earlier, store.TableColumnsSQL(cfg.Driver)) {
		table, _, _ := strings.Cut(name, ".")
		kept[table], kept[name] = true, true
	}
	for _, name := range column(t, cfg, store.TableColumnsSQL(cfg.Driver)) {
		switch table, column, _ := strings.Cut(name, "."); {
		case !kept[table]:
			run(t, cfg, "DROP TABLE IF EXISTS "+table)
		case !kept[name] && table != "lockd_schema_version":
			run(t, cfg, "ALTER TABLE "+table+" DROP COLUMN "+column)
		}
	}
	run(t, cfg, fmt.Sprint("DELETE FROM lockd_schema_version WHERE version > ", version))
}

// wantVersions fails the test unless each migration of this program is recorded once.
func wantVersions(t *testing.T, cfg store.Config) {
	t.Helper()
	files, err := fs.Glob(migrations.FS, cfg.Driver+"/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, file := range files {
		var v int
		if _, err := fmt.Sscanf(strings.TrimPrefix(file, cfg.Driver+"/"), "%d_", &v); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprint(v))
	}
	if diff := cmp.Diff(want, column(t, cfg, "SELECT version FROM lockd_schema_version ORDER BY version")); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
}

// wantApplication fails the test unless the other program's first n migrations were
// applied.
func wantApplication(t *testing.T, cfg store.Config, n int) {
	t.Helper()
	found := tables(t, cfg)
	for v := 1; v <= n; v++ {
		if !slices.Contains(found, fmt.Sprint("app_", v)) {
			t.Errorf("migration %d of the other program was not applied: %v", v, found)
		}
	}
}

// work opens a store, uses it and closes it.
func work(t *testing.T, cfg store.Config) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
	execute(t, s, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", RequestID: "one"}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
