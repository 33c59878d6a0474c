package store_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// clocks are the two clocks of a machine, set by hand.
type clocks struct {
	wall   atomic.Int64 // microseconds since 1970
	steady atomic.Int64
}

func newClocks(cfg *store.Config, wall time.Time) *clocks {
	c := &clocks{}
	c.wall.Store(wall.UnixMicro())
	cfg.Wall = func() time.Time { return time.UnixMicro(c.wall.Load()) }
	cfg.Steady = func() time.Duration { return time.Duration(c.steady.Load()) * time.Microsecond }
	return c
}

// pass lets time go by on both clocks.
func (c *clocks) pass(d time.Duration) {
	c.wall.Add(d.Microseconds())
	c.steady.Add(d.Microseconds())
}

func TestSteppedWallClockNeitherEndsNorExtends(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.SQLite)
			clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			s := open(t, cfg)
			execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Minute})

			clock.wall.Add(step.Microseconds())
			clock.pass(59 * time.Second)
			if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"}); !errors.As(err, new(*lock.HeldError)) {
				t.Errorf("a second before it ends: %v", err)
			}
			clock.pass(time.Second)
			execute(t, s, lock.Acquire{Resource: "r", ProcessID: "q"})
		})
	}
}

// After a restart with the wall clock an hour back, time goes on from the newest moment in the database.
func TestRestartAfterClockWentBack(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	execute(t, s, lock.Acquire{Resource: "short", ProcessID: "p", TTL: time.Minute})
	clock.pass(30 * time.Second)
	token := execute(t, s, lock.Acquire{Resource: "last", ProcessID: "p"}).Hold.Token
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	clock.wall.Add(-time.Hour.Microseconds())
	s = open(t, cfg)
	if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "short", ProcessID: "q"}); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("30 s before it ends: %v", err)
	}
	if next := execute(t, s, lock.Acquire{Resource: "other", ProcessID: "p"}).Hold.Token; next < token {
		t.Errorf("token %d after %d", next, token)
	}
	clock.pass(30 * time.Second)
	execute(t, s, lock.Acquire{Resource: "short", ProcessID: "q"})
}

// A wall clock that goes back over a restart must not extend a hold that was renewed long after it began.
func TestRestartKeepsRenewalMoments(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p", TTL: 24 * time.Hour})
	clock.pass(5 * time.Hour)
	execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.wall.Add(-time.Hour.Microseconds())
	s = open(t, cfg)
	clock.pass(59 * time.Second)
	if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"}); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("a second before it ends: %v", err)
	}
	clock.pass(time.Second)
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "q"})
}

// The servers' own clocks do not matter on Postgres: inside the bubble this process's clock says the year 2000, and for a
// second server an hour more.
func TestPostgresIgnoresServerClocks(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	before := time.Now().Add(-time.Minute)
	right := open(t, cfg)
	held := execute(t, right, lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Hour})
	synctest.Test(t, func(t *testing.T) {
		for _, wrong := range []time.Duration{0, time.Hour} {
			<-time.After(wrong) // only the bubble's clock moves
			s, err := store.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"}); !errors.As(err, new(*lock.HeldError)) {
				t.Errorf("acquire of a resource that is held for an hour: %v", err)
			}
			name := wrong.String()
			other := execute(t, s, lock.Acquire{Resource: name, ProcessID: "q", TTL: time.Minute})
			if d := other.Hold.LockedAt.Sub(held.Now); d < 0 || d > time.Minute {
				t.Errorf("the servers' moments are %v apart", d)
			}
			if other.Hold.Token < before.UnixMicro() {
				t.Errorf("token %d is older than the test", other.Hold.Token)
			}
			if r, now, err := s.Find(t.Context(), name); err != nil || !r.Holds[0].Owned(now) {
				t.Errorf("a hold of a minute is gone at once: %+v at %v, %v", r, now, err)
			}
			renewed := execute(t, s, lock.Renew{Resource: name, ProcessID: "q", TTL: time.Minute})
			if d := renewed.Hold.ExpiresAt.Sub(other.Hold.ExpiresAt); d < 0 || d > time.Minute {
				t.Errorf("renewed by %v", d)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Deleting a row must not let its tokens come back, even where the database's clock was set back in between.
func TestTokenFloorOutlivesRows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		future := time.Now().Add(1000 * time.Hour).UnixMicro()
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})
		db := connect(t, cfg)
		if cfg.Driver == store.Postgres {
			if _, err := db.ExecContext(t.Context(), "UPDATE resource_locks SET fencing_token = $1", future); err != nil {
				t.Fatal(err)
			}
		} else if _, err := db.ExecContext(t.Context(), "UPDATE resource_locks SET fencing_token = ?", future); err != nil {
			t.Fatal(err)
		}
		if out := execute(t, s, lock.Forget{Names: []string{"r"}, Before: time.Now().Add(time.Hour)}); len(out.Changed) != 1 {
			t.Fatalf("not forgotten: %+v", out)
		}
		if r, _, err := s.Find(t.Context(), "r"); err != nil || r.ID != 0 {
			t.Fatalf("still there: %+v, %v", r, err)
		}
		if token := execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"}).Hold.Token; token != future+1 {
			t.Errorf("token %d after the deleted row's %d", token, future)
		}
	})
}

// A renewal crosses with a look, and the old end passes meanwhile: the hold was live all the time.
func TestLookThatCrossesWithARenewal(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	steady, crossing := cfg.Steady, func() {}
	cfg.Steady = func() time.Duration {
		cross := crossing
		crossing = func() {}
		cross()
		return steady()
	}
	s := open(t, cfg)
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Second})
	crossing = func() {
		execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
		clock.pass(2 * time.Second)
	}
	r, now, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if _, held := r.Holder(now); !held {
		t.Errorf("at %v: %+v", now, r)
	}
}
