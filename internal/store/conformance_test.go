package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

func TestAcquireIsStored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		before := time.Now().Add(-time.Minute)
		out := execute(t, s, acquireFor("r", "p", 90*time.Second))

		got, now := find(t, s, "r")
		if diff := cmp.Diff(out.Resource, got); diff != "" {
			t.Errorf("stored state differs from the outcome (-outcome +stored):\n%s", diff)
		}
		if out.Resource.ID == 0 {
			t.Error("the outcome has no row id")
		}
		if got := out.Hold.ExpiresAt.Sub(out.Hold.LockedAt); got != 90*time.Second {
			t.Errorf("expires %v after it was locked", got)
		}
		if now.Before(out.Now) || out.Now.Before(before) || out.Now.After(time.Now().Add(time.Minute)) {
			t.Errorf("odd times: acquired at %v, read at %v", out.Now, now)
		}
	})
}

// Names, process ids and times that a careless encoding would change are stored
// unchanged.
func TestTextSurvives(t *testing.T) {
	t.Parallel()
	names := []string{
		"plain", `'; DROP TABLE resource_locks; --`, `quote " backslash \ percent % underscore _ question ? at @name`,
		"日本語 🔒 é é", "<script>&amp;", "  spaces  ", "{json: [true, null]}", "\u2028\u2029\ufeff", "CASE", "case",
	}
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		for _, name := range names {
			execute(t, s, acquire(name, name+"!"))
		}
		var got []string
		for _, r := range held(t, s, service.ListFilter{}) {
			if r.Holds[0].ProcessID != r.Name+"!" {
				t.Errorf("%q is held by %q", r.Name, r.Holds[0].ProcessID)
			}
			got = append(got, r.Name)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("held names (-want +got):\n%s", diff)
		}
	})
}

func TestRefusalsChangeNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		held := execute(t, s, acquire("r", "p"))

		var heldError *lock.HeldError
		if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, &heldError) {
			t.Fatalf("acquire of a held resource: %v", err)
		}
		if diff := cmp.Diff(&held.Hold, heldError.Holder); diff != "" {
			t.Errorf("holder in the refusal (-want +got):\n%s", diff)
		}
		var notHeld *lock.NotHeldError
		for _, c := range []lock.Release{{Resource: "r", ProcessID: "q"}, {Resource: "never seen", ProcessID: "q"}} {
			if _, err := s.Execute(t.Context(), c); !errors.As(err, &notHeld) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		got, _ := find(t, s, "r")
		if diff := cmp.Diff(held.Resource, got); diff != "" {
			t.Errorf("state after refusals (-want +got):\n%s", diff)
		}
		if unseen, _ := find(t, s, "never seen"); unseen.ID != 0 {
			t.Errorf("a refused release left a row: %+v", unseen)
		}
	})
}

func TestReleaseKeepsRowAndToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		first := execute(t, s, acquire("r", "p"))
		released := execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})

		got, _ := find(t, s, "r")
		want := lock.Resource{
			ID: first.Resource.ID, Name: "r", Token: first.Hold.Token, Last: first.Hold, EndedAt: released.Now,
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("released resource (-want +got):\n%s", diff)
		}
		second := execute(t, s, acquire("r", "p"))
		if second.Resource.ID != first.Resource.ID || second.Hold.Token <= first.Hold.Token {
			t.Errorf("second hold: row %d after %d, token %d after %d",
				second.Resource.ID, first.Resource.ID, second.Hold.Token, first.Hold.Token)
		}
	})
}

// Many clients use few resources. No two processes ever hold the same resource, and
// tokens grow in the order of the holds.
func TestExclusionUnderLoad(t *testing.T) {
	t.Parallel()
	const clients, rounds, resources = 24, 40, 3
	onBoth(t, func(t *testing.T, cfg store.Config) {
		stores := []*store.Store{open(t, cfg)}
		if cfg.Driver == store.Postgres {
			stores = append(stores, open(t, cfg), open(t, cfg))
		}
		var mu sync.Mutex
		holder := map[string]string{}
		last := map[string]int64{}
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				s := stores[client%len(stores)]
				process := fmt.Sprint("client ", client)
				for round := range rounds {
					name := fmt.Sprint("resource ", (client+round)%resources)
					out, err := s.Execute(context.Background(), acquire(name, process))
					var held *lock.HeldError
					if errors.As(err, &held) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if other := holder[name]; other != "" {
						t.Errorf("%s got %s while %s holds it", process, name, other)
					}
					if out.Hold.Token <= last[name] {
						t.Errorf("%s: token %d after %d", name, out.Hold.Token, last[name])
					}
					holder[name], last[name] = process, out.Hold.Token
					mu.Unlock()
					runtime.Gosched() // let others try while it is held
					mu.Lock()
					holder[name] = "" // before the release is sent: no other process may be granted the resource earlier
					mu.Unlock()
					if _, err := s.Execute(context.Background(), lock.Release{Resource: name, ProcessID: process}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// All servers try to insert the same new names at the same time. For each name exactly
// one acquire is granted.
func TestFirstInsertIsDecidedOnce(t *testing.T) {
	t.Parallel()
	const servers, names = 3, 50
	onBoth(t, func(t *testing.T, cfg store.Config) {
		stores := make([]*store.Store, servers)
		for i := range stores {
			if i > 0 && cfg.Driver == store.SQLite {
				stores[i] = stores[0]
			} else {
				stores[i] = open(t, cfg)
			}
		}
		var mu sync.Mutex
		wins := map[string]int{}
		var wg sync.WaitGroup
		for i, s := range stores {
			for n := range names {
				wg.Go(func() {
					name := fmt.Sprint("new ", n)
					_, err := s.Execute(context.Background(), acquire(name, fmt.Sprint(i)))
					var held *lock.HeldError
					switch {
					case err == nil:
						mu.Lock()
						wins[name]++
						mu.Unlock()
					case !errors.As(err, &held):
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for n := range names {
			if got := wins[fmt.Sprint("new ", n)]; got != 1 {
				t.Errorf("new %d was granted %d times", n, got)
			}
		}
	})
}

func TestSweep(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		locks := service.New(s, service.Config{Limits: lock.Limits{MaxTTL: lock.LongestTTL}}, slog.New(slog.DiscardHandler))
		for i := range 5 {
			execute(t, s, acquireFor(fmt.Sprint("short ", i), "p", time.Microsecond))
		}
		kept := execute(t, s, acquireFor("long", "p", time.Hour))
		token := execute(t, s, acquire("released", "p")).Hold.Token
		execute(t, s, lock.Release{Resource: "released", ProcessID: "p"})

		for _, want := range []int{2, 2, 1, 0} {
			if got, err := locks.SweepExpired(t.Context(), 2); err != nil || got != want {
				t.Fatalf("swept %d, %v, want %d", got, err, want)
			}
		}
		if got := held(t, s, service.ListFilter{}); len(got) != 1 || got[0].Token != kept.Hold.Token {
			t.Errorf("held after the sweep: %+v", got)
		}

		if deleted, next, err := locks.SweepIdle(t.Context(), 0, 100, time.Hour); err != nil || deleted != 0 || next != 0 {
			t.Errorf("deleted %d that ended just now, next %d, %v", deleted, next, err)
		}
		total, after := 0, int64(0)
		for range 4 { // 7 rows in windows of 2
			deleted, next, err := locks.SweepIdle(t.Context(), after, 2, 0)
			if err != nil {
				t.Fatal(err)
			}
			total, after = total+deleted, next
		}
		if total != 6 || after != 0 {
			t.Errorf("deleted %d, next %d, want 6 and 0", total, after)
		}
		if r, _ := find(t, s, "released"); r.ID != 0 {
			t.Errorf("still there: %+v", r)
		}
		// A new resource starts above every deleted token, whatever the clock is.
		again := execute(t, s, acquire("brand new", "p"))
		if again.Hold.Token <= token {
			t.Errorf("token %d after the deleted %d", again.Hold.Token, token)
		}
	})
}
