package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// wantCounts fails the test unless the counts in the rows of resources are those of the
// table of waiters.
func wantCounts(t *testing.T, cfg store.Config) (waiters int) {
	t.Helper()
	db := connect(t, cfg)
	rows, err := db.QueryContext(t.Context(), `SELECT r.resource_name, r.waiters, r.away,
			(SELECT count(*) FROM lock_waiters w WHERE w.resource_id = r.id AND w.away_until IS NULL),
			(SELECT count(*) FROM lock_waiters w WHERE w.resource_id = r.id AND w.away_until IS NOT NULL)
		FROM resource_locks r`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var counted, detached, wantCounted, wantDetached int
		if err := rows.Scan(&name, &counted, &detached, &wantCounted, &wantDetached); err != nil {
			t.Fatal(err)
		}
		if counted != wantCounted || detached != wantDetached {
			t.Errorf("%s counts %d waiters and %d detached, the table has %d and %d", name, counted, detached,
				wantCounted, wantDetached)
		}
		waiters += wantCounted + wantDetached
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	const orphaned = "SELECT count(*) FROM lock_waiters WHERE resource_id NOT IN (SELECT id FROM resource_locks)"
	if orphans := number(t, db, orphaned); orphans != 0 {
		t.Errorf("%d places in queues of no resource", orphans)
	}
	return waiters
}

// A waiter that is queued and granted in one transaction leaves no row behind, and the
// counts are right.
func TestQueuedAndGrantedInOneTransaction(t *testing.T) {
	t.Parallel()
	const crowd = 20
	onBoth(t, func(t *testing.T, cfg store.Config) {
		var commits atomic.Int64
		s := openObserved(t, cfg, func(service.Commit) { commits.Add(1) })
		for i := range crowd {
			execute(t, s, acquire(fmt.Sprint("r", i), "p"))
		}
		closed := gate{make(chan struct{}), make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Execute(context.Background(), closed) })
		<-closed.entered
		before := commits.Load()
		for i := range crowd {
			name := fmt.Sprint("r", i)
			for _, c := range []lock.Command{
				waiting(name, "a"), waiting(name, "b"), lock.Release{Resource: name, ProcessID: "p"},
			} {
				wg.Go(func() {
					if _, err := s.Execute(context.Background(), c); err != nil {
						t.Error(err)
					}
				})
			}
		}
		close(closed.open)
		wg.Wait()
		if n := commits.Load() - before; n > crowd {
			t.Errorf("%d transactions for %d resources: nothing was shared", n, crowd)
		}
		wantCounts(t, cfg)
		for i := range crowd {
			r, now := find(t, s, fmt.Sprint("r", i))
			if holder, held := r.Holder(now); !held || holder.ProcessID == "p" || r.Waiters != 1 {
				t.Errorf("%+v: want one waiter to hold it and the other to wait", r)
			}
		}
	})
}

// The counts of waiters are right, whatever happens at the same time.
func TestCountsAreTrue(t *testing.T) {
	t.Parallel()
	const clients, rounds, resources = 16, 60, 3
	onBoth(t, func(t *testing.T, cfg store.Config) {
		stores := []*store.Store{open(t, cfg)}
		if cfg.Driver == store.Postgres {
			stores = append(stores, open(t, cfg))
		}
		var wg sync.WaitGroup
		for client := range clients {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			wg.Go(func() {
				s := stores[client%len(stores)]
				for range rounds {
					c := waiting(fmt.Sprint("r", random.IntN(resources)), fmt.Sprint("p", random.IntN(clients)))
					c.TTL = time.Duration(random.IntN(3)) * time.Millisecond
					commands := []lock.Command{
						c, c, c,
						acquire(c.Resource, c.ProcessID),
						lock.Release{Resource: c.Resource, ProcessID: c.ProcessID},
						lock.ForceRelease{Resource: c.Resource, Reason: "x", By: "y"},
						lock.ExpireAndGrant{Names: []string{"r0", "r1", "r2"}},
						lock.RemoveAbandoned{Places: c.Needs().Places},
						lock.DeleteIdle{Names: []string{c.Resource}, Before: time.Now().Add(time.Hour)},
					}
					out, err := s.Execute(context.Background(), commands[random.IntN(len(commands))])
					if waits := out.Ticket != 0 && out.Hold.Token == 0; waits && random.IntN(2) == 0 {
						keep := time.Duration(random.IntN(3)) * time.Millisecond
						ends := []lock.Command{
							lock.TimeOut{Of: c, Keep: keep},
							lock.Disconnect{Of: c, Ticket: out.Ticket, Keep: keep},
						}
						_, err = s.Execute(context.Background(), ends[random.IntN(2)])
					}
					var held *lock.HeldError
					var notHeld *lock.NotHeldError
					var notLocked *lock.NotLockedError
					if err != nil && !errors.As(err, &held) && !errors.As(err, &notHeld) && !errors.As(err, &notLocked) &&
						!errors.Is(err, lock.ErrNotWaiting) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if wantCounts(t, cfg) == 0 {
			t.Error("no request waits in the end, so nothing was counted")
		}
	})
}
