package store_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// commits collects what a store reports to its observer.
type commits struct {
	mu  sync.Mutex
	all []service.Commit
}

func (c *commits) observe(commit service.Commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, commit)
}

// take returns the commits since the last call.
func (c *commits) take() []service.Commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// takeOne fails the test unless there was one commit since the last call, and returns it.
func (c *commits) takeOne(t *testing.T) service.Commit {
	t.Helper()
	all := c.take()
	if len(all) != 1 {
		t.Fatalf("%d commits were observed, want 1: %+v", len(all), all)
	}
	return all[0]
}

// The observer gets every transaction that changed something, with its events in order,
// before Execute returns. If no request waits, it gets no other transaction.
func TestEveryChangeIsObserved(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		var seen commits
		s := openObserved(t, cfg, seen.observe)
		// observed executes a command and returns its one commit.
		observed := func(c lock.Command) service.Commit {
			t.Helper()
			start := time.Now()
			out := execute(t, s, c)
			commit := seen.takeOne(t)
			if diff := cmp.Diff(out.Events, commit.Events); diff != "" {
				t.Errorf("%+v: events (-outcome +observed):\n%s", c, diff)
			}
			if !commit.Now.Equal(out.Now) || commit.ReadAt.Before(start) || commit.ReadAt.After(time.Now()) || commit.Unknown {
				t.Errorf("%+v: observed %+v", c, commit)
			}
			return commit
		}
		ofNoWaiter := []lock.Command{
			lock.Acquire{Request: lock.Request{Resource: "a", ProcessID: "p", TTL: time.Microsecond, RequestID: "id"}},
			acquire("a", "q"), // after an expiry: two events
			lock.Release{Resource: "a", ProcessID: "q"},
			lock.Acquire{Request: lock.Request{Resource: "a", ProcessID: "p", RequestID: "id"}},
			acquire("b", "p"),
			lock.Renew{Resource: "b", ProcessID: "p", TTL: time.Hour}, // changes a row and has no event
			lock.ReleaseAll{Names: []string{"a", "b"}, ProcessID: "p"},
			lock.DeleteIdle{Names: []string{"b"}, Before: time.Now().Add(time.Hour)},
			lock.Acquire{Request: lock.Request{Resource: "a", ProcessID: "p", RequestID: "id"}},
		}
		for _, c := range ofNoWaiter {
			if commit := observed(c); len(commit.Contended)+len(commit.Granted)+len(commit.Superseded) != 0 {
				t.Errorf("%+v: observed %+v, though no request waits", c, commit)
			}
		}
		execute(t, s, ofNoWaiter[len(ofNoWaiter)-1]) // an idempotent retry
		execute(t, s, lock.ExpireAndGrant{Names: []string{"a"}})
		if all := seen.take(); len(all) != 0 {
			t.Errorf("observed %+v, though nothing changed", all)
		}
		for _, c := range []lock.Command{
			acquire("a", "q"),
			lock.Release{Resource: "a", ProcessID: "q"},
			lock.ForceRelease{Resource: "free", Reason: "why"},
			brokenAfter{resource: "x"},
		} {
			if _, err := s.Execute(t.Context(), c); err == nil {
				t.Errorf("%+v was accepted", c)
			}
		}
		if all := seen.take(); len(all) != 0 {
			t.Errorf("observed %+v, though every command was refused or failed", all)
		}
	})
}

// The observer gets the resources with waiters that a transaction read or changed, and
// the grants to waiters.
func TestQueuesAreObserved(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		var seen commits
		s := openObserved(t, cfg, seen.observe)
		held := execute(t, s, acquireFor("r", "p", time.Hour))
		seen.take()
		out := enqueue(t, s, waiting("r", "a"))
		commit := seen.takeOne(t)
		if diff := cmp.Diff(out.Changed, commit.Contended); diff != "" || len(commit.Granted) != 0 {
			t.Errorf("granted %+v, contended (-changed +observed):\n%s", commit.Granted, diff)
		}
		enqueue(t, s, waiting("r", "b"))
		commit = seen.takeOne(t)
		if len(commit.Contended) != 1 || !commit.Contended[0].Due(commit.Now).Equal(held.Hold.ExpiresAt) {
			t.Errorf("observed %+v", commit)
		}
		if _, err := s.Execute(t.Context(), acquire("r", "q")); !errors.As(err, new(*lock.HeldError)) {
			t.Fatal(err)
		}
		commit = seen.takeOne(t) // although it was refused: a timer may have to be set again
		if len(commit.Contended) != 1 || !commit.Contended[0].Due(commit.Now).Equal(held.Hold.ExpiresAt) ||
			len(commit.Events) != 0 {
			t.Errorf("observed %+v of a refusal", commit)
		}
		for i, holder := range []string{"p", "a"} {
			granted := release(t, s, "r", holder)
			commit := seen.takeOne(t)
			if diff := cmp.Diff(granted, commit.Granted); diff != "" || len(granted) != 1 {
				t.Errorf("release %d: granted (-outcome +observed):\n%s", i, diff)
			}
			// The last waiter's grant is a change of the queue, too.
			if r := commit.Contended; len(r) != 1 || r[0].Waiters != 1-i {
				t.Errorf("release %d: contended %+v", i, r)
			}
		}
		release(t, s, "r", "b")
		if commit := seen.takeOne(t); len(commit.Contended)+len(commit.Granted) != 0 {
			t.Errorf("observed %+v, though no request waits any more", commit)
		}
	})
}

// takeAway is a command that changes a resource and takes the database's file away before
// the transaction commits.
type takeAway struct{ resource, from, to string }

func (c takeAway) Needs() lock.Needs { return lock.Needs{Resources: []string{c.resource}} }

func (c takeAway) Decide(now time.Time, before []lock.Resource) (lock.Outcome, error) {
	if err := os.Rename(c.from, c.to); err != nil {
		return lock.Outcome{}, err
	}
	return acquire(c.resource, "p").Decide(now, before)
}

// On SQLite the outcome of a commit is unknown if the file was taken away meanwhile.
func TestUnknownCommitToALostFileIsObserved(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	var seen commits
	s := openObserved(t, cfg, seen.observe)
	lost := takeAway{"r", cfg.Source, cfg.Source + ".lost"}
	if _, err := s.Execute(t.Context(), lost); !errors.Is(err, service.ErrOutcomeUnknown) {
		t.Errorf("answer: %v", err)
	}
	if commit := seen.takeOne(t); !commit.Unknown || len(commit.Events) != 1 ||
		commit.Events[0].Kind != lock.EventAcquired {
		t.Errorf("observed %+v", commit)
	}
	if err := os.Rename(lost.to, lost.from); err != nil {
		t.Fatal(err)
	}
}

// A commit of unknown outcome is observed as such: its grants may have happened.
func TestUnknownCommitIsObserved(t *testing.T) {
	t.Parallel()
	for name, delivered := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			var seen commits
			s := openObserved(t, cfg, seen.observe)
			execute(t, s, acquire("r", "p"))
			c := waiting("r", "w")
			enqueue(t, s, c)
			for _, commit := range seen.take() {
				if commit.Unknown {
					t.Errorf("unknown before the connection was cut: %+v", commit)
				}
			}

			p.deliver.Store(delivered)
			p.cutAfter.Store("commit\x00")
			if _, err := s.Execute(context.Background(), lock.Release{Resource: "r", ProcessID: "p"}); !errors.Is(err,
				service.ErrOutcomeUnknown) {
				t.Fatalf("answer: %v", err)
			}
			commit := seen.takeOne(t)
			if !commit.Unknown || len(commit.Granted) != 1 || commit.Granted[0].To.Connection != c.Connection ||
				len(commit.Contended) != 1 || commit.Contended[0].Name != "r" || len(commit.Events) != 2 {
				t.Errorf("observed %+v", commit)
			}
			r, _ := find(t, s, "r")
			if holder := r.Holds[0].ProcessID; (holder == "w") != delivered {
				t.Errorf("held by %s, COMMIT arrived: %v", holder, delivered)
			}
		})
	}
}

// A transaction that was run again, because its connection broke before COMMIT, is
// observed once.
func TestRepeatedTransactionIsObservedOnce(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"lock_waiters", "lock_servers"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			var seen commits
			s := openObserved(t, cfg, seen.observe)
			execute(t, s, acquire("r", "p"))
			if word == "lock_servers" { // it is read if a request waits already
				enqueue(t, s, waiting("r", "first"))
			}
			seen.take()
			p.cutAfter.Store(word)
			enqueue(t, s, waiting("r", "w"))
			if commit := seen.takeOne(t); p.cuts.Load() != 1 || commit.Unknown {
				t.Errorf("observed %+v after %d cuts", commit, p.cuts.Load())
			}
			wantCounts(t, cfg)
		})
	}
}

// A panic of the observer does not run the commands again, which are committed.
func TestPanicOfTheObserver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := openObserved(t, cfg, func(service.Commit) { panic("planted") })
		c := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}}
		if _, err := s.Execute(t.Context(), c); !errors.Is(err, service.ErrOutcomeUnknown) {
			t.Errorf("got %v, want %v", err, service.ErrOutcomeUnknown)
		}
		events, err := s.History(t.Context(), service.HistoryFilter{Limit: 10})
		if err != nil || len(events) != 1 {
			t.Errorf("%d events, %v, want one", len(events), err)
		}
	})
}
