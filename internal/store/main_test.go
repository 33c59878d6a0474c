package store_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/testdb"
)

func TestMain(m *testing.M) {
	if path, asked := os.LookupEnv(openOnly); asked {
		os.Exit(openAndSay(path))
	}
	code := testdb.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// config returns the settings for a fresh database of the driver.
func config(tb testing.TB, driver string) store.Config {
	tb.Helper()
	cfg := store.Config{Driver: driver, MaxQueue: 1024, Logger: slog.New(slog.DiscardHandler), Notifications: true}
	switch driver {
	case store.SQLite:
		cfg.Source = testdb.SQLite(tb)
	case store.Postgres:
		cfg.Source = testdb.Postgres(tb)
	}
	return cfg
}

// open starts a store that is closed when the test ends.
func open(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// onBoth runs a test on a fresh database of each driver.
func onBoth(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, config(t, driver))
		})
	}
}

func execute(tb testing.TB, s *store.Store, c lock.Command) lock.Outcome {
	tb.Helper()
	out, err := s.Execute(context.Background(), c)
	if err != nil {
		tb.Fatalf("%+v: %v", c, err)
	}
	return out
}

// held returns every resource that the filter lets through.
func held(tb testing.TB, s *store.Store, f lock.ListFilter) []lock.Resource {
	tb.Helper()
	var found []lock.Resource
	total := -1
	err := s.Held(context.Background(), f, func(n int, _ time.Time) error {
		total = n
		return nil
	}, func(r lock.Resource) error {
		found = append(found, r)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if total != len(found) {
		tb.Errorf("%d resources announced, %d came", total, len(found))
	}
	return found
}
