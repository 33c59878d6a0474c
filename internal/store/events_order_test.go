package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// openWithService starts a store and a service on it, which observes the store's commits.
func openWithService(t *testing.T, cfg store.Config) (*store.Store, *service.Service) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	locks := service.New(s, service.Config{
		Limits:     lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: time.Minute},
		MaxWaiters: 100, MaxQueue: 100, KeepPlace: time.Millisecond, Recheck: 10 * time.Millisecond,
	}, slog.New(slog.DiscardHandler))
	s.Start(locks.Committed)
	return s, locks
}

// The times of the events of a resource never decrease, whatever happens on several
// servers, in queues, and at the expiry of holds.
func TestEventsOfAResourceAreInTheOrderOfTime(t *testing.T) {
	t.Parallel()
	const clients, rounds, resources = 12, 60, 3
	onBoth(t, func(t *testing.T, cfg store.Config) {
		servers := map[string]int{store.SQLite: 1, store.Postgres: 3}[cfg.Driver]
		stores, services := make([]*store.Store, servers), make([]*service.Service, servers)
		for i := range stores {
			stores[i], services[i] = openWithService(t, cfg)
			services[i].Start()
		}
		// Random commands do not always include an abandoned wait and a release in time.
		held := lock.Request{Resource: "r0", ProcessID: "first", TTL: time.Minute}
		if _, err := services[0].Acquire(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		waits := lock.Request{Resource: "r0", ProcessID: "second", TTL: time.Minute, Wait: time.Millisecond}
		if _, err := services[0].Acquire(t.Context(), waits); err == nil {
			t.Fatal("two processes have the resource")
		}
		if _, err := services[0].Release(t.Context(), lock.Release{Resource: "r0", ProcessID: "first"}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(client)))
				s := services[client%len(services)]
				process := fmt.Sprint("p", client)
				for range rounds {
					resource := fmt.Sprint("r", random.IntN(resources))
					var err error
					switch random.IntN(8) {
					case 0:
						_, err = s.ForceRelease(context.Background(), lock.ForceRelease{Resource: resource, Reason: "why not"})
					case 1:
						_, err = s.SweepExpired(context.Background(), 10)
					case 2:
						_, err = s.SweepAbandoned(context.Background(), 10)
					case 3:
						_, err = s.Renew(context.Background(), lock.Renew{Resource: resource, ProcessID: process, TTL: time.Millisecond})
					case 4:
						_, err = s.Release(context.Background(), lock.Release{Resource: resource, ProcessID: process})
					default:
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(20))*time.Millisecond)
						_, err = s.Acquire(ctx, lock.Request{
							Resource: resource, ProcessID: process, TTL: time.Duration(1+random.IntN(3000)) * time.Microsecond,
							Wait: time.Duration(random.IntN(2)*random.IntN(20)) * time.Millisecond,
						})
						cancel()
					}
					if errors.Is(err, service.ErrUnavailable) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, s := range services {
			s.StopWaiting()
			s.Stop()
		}
		kinds := map[lock.EventKind]int{}
		for r := range resources {
			events, err := stores[0].History(t.Context(), service.HistoryFilter{Resource: fmt.Sprint("r", r), Limit: 100_000})
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range events {
				kinds[e.Kind]++
				if i > 0 && e.At.After(events[i-1].At) {
					t.Errorf("%+v is before %+v in the history", e, events[i-1])
				}
			}
		}
		for _, kind := range lock.EventKinds() {
			if kinds[kind] == 0 {
				t.Errorf("nothing was %s: %v", kind, kinds)
			}
		}
	})
}
