package store_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
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

// pass advances both clocks.
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
			execute(t, s, acquireFor("r", "p", time.Minute))

			clock.wall.Add(step.Microseconds())
			clock.pass(59 * time.Second)
			if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, new(*lock.HeldError)) {
				t.Errorf("a second before it ends: %v", err)
			}
			clock.pass(time.Second)
			execute(t, s, acquire("r", "q"))
		})
	}
}

// After a restart with the wall clock an hour back, time continues from the newest
// timestamp in the database.
func TestRestartAfterClockWentBack(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
	execute(t, s, acquireFor("short", "p", time.Minute))
	clock.pass(30 * time.Second)
	token := execute(t, s, acquire("last", "p")).Hold.Token
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	clock.wall.Add(-time.Hour.Microseconds())
	s = open(t, cfg)
	if _, err := s.Execute(t.Context(), acquire("short", "q")); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("30 s before it ends: %v", err)
	}
	if next := execute(t, s, acquire("other", "p")).Hold.Token; next < token {
		t.Errorf("token %d after %d", next, token)
	}
	clock.pass(30 * time.Second)
	execute(t, s, acquire("short", "q"))
}

// A wall clock that goes back over a restart must not extend a hold that was renewed long
// after it began.
func TestRestartKeepsRenewalTimes(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
	execute(t, s, acquireFor("r", "p", 24*time.Hour))
	clock.pass(5 * time.Hour)
	execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.wall.Add(-time.Hour.Microseconds())
	s = open(t, cfg)
	clock.pass(59 * time.Second)
	if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("a second before it ends: %v", err)
	}
	clock.pass(time.Second)
	execute(t, s, acquire("r", "q"))
}

// The servers' own clocks do not matter on Postgres. Inside the bubble this process's
// clock is in the year 2000; for the second server it is an hour later.
func TestPostgresIgnoresServerClocks(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	before := time.Now().Add(-time.Minute)
	right := open(t, cfg)
	held := execute(t, right, acquireFor("r", "p", time.Hour))
	synctest.Test(t, func(t *testing.T) {
		for _, wrong := range []time.Duration{0, time.Hour} {
			<-time.After(wrong) // only the bubble's clock moves
			s, err := store.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.Start(nil)
			if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, new(*lock.HeldError)) {
				t.Errorf("acquire of a resource that is held for an hour: %v", err)
			}
			name := wrong.String()
			other := execute(t, s, acquireFor(name, "q", time.Minute))
			if d := other.Hold.LockedAt.Sub(held.Now); d < 0 || d > time.Minute {
				t.Errorf("the servers' times are %v apart", d)
			}
			if other.Hold.Token < before.UnixMicro() {
				t.Errorf("token %d is older than the test", other.Hold.Token)
			}
			if r, now := find(t, s, name); !r.Holds[0].Owned(now) {
				t.Errorf("a hold of a minute has ended at once: %+v at %v", r, now)
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

// The tokens of a deleted row are not given again, even if the clock of the database was
// set back meanwhile.
func TestTokenFloorOutlivesRows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		future := time.Now().Add(1000 * time.Hour).UnixMicro()
		execute(t, s, acquire("r", "p"))
		execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})
		db := connect(t, cfg)
		if cfg.Driver == store.Postgres {
			if _, err := db.ExecContext(t.Context(), "UPDATE resource_locks SET fencing_token = $1", future); err != nil {
				t.Fatal(err)
			}
		} else if _, err := db.ExecContext(t.Context(), "UPDATE resource_locks SET fencing_token = ?", future); err != nil {
			t.Fatal(err)
		}
		idle := lock.DeleteIdle{Names: []string{"r"}, Before: time.Now().Add(time.Hour)}
		if out := execute(t, s, idle); len(out.Changed) != 1 {
			t.Fatalf("not deleted: %+v", out)
		}
		if r, _ := find(t, s, "r"); r.ID != 0 {
			t.Fatalf("still there: %+v", r)
		}
		if token := execute(t, s, acquire("r", "p")).Hold.Token; token != future+1 {
			t.Errorf("token %d after the deleted row's %d", token, future)
		}
	})
}

// A renewal races with a read, and the old end passes meanwhile. The hold was live all
// the time.
func TestReadThatRacesWithARenewal(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	steady, race := cfg.Steady, func() {}
	cfg.Steady = func() time.Duration {
		run := race
		race = func() {}
		run()
		return steady()
	}
	s := open(t, cfg)
	execute(t, s, acquireFor("r", "p", time.Second))
	race = func() {
		execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
		clock.pass(2 * time.Second)
	}
	r, now := find(t, s, "r")
	if _, held := r.Holder(now); !held {
		t.Errorf("at %v: %+v", now, r)
	}
}

// server is a store on a database that is restarted, with the clocks of its machine.
type server struct {
	*store.Store
	*clocks
	cfg  store.Config
	logs *bytes.Buffer
}

func newServer(t *testing.T, wall time.Time) *server {
	t.Helper()
	s := &server{cfg: config(t, store.SQLite), logs: &bytes.Buffer{}}
	s.clocks = newClocks(&s.cfg, wall)
	s.cfg.BootID = "first boot"
	s.cfg.Logger = slog.New(slog.NewTextHandler(s.logs, nil))
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	var err error
	if s.Store, err = store.Open(t.Context(), s.cfg); err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
}

func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// restart stops the server for a minute and sets the wall clock by a step meanwhile.
func (s *server) restart(t *testing.T, step time.Duration) {
	t.Helper()
	s.stop(t)
	s.logs.Reset()
	s.pass(time.Minute)
	s.wall.Add(step.Microseconds())
	s.start(t)
}

// reboot is a restart for which the machine was booted.
func (s *server) reboot(t *testing.T, step time.Duration) {
	t.Helper()
	s.cfg.BootID += ", next boot"
	s.steady.Store(0)
	s.restart(t, step)
}

// now returns the time of the clock by which holds expire.
func (s *server) now(t *testing.T) time.Time {
	t.Helper()
	_, now := find(t, s.Store, "any")
	return now
}

// wantHeldFor fails the test unless another process gets r after the given time, and not
// before.
func (s *server) wantHeldFor(t *testing.T, left time.Duration) {
	t.Helper()
	s.pass(left - time.Microsecond)
	if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("a microsecond before its end: %v", err)
	}
	s.pass(time.Microsecond)
	execute(t, s.Store, acquire("r", "q"))
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// A server was started with a wrong clock, which is corrected while the server is down. A
// hold lasts exactly as long as it was granted for, including the time of the restart.
func TestClockGoesOnThroughRestarts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		wrong time.Duration
		log   string
	}{
		"a day behind": {-day, "ahead_by=-24h0m0s"},
		"a day ahead":  {day, "ahead_by=24h0m0s"},
		"right":        {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, noon.Add(test.wrong))
			token := execute(t, s.Store, acquireFor("r", "p", time.Hour)).Hold.Token
			s.pass(10 * time.Minute)
			s.restart(t, -test.wrong)
			if text := s.logs.String(); !strings.Contains(text, test.log) || test.log == "" && text != "" {
				t.Errorf("log: %s", text)
			}
			s.pass(4 * time.Minute)
			s.restart(t, 0)
			s.wantHeldFor(t, 44*time.Minute)
			if r, _ := find(t, s.Store, "r"); r.Token <= token {
				t.Errorf("token %d after %d", r.Token, token)
			}
		})
	}
}

// After a boot only the wall clock shows how much time has passed. It may be wrong, but
// it never gives a hold more time than was left when the server last stored a timestamp.
func TestClockAfterABoot(t *testing.T) {
	t.Parallel()
	t.Run("right", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, noon)
		execute(t, s.Store, acquireFor("r", "p", time.Hour))
		s.reboot(t, 0)
		s.wantHeldFor(t, 59*time.Minute)
	})
	t.Run("set back", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, noon)
		execute(t, s.Store, acquireFor("r", "p", time.Hour))
		s.pass(10 * time.Minute)
		execute(t, s.Store, acquire("other", "p"))
		s.reboot(t, -day)
		s.wantHeldFor(t, 50*time.Minute)
	})
	t.Run("set back long after a wrong clock", func(t *testing.T) { // the old timestamps do not count
		t.Parallel()
		s := newServer(t, noon.Add(day))
		execute(t, s.Store, acquire("old", "p"))
		execute(t, s.Store, lock.Release{Resource: "old", ProcessID: "p"})
		s.restart(t, -day)
		execute(t, s.Store, acquireFor("r", "p", time.Hour))
		s.restart(t, 0)
		s.reboot(t, 0)
		s.wantHeldFor(t, 58*time.Minute)
	})
	t.Run("set forward", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, noon.Add(-day))
		token := execute(t, s.Store, acquireFor("r", "p", time.Hour)).Hold.Token
		s.reboot(t, day)
		if next := execute(t, s.Store, acquire("r", "q")).Hold.Token; next <= token {
			t.Errorf("token %d after %d", next, token)
		}
	})
}

// A server adopts the wall clock again where that makes no difference.
func TestWallClockIsAdopted(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]time.Duration{"behind": -day, "ahead": day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, noon.Add(wrong))
			wantAhead := func(what string, want time.Duration) {
				t.Helper()
				if ahead := s.now(t).Sub(time.UnixMicro(s.wall.Load())); ahead != want {
					t.Errorf("%s: ahead by %v, want %v", what, ahead, want)
				}
			}
			first := execute(t, s.Store, acquire("r", "p")).Hold.Token
			s.restart(t, -wrong)
			wantAhead("held", wrong)
			execute(t, s.Store, lock.Release{Resource: "r", ProcessID: "p"})
			execute(t, s.Store, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", MinHold: time.Hour}})
			execute(t, s.Store, lock.Release{Resource: "r", ProcessID: "p"})
			s.restart(t, 0)
			wantAhead("kept by its minimum", wrong)
			execute(t, s.Store, lock.ForceRelease{Resource: "r", Reason: "test"})
			execute(t, s.Store, acquireFor("r", "p", time.Second))
			s.restart(t, 0)
			wantAhead("expired, and not yet recorded", wrong)
			execute(t, s.Store, lock.ExpireAndGrant{Names: []string{"r"}})
			execute(t, s.Store, acquire("r", "p"))
			waiter := waiting("r", "w")
			enqueue(t, s.Store, waiter)
			s.restart(t, 0)
			// w is not connected, so it is not granted the resource.
			execute(t, s.Store, lock.ForceRelease{Resource: "r", Reason: "test"})
			s.restart(t, 0)
			wantAhead("a place is kept", wrong)
			execute(t, s.Store, lock.RemoveAbandoned{Places: waiter.Needs().Places})
			s.restart(t, 0)
			wantAhead("idle", 0)
			if next := execute(t, s.Store, acquire("r", "p")).Hold.Token; next <= first {
				t.Errorf("token %d after %d", next, first)
			}
		})
	}
}
