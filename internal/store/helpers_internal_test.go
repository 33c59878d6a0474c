package store

import (
	"log/slog"
	"testing"

	"resource-lock-manager/internal/testdb"
)

// openInternal opens, but does not start, a store on a fresh database of the driver. It
// is for tests inside this package; others use open.
func openInternal(t *testing.T, driver string) *Store {
	t.Helper()
	cfg := Config{Driver: driver, MaxQueue: 1024, Logger: slog.New(slog.DiscardHandler)}
	if driver == SQLite {
		cfg.Source = testdb.SQLite(t)
	} else {
		cfg.Source = testdb.Postgres(t)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
