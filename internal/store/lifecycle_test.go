package store_test

import (
	"sync"
	"testing"

	"resource-lock-manager/internal/store"
)

// A store can be closed any number of times, whether or not it was started.
func TestCloseAnyNumberOfTimes(t *testing.T) {
	t.Parallel()
	inMemory := func(t *testing.T) store.Config {
		cfg := config(t, store.SQLite)
		cfg.Source = ""
		return cfg
	}
	for name, fresh := range map[string]func(t *testing.T) store.Config{
		"sqlite":    func(t *testing.T) store.Config { return config(t, store.SQLite) },
		"in memory": inMemory,
		"postgres":  func(t *testing.T) store.Config { return config(t, store.Postgres) },
	} {
		for _, started := range []bool{false, true} {
			t.Run(map[bool]string{false: "opened ", true: "started "}[started]+name, func(t *testing.T) {
				t.Parallel()
				s, err := store.Open(t.Context(), fresh(t))
				if err != nil {
					t.Fatal(err)
				}
				if started {
					s.Start(nil)
					execute(t, s, acquire("r", "p"))
				}
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						if err := s.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
