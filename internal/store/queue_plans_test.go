package store_test

import (
	"fmt"
	"strings"
	"testing"

	"resource-lock-manager/internal/store"
)

// Queues are read by their indexes, and only as far as is needed.
func TestQueuesAreReadByTheirIndexes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		id := enqueue(t, s, waiting("r", "w")).Resource.ID
		places := fmt.Sprintf(`[{"resource_id":%d,"process_id":"w","request_id":"of w"}]`, id)
		arguments := []string{fmt.Sprintf("'[%d]'", id), "1", "'2026-01-01 00:00:00.000000'", "3", "'" + places + "'"}
		statement := store.LoadQueuesSQL(cfg.Driver)
		for i, argument := range arguments {
			statement = strings.ReplaceAll(statement, fmt.Sprint("$", i+1), argument)
		}
		if cfg.Driver == store.Postgres {
			run(t, cfg, fmt.Sprintf(`INSERT INTO lock_waiters SELECT %d, n, 1, n, 'p' || n, 'q' || n, now(), NULL, 0, 0
				FROM generate_series(1, 50000) AS n; ANALYZE`, id)) // MAX_WAITERS of a server
		}
		plan, err := s.Explain(t.Context(), statement)
		if err != nil {
			t.Fatal(err)
		}
		wants := map[string][]string{
			store.SQLite: {
				"SEARCH w USING PRIMARY KEY (resource_id=?)",
				"lock_waiters_request (resource_id=? AND request_id=? AND process_id=?)",
			},
			store.Postgres: {
				"Limit", "using lock_waiters_pkey",
				"Index Cond: ((resource_id = p.resource_id) AND (request_id = p.request_id)",
			},
		}
		for _, want := range wants[cfg.Driver] {
			if !strings.Contains(plan, want) {
				t.Errorf("no %q in the plan:\n%s", want, plan)
			}
		}
		for _, never := range []string{"Seq Scan on lock_waiters", "SCAN lock_waiters", "AUTOMATIC"} {
			if strings.Contains(plan, never) {
				t.Errorf("%q in the plan:\n%s", never, plan)
			}
		}
		// Only the rows that were found are sorted, never the queue: two sorts are for
		// the union, one is for the order.
		if n := strings.Count(plan, "TEMP B-TREE"); n > 3 {
			t.Errorf("%d sorts in the plan:\n%s", n, plan)
		}
	})
}
