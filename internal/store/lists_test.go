package store_test

import (
	"fmt"
	"strings"
	"testing"

	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// fill adds n held locks in groups of a hundred. The names of a group start with the name
// of the group. Every process holds one lock of each group.
func fill(tb testing.TB, cfg store.Config, n int) {
	tb.Helper()
	const inserted = `INSERT INTO resource_locks (resource_name, process_id, locked_at, is_active, fencing_token) `
	statement := inserted + fmt.Sprintf(`
		SELECT printf('group %%05d/%%02d', n / 100, n %% 100), printf('process %%02d', n %% 100),
			'2026-01-01 00:00:00.000000', true, 1
		FROM (WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < %d - 1) SELECT n FROM r)`, n)
	if cfg.Driver == store.Postgres {
		statement = inserted + fmt.Sprintf(`
		SELECT format('group %%s/%%s', lpad((n / 100)::text, 5, '0'), lpad((n %% 100)::text, 2, '0')),
			'process ' || lpad((n %% 100)::text, 2, '0'),
			'2026-01-01', true, 1
		FROM generate_series(0, %d - 1) AS n`, n)
	}
	run(tb, cfg, statement)
}

// A list by prefix finds its locks by an index. On Postgres, ANALYZE, which autovacuum
// runs soon after a table has grown, lets it find them in their order, too.
func TestListsByIndex(t *testing.T) {
	t.Parallel()
	const byName, byProcess = "by name", "by process"
	indexes := map[string]map[string]string{
		store.SQLite: {
			byName:    "sqlite_autoindex_resource_locks_1 (resource_name>? AND resource_name<?)",
			byProcess: "resource_locks_process (process_id=? AND resource_name>? AND resource_name<?)",
		},
		store.Postgres: {byName: "resource_locks_name", byProcess: "resource_locks_process"},
	}
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		fill(t, cfg, 20_000)
		for _, analyzed := range []bool{false, true} {
			unwanted := []string{"Seq Scan", "SCAN"}
			if analyzed {
				run(t, cfg, "ANALYZE")
				unwanted = append(unwanted, "Sort", "B-TREE")
			}
			for _, test := range []struct {
				name string
				list service.ListFilter
				want string
			}{
				{"prefix", service.ListFilter{Prefix: "group 00070/"}, byName},
				{"prefix of nothing", service.ListFilter{Prefix: "zzz/"}, byName},
				{"page", service.ListFilter{Prefix: "group 00070/", Limit: 51}, byName},
				{"next page", service.ListFilter{Prefix: "group 00070/", After: "group 00070/50", Limit: 51}, byName},
				{"page of nearly all", service.ListFilter{Prefix: "group ", Limit: 51}, byName},
				{"prefix and process", service.ListFilter{Prefix: "group 00070/", ProcessID: "process 07"}, byProcess},
			} {
				plan, err := s.PlanOfList(t.Context(), test.list)
				if err != nil {
					t.Fatal(err)
				}
				bad := !strings.Contains(plan, indexes[cfg.Driver][test.want])
				for _, node := range unwanted {
					bad = bad || strings.Contains(plan, node)
				}
				if bad {
					t.Errorf("%s, analyzed %v:\n%s", test.name, analyzed, plan)
				}
			}
		}
	})
}

// BenchmarkListByPrefix reads lists by prefix in a table of a million locks.
func BenchmarkListByPrefix(b *testing.B) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		cfg := config(b, driver)
		s := open(b, cfg)
		fill(b, cfg, 1_000_000)
		run(b, cfg, "ANALYZE")
		for name, f := range map[string]service.ListFilter{
			"none":               {Prefix: "zzz/"},
			"a hundred":          {Prefix: "group 00700/"},
			"page of all":        {Prefix: "group ", Limit: 101},
			"last page of all":   {Prefix: "group ", After: "group 09999/50", Limit: 101},
			"prefix and process": {Prefix: "group 00700/", ProcessID: "process 07"},
		} {
			b.Run(driver+"/"+name, func(b *testing.B) {
				for b.Loop() {
					held(b, s, f)
				}
			})
		}
	}
}
