package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// Of a queue with thousands of waiters the store loads only the first waiters and the
// places that the commands name.
func TestLongQueueIsNotLoaded(t *testing.T) {
	t.Parallel()
	const many = 3000
	onBoth(t, func(t *testing.T, cfg store.Config) {
		cfg.MaxQueue = 2 * many
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		asked := make([]lock.Acquire, many)
		var wg sync.WaitGroup
		for i := range asked {
			asked[i] = waiting("r", fmt.Sprint("w", i))
			wg.Go(func() {
				if _, err := s.Execute(context.Background(), asked[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		page, err := s.Queue(t.Context(), "r", 0, many)
		if err != nil || len(page.Waiters) != many {
			t.Fatalf("%d wait, %v", len(page.Waiters), err)
		}
		first := page.Waiters
		name := func(i int) string { return first[i].Request.ProcessID }
		place := func(i int) lock.Place {
			return lock.Place{Resource: "r", ProcessID: name(i), RequestID: "of " + name(i)}
		}

		if got := loaded(t, s, "r"); len(got) > 5 || !slices.Equal(got[:2], []string{name(0), name(1)}) {
			t.Errorf("loaded %q, want only some of the first", got)
		}
		unknown := lock.Place{Resource: "r", ProcessID: name(2000), RequestID: "unknown"}
		got := loaded(t, s, "r", place(2000), place(0), unknown)
		if len(got) > 6 || got[0] != name(0) || got[len(got)-1] != name(2000) || slices.Compact(got)[0] != got[0] {
			t.Errorf("loaded %q, want the first and %s", got, name(2000))
		}
		// A request deep in the queue can disconnect and return to its place.
		execute(t, s, lock.Disconnect{Of: acquireOf(first[2500]), Keep: time.Hour})
		if r, _ := find(t, s, "r"); r.Waiters != many-1 || r.Detached != 1 {
			t.Errorf("%d wait, %d are detached", r.Waiters, r.Detached)
		}
		again := waiting("r", name(2500))
		enqueue(t, s, again)
		page, err = s.Queue(t.Context(), "r", first[2499].Ticket, 1)
		if err != nil || page.Position != 2501 || page.Waiters[0].Ticket != first[2500].Ticket ||
			page.Waiters[0].Connection != again.Connection {
			t.Errorf("it returned to the position %d: %+v, %v", page.Position, page.Waiters, err)
		}
		execute(t, s, lock.Disconnect{Of: acquireOf(first[1000])})
		if granted := release(t, s, "r", "p"); len(granted) != 1 || granted[0].Hold.ProcessID != name(0) {
			t.Errorf("granted %+v", granted)
		}
		if r, _ := find(t, s, "r"); r.Waiters != many-2 || r.Detached != 0 {
			t.Errorf("%d wait, %d are detached", r.Waiters, r.Detached)
		}
	})
}

// A hold ends if its client has disconnected, also if the request had a place, lost it,
// retried, and was granted the resource at once.
func TestDisconnectEndsAHoldWithoutAPlace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		c := waiting("r", "p")
		if out := execute(t, s, c); out.Hold.Token == 0 || !out.Hold.QueuedAt.IsZero() {
			t.Fatalf("granted %+v", out.Hold)
		}
		if _, err := s.Execute(t.Context(), lock.Disconnect{Of: c, Ticket: 7, Keep: time.Hour}); err != nil {
			t.Error(err)
		}
		if r, now := find(t, s, "r"); len(r.Holds) > 0 {
			t.Errorf("still held at %v: %+v", now, r.Holds)
		}
	})
}

// After a restart of a SQLite server no waiter is connected. A request that is repeated
// finds its place.
func TestPlaceAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
	execute(t, s, acquire("r", "p"))
	for _, name := range []string{"a", "b", "c"} {
		enqueue(t, s, waiting("r", name))
		clock.pass(time.Second)
	}
	since := clock.wall.Load() - 2*time.Second.Microseconds()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.pass(time.Second)
	s = open(t, cfg)
	if got := processes(t, s, "r"); len(got) != 0 {
		t.Errorf("%q wait, but none of them can be connected", got)
	}
	if got, err := s.Waiting(t.Context(), false); err != nil || len(got) != 0 {
		t.Errorf("%+v wait on this server, %v", got, err)
	}
	enqueue(t, s, waiting("r", "new"))
	enqueue(t, s, waiting("r", "b"))
	if diff := cmp.Diff([]string{"b", "new"}, processes(t, s, "r")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	granted := release(t, s, "r", "p")
	if len(granted) != 1 || granted[0].Hold.ProcessID != "b" || granted[0].Hold.QueuedAt.UnixMicro() != since {
		t.Errorf("granted %+v, want b, which waits since %v", granted, time.UnixMicro(since).UTC())
	}
	for keep, want := range map[time.Duration]int{time.Hour: 0, 0: 2} {
		if left, err := s.AbandonedPlaces(t.Context(), keep, 10); err != nil || len(left) != want {
			t.Errorf("kept for %v: %+v, %v, want %d left", keep, left, err, want)
		}
	}
}
