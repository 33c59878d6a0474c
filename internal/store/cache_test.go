package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// What a server has cached of a file is not used after another program has changed the
// file.
func TestAnotherProgramChangesTheFile(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	s := open(t, cfg)
	execute(t, s, acquire("r", "p"))
	other := connect(t, cfg)
	if _, err := other.ExecContext(t.Context(), "UPDATE resource_locks SET process_id = 'q'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Execute(t.Context(), lock.Release{Resource: "r", ProcessID: "p"}); err == nil {
		t.Error("a hold was released that another program has replaced")
	}
	if r, _ := find(t, s, "r"); r.Holds[0].ProcessID != "q" {
		t.Errorf("%+v", r)
	}
	if _, err := other.ExecContext(t.Context(), "DELETE FROM resource_locks"); err != nil {
		t.Fatal(err)
	}
	execute(t, s, acquire("r", "p"))
}

// A read finds the state that the last command has left, whatever happened to the
// commands before it.
func TestReadsFollowCommands(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		wantHolder := func(want string) {
			t.Helper()
			r, now := find(t, s, "r")
			if hold, _ := r.Holder(now); hold.ProcessID != want {
				t.Errorf("held by %q, want %q", hold.ProcessID, want)
			}
		}
		wantHolder("")
		execute(t, s, acquire("r", "p"))
		wantHolder("p")
		if _, err := s.Execute(t.Context(), brokenAfter{resource: "r"}); err == nil {
			t.Fatal("a row that the database cannot store was accepted")
		}
		wantHolder("p")
		execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})
		wantHolder("")
		execute(t, s, acquireFor("r", "q", time.Microsecond))
		wantHolder("")
		execute(t, s, lock.ExpireAndGrant{Names: []string{"r"}})
		execute(t, s, lock.DeleteIdle{Names: []string{"r"}, Before: time.Now().Add(time.Hour)})
		wantHolder("")
		if r, _ := find(t, s, "r"); r.ID != 0 {
			t.Errorf("deleted, and still there: %+v", r)
		}
		execute(t, s, acquire("r", "q"))
		wantHolder("q")
	})
}

// The history is complete at any time, whichever of its events are in the indexes, and
// after a restart.
func TestHistoryWhileItIsIndexed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		const callers, rounds = 16, 150 // two events each
		history := func(s *store.Store, resource, process string, limit int) (kinds []lock.EventKind) {
			t.Helper()
			events, err := s.History(t.Context(), service.HistoryFilter{Resource: resource, ProcessID: process, Limit: limit})
			if err != nil {
				t.Error(err)
			}
			for i, e := range events {
				if i > 0 && e.ID >= events[i-1].ID {
					t.Errorf("event %d comes after %d", e.ID, events[i-1].ID)
				}
				kinds = append(kinds, e.Kind)
			}
			return kinds
		}
		want := func(n int) (kinds []lock.EventKind) { // newest first
			for range n {
				kinds = append(kinds, lock.EventReleased, lock.EventAcquired)
			}
			return kinds
		}
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				resource, process := fmt.Sprint("resource ", i), fmt.Sprint("process ", i)
				for n := range rounds {
					for _, c := range []lock.Command{
						acquire(resource, process),
						lock.Release{Resource: resource, ProcessID: process},
					} {
						if _, err := s.Execute(context.Background(), c); err != nil {
							t.Error(err)
						}
					}
					if n%10 == i%10 {
						if diff := cmp.Diff(want(n+1), history(s, resource, "", 1000)); diff != "" {
							t.Errorf("history of %s after %d rounds (-want +got):\n%s", resource, n+1, diff)
						}
					}
				}
			})
		}
		all.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range callers {
			resource, process := fmt.Sprint("resource ", i), fmt.Sprint("process ", i)
			for _, limit := range []int{1, 3, 2 * rounds} {
				full := want(rounds)[:limit]
				if diff := cmp.Diff(full, history(s, resource, "", limit)); diff != "" {
					t.Errorf("history of %s after a restart (-want +got):\n%s", resource, diff)
				}
				if diff := cmp.Diff(full, history(s, "", process, limit)); diff != "" {
					t.Errorf("history of %s after a restart (-want +got):\n%s", process, diff)
				}
			}
		}
	})
}
