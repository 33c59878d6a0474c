package store_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
)

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		run(t, cfg, "INSERT INTO lockd_schema_version (version) VALUES (9999)")
		if s, err := store.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "9999") {
			t.Errorf("opened a database of schema version 9999: %v, %v", s, err)
		}
	})
}

// Both databases have the same tables and columns, because one declaration of the columns
// serves both.
func TestSchemasAgree(t *testing.T) {
	t.Parallel()
	queries := map[string]string{
		store.SQLite: `SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c
			WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'service_clock' -- Postgres has a clock of its own
			AND c.name <> 'filed' -- only SQLite has it
			ORDER BY 1`,
		store.Postgres: `SELECT table_name || '.' || column_name FROM information_schema.columns
			WHERE table_schema = 'public' ORDER BY 1`,
	}
	columns := map[string][]string{}
	for driver, query := range queries {
		cfg := config(t, driver)
		open(t, cfg)
		rows, err := connect(t, cfg).QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			columns[driver] = append(columns[driver], name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(columns[store.SQLite], columns[store.Postgres]); diff != "" {
		t.Errorf("columns (-sqlite +postgres):\n%s", diff)
	}
	if len(columns[store.SQLite]) == 0 {
		t.Error("no columns at all")
	}
}
