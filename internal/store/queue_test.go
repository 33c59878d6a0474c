package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// Waiters are granted the resource one by one, in the order in which the queue is shown,
// whatever batches they came in.
func TestQueueIsServedInItsOrder(t *testing.T) {
	t.Parallel()
	const many = 120
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				if _, err := s.Execute(context.Background(), waiting("r", fmt.Sprint("w", i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := processes(t, s, "r")
		if len(want) != many {
			t.Fatalf("%d wait, want %d", len(want), many)
		}
		var got []string
		for holder, token := "p", int64(0); len(got) < many; {
			granted := release(t, s, "r", holder)
			if len(granted) != 1 || granted[0].Hold.Token <= token || granted[0].ID == 0 {
				t.Fatalf("after %d the release granted %+v", len(got), granted)
			}
			holder, token = granted[0].Hold.ProcessID, granted[0].Hold.Token
			got = append(got, holder)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-queue +granted):\n%s", diff)
		}
		if n := number(t, connect(t, cfg), "SELECT count(*) FROM lock_waiters"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// A request is granted as it was made, however long it waits.
func TestWaiterSurvives(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		plain, full := waiting("r", "plain"), waiting("r", `p"'; --`)
		full.RequestID, full.TTL, full.MinHold = `日本 "'`, 90*time.Second+time.Microsecond, time.Microsecond
		full.Reason, full.Metadata = "why 🔒\u2028", `{"z":1.10,"a":{"b":[null,9007199254740993]}}`
		wants := map[string]lock.Acquire{plain.ProcessID: plain, full.ProcessID: full}
		since := map[string]time.Time{}
		for _, c := range []lock.Acquire{plain, full} {
			since[c.ProcessID] = enqueue(t, s, c).Now
		}

		page, err := s.Queue(t.Context(), "r", 0, 10)
		if err != nil || len(page.Waiters) != 2 || page.Position != 1 || page.At.Before(since[full.ProcessID]) {
			t.Fatalf("queue %+v, %v", page, err)
		}
		stored := cmp.Options{ // the rest matters only to the server of the request
			cmpopts.IgnoreFields(lock.Request{}, "Wait"),
			cmpopts.IgnoreFields(lock.Acquire{}, "MayQueue", "QueueLimit"),
		}
		for i, c := range []lock.Acquire{plain, full} {
			want := &lock.Waiter{
				Ticket: page.Waiters[i].Ticket, Request: c.Request, Connection: c.Connection,
				Since: since[c.ProcessID], Local: true,
			}
			if diff := cmp.Diff(want, page.Waiters[i], stored, cmpopts.IgnoreFields(lock.Waiter{}, "AliveUntil")); diff != "" {
				t.Errorf("waiter (-want +got):\n%s", diff)
			}
		}
		for holder := "p"; len(wants) > 0; {
			granted := release(t, s, "r", holder)
			if len(granted) != 1 {
				t.Fatalf("granted %+v", granted)
			}
			g := granted[0]
			c, awaited := wants[g.Hold.ProcessID]
			if !awaited {
				t.Fatalf("granted %+v", g)
			}
			if diff := cmp.Diff(c, g.To, stored); diff != "" {
				t.Errorf("granted to (-asked +granted):\n%s", diff)
			}
			want := lock.Hold{
				ProcessID: c.ProcessID, Token: g.Hold.Token, LockedAt: g.Now, QueuedAt: since[c.ProcessID],
				Connection: c.Connection,
				RequestID:  c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
			}
			if c.TTL > 0 {
				want.ExpiresAt, want.MinHoldUntil = g.Now.Add(c.TTL), g.Now.Add(c.MinHold)
			}
			if diff := cmp.Diff(want, g.Hold); diff != "" {
				t.Errorf("hold (-want +got):\n%s", diff)
			}
			r, _ := find(t, s, "r")
			if diff := cmp.Diff([]lock.Hold{g.Hold}, r.Holds); diff != "" {
				t.Errorf("stored hold (-granted +stored):\n%s", diff)
			}
			delete(wants, c.ProcessID)
			holder = c.ProcessID
		}
	})
}

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

// A server finds its own waiting requests, and those among them that wait for a free
// resource.
func TestWaitingOnThisServer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		asked := map[string]lock.Acquire{}
		for _, name := range []string{"held", "long", "expired", "left", "granted"} {
			ttl := map[string]time.Duration{"expired": 50 * time.Millisecond, "long": time.Hour}[name]
			execute(t, s, acquireFor(name, "p", ttl))
			asked[name] = waiting(name, "w")
			if out := execute(t, s, asked[name]); out.Hold.Token != 0 && name != "expired" {
				t.Fatalf("granted %+v", out)
			}
		}
		execute(t, s, lock.Disconnect{Of: asked["left"], Keep: time.Hour})
		release(t, s, "granted", "p")
		var got []service.Waiting
		eventually(t, "the hold has expired", func() bool {
			var err error
			if got, err = s.Waiting(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b service.Waiting) int { return strings.Compare(a.Place.Resource, b.Place.Resource) })
			return len(got) != 3 || got[0].Free
		})
		var want []service.Waiting
		for _, name := range []string{"expired", "held", "long"} {
			c := asked[name]
			want = append(want, service.Waiting{Place: c.Needs().Places[0], Connection: c.Connection, Free: name == "expired"})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("waiting (-want +got):\n%s", diff)
		}
		free, err := s.Waiting(t.Context(), true)
		if diff := cmp.Diff(got[:1], free); diff != "" || err != nil {
			t.Errorf("waiting for free resources (-want +got), %v:\n%s", err, diff)
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
