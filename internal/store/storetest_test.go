package store_test

import (
	"testing"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/storetest"
)

// The store passes the conformance test that the store in memory passes, too.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{store.SQLite, store.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(tb testing.TB) storetest.Database {
				cfg := config(tb, driver)
				return storetest.Database{
					Shared: driver == store.Postgres,
					Open: func(tb testing.TB) storetest.Store {
						tb.Helper()
						s, err := store.Open(tb.Context(), cfg)
						if err != nil {
							tb.Fatal(err)
						}
						return s
					},
				}
			})
		})
	}
}
