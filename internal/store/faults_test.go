package store_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// After a connection broke that had sent COMMIT, the outcome is unknown. It is reported
// as such, and the batch is not run again.
func TestUnknownCommit(t *testing.T) {
	t.Parallel()
	for name, delivered := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			execute(t, s, acquire("warm", "p"))

			p.deliver.Store(delivered)
			p.cutAfter.Store("commit\x00") // not the setting synchronous_commit
			_, err := s.Execute(t.Context(), acquire("r", "p"))
			if !errors.Is(err, service.ErrOutcomeUnknown) {
				t.Fatalf("answer: %v", err)
			}
			r, _ := find(t, s, "r")
			if held := len(r.Holds) == 1; held != delivered {
				t.Errorf("held: %v, COMMIT arrived: %v", held, delivered)
			}
			execute(t, s, lock.Release{Resource: "warm", ProcessID: "p"})
		})
	}
}

// Of several hosts, all but one accept connections and do not answer, as lost hosts of a
// cluster may. A command that needs a new connection reaches the last host in time.
func TestSilentHosts(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	living := connect(t, cfg)
	for range 2 {
		silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { silent.Close() })
		cfg.Source = strings.Replace(cfg.Source, "@", "@"+silent.Addr().String()+",", 1)
	}
	s := open(t, cfg)
	var lost time.Time
	err := living.QueryRow(`SELECT clock_timestamp() FROM (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE application_name = 'lockd' AND datname = current_database()) AS all_of_them`).Scan(&lost)
	if err != nil {
		t.Fatal(err)
	}
	// The commits always find a free connection, so the lease needs another one.
	var busy sync.WaitGroup
	defer busy.Wait()
	ctx, enough := context.WithCancel(context.Background())
	defer enough()
	for i := range 4 {
		busy.Go(func() {
			for ctx.Err() == nil {
				c := acquire(fmt.Sprint(i), "p")
				c.RequestID = "again"
				_, _ = s.Execute(context.Background(), c)
			}
		})
	}
	deadline := time.After(6 * time.Second)
	for renewed := false; !renewed; {
		err := living.QueryRow("SELECT bool_or(alive_until > $1::timestamptz + interval '1750 ms') FROM lock_servers",
			lost).Scan(&renewed)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-deadline:
			t.Fatal("the server cannot renew its lease")
		case <-time.After(10 * time.Millisecond):
		}
	}
	execute(t, s, acquire("r", "p"))
}

// After a connection broke before COMMIT was sent, the batch is run again on a new
// connection.
func TestBrokenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"begin", "FOR UPDATE", "INSERT INTO resource_locks"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			p.cutAfter.Store(word)
			execute(t, s, acquire("r", "p"))
			if p.cuts.Load() != 1 {
				t.Errorf("the connection was cut %d times", p.cuts.Load())
			}
		})
	}
}

// poison is a command that makes every transaction fail.
type poison struct{ resource string }

func (c poison) Needs() lock.Needs { return lock.Needs{Resources: []string{c.resource}} }

func (c poison) Decide(time.Time, []lock.Resource) (lock.Outcome, error) { panic("poison") }

func TestPoisonCommandFailsAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				name := fmt.Sprint("resource ", i)
				if i%10 == 0 {
					if _, err := s.Execute(context.Background(), poison{name}); err == nil {
						t.Error("the poison was accepted")
					}
					return
				}
				if _, err := s.Execute(context.Background(), acquire(name, "p")); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
	})
}

// A failed batch changes neither the database nor the states that later commands see.
func TestFailedBatchLeavesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		broken := brokenAfter{resource: "r"}
		if _, err := s.Execute(t.Context(), broken); err == nil {
			t.Fatal("a row that the database cannot store was accepted")
		}
		if r, _ := find(t, s, "r"); r.ID != 0 {
			t.Errorf("left behind: %+v", r)
		}
		if events, err := s.History(t.Context(), service.HistoryFilter{Limit: 1}); err != nil || len(events) != 0 {
			t.Errorf("events left behind: %+v, %v", events, err)
		}
		execute(t, s, acquire("r", "p"))
	})
}

// brokenAfter changes two resources; the second change names the row of another resource.
type brokenAfter struct{ resource string }

func (c brokenAfter) Needs() lock.Needs {
	return lock.Needs{Resources: []string{c.resource, c.resource + "2"}}
}

func (c brokenAfter) Decide(now time.Time, before []lock.Resource) (lock.Outcome, error) {
	one, two := before[0], before[1]
	one.ID, two.ID = 77, 77
	one.Holds = []lock.Hold{{ProcessID: "p", Token: 1, LockedAt: now}}
	two.Holds = one.Holds
	return lock.Outcome{Now: now, Changed: []lock.Resource{one, two}}, nil
}

// A store refuses commands before Start and after Close.
func TestStoppedStore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Execute(t.Context(), acquire("r", "p")); !errors.Is(err, service.ErrStopping) {
			t.Errorf("before Start: %v", err)
		}
		s.Start(nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Execute(t.Context(), acquire("r", "p")); !errors.Is(err, service.ErrStopping) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestSecondStoreOnOneFileIsRefused(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	open(t, cfg)
	if _, err := store.Open(t.Context(), cfg); err == nil {
		t.Error("two stores have the same file")
	}
}

// File names with characters that mean something in a SQLite URI are used literally.
func TestOddFileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"with space.db", "per%20cent.db", "question?mark=1.db", "hash#tag.db", "plus+é.db"} {
		cfg := config(t, store.SQLite)
		cfg.Source = t.TempDir() + "/" + name
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		run(t, store.Config{Driver: store.SQLite, Source: "file:" + (&url.URL{Path: cfg.Source}).EscapedPath() + "?mode=ro"},
			"SELECT 1 FROM resource_locks")
	}
}

func TestInMemoryDatabasesAreSeparate(t *testing.T) {
	t.Parallel()
	for range 2 {
		cfg := config(t, store.SQLite)
		cfg.Source = ""
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		if found := held(t, s, service.ListFilter{}); len(found) != 1 {
			t.Errorf("a reader sees %+v", found)
		}
	}
}
