package store_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// aliveFor returns the time until the lease of a server ends, by the clock of the
// database.
func aliveFor(t *testing.T, s *store.Store, db *sql.DB) (left time.Duration) {
	t.Helper()
	var seconds float64
	row := db.QueryRowContext(t.Context(),
		"SELECT extract(epoch FROM alive_until - clock_timestamp()) FROM lock_servers WHERE id = $1", idOf(t, s))
	if err := row.Scan(&seconds); err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// The waiters of a server are passed over when it is dead, and not before. They can
// return to their places.
func TestDeadServerIsPassedOver(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	var seen commits
	a := openObserved(t, cfg, seen.observe)
	dying, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	dying.Start(nil)
	id := idOf(t, dying)
	for _, r := range []string{"soon", "now"} {
		execute(t, a, acquire(r, "p"))
		enqueue(t, dying, waiting(r, "w1"))
		enqueue(t, a, waiting(r, "w2"))
	}
	if err := dying.Close(); err != nil { // like a crash: it leaves its waiters behind
		t.Fatal(err)
	}
	if granted := release(t, a, "now", "p"); len(granted) != 1 || granted[0].Hold.ProcessID != "w2" {
		t.Errorf("granted %+v, want the waiter of the server that is alive", granted)
	}
	if diff := cmp.Diff([]string{"w2"}, processes(t, a, "soon")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}

	// A server that has crashed just now counts as alive for a while.
	run(t, cfg, fmt.Sprintf("UPDATE lock_servers SET alive_until = clock_timestamp() + interval '2 s' WHERE id = %d", id))
	seen.take()
	if granted := release(t, a, "soon", "p"); len(granted) != 0 {
		t.Fatalf("granted %+v, but the first waiter may be connected", granted)
	}
	commit := seen.takeOne(t)
	due := commit.Contended[0].Due(commit.Now)
	if due.Before(commit.Now) || due.After(commit.Now.Add(2*time.Second)) {
		t.Errorf("due %v after now, want within two seconds", due.Sub(commit.Now))
	}
	var granted []lock.Grant
	eventually(t, "the server is dead", func() bool {
		granted = execute(t, a, lock.ExpireAndGrant{Names: []string{"soon"}}).Granted
		return len(granted) > 0
	})
	if len(granted) != 1 || granted[0].Hold.ProcessID != "w2" || granted[0].Now.Before(due) {
		t.Errorf("granted %+v, want the second waiter from %v on", granted, due)
	}
	enqueue(t, a, waiting("now", "w3"))
	enqueue(t, a, waiting("now", "w1"))
	if diff := cmp.Diff([]string{"w1", "w3"}, processes(t, a, "now")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
}

// Places are abandoned that are not kept any more.
func TestAbandonedPlaces(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		for name, keep := range map[string]time.Duration{
			"ended": time.Microsecond, "ended too": time.Microsecond, "kept": time.Hour,
		} {
			c := waiting("r", name)
			enqueue(t, s, c)
			execute(t, s, lock.Disconnect{Of: c, Keep: keep})
		}
		enqueue(t, s, waiting("r", "connected"))
		abandoned := func(keep time.Duration, limit int) (names map[string]bool) {
			t.Helper()
			places, err := s.AbandonedPlaces(t.Context(), keep, limit)
			if err != nil {
				t.Fatal(err)
			}
			names = map[string]bool{}
			for _, p := range places {
				names[p.ProcessID] = true
				if want := (lock.Place{Resource: "r", ProcessID: p.ProcessID, RequestID: "of " + p.ProcessID}); p != want {
					t.Errorf("got %+v, want %+v", p, want)
				}
			}
			return names
		}
		eventually(t, "a microsecond has passed", func() bool { return len(abandoned(0, 9)) >= 2 })
		if diff := cmp.Diff(map[string]bool{"ended": true, "ended too": true}, abandoned(0, 9)); diff != "" {
			t.Errorf("abandoned (-want +got):\n%s", diff)
		}
		if got := abandoned(0, 1); len(got) != 1 {
			t.Errorf("one of %v", got)
		}
		places, err := s.AbandonedPlaces(t.Context(), 0, 9)
		if err != nil {
			t.Fatal(err)
		}
		execute(t, s, lock.RemoveAbandoned{Places: append(places,
			lock.Place{Resource: "r", ProcessID: "kept", RequestID: "of kept"})})
		if got := abandoned(0, 9); len(got) != 0 {
			t.Errorf("abandoned again: %v", got)
		}
		if r, _ := find(t, s, "r"); r.Waiters != 1 || r.Detached != 1 {
			t.Errorf("%d wait, %d are detached", r.Waiters, r.Detached)
		}
		if cfg.Driver != store.Postgres {
			return
		}
		// The places of a dead server are kept as long as those of a disconnected client.
		other, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		other.Start(nil)
		enqueue(t, other, waiting("r", "of the dead"))
		enqueue(t, other, waiting("r", "of the dead too"))
		if got := abandoned(0, 9); len(got) != 0 {
			t.Errorf("abandoned while their server is alive: %v", got)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if got := abandoned(time.Hour, 9); len(got) != 0 {
			t.Errorf("abandoned an hour too early: %v", got)
		}
		if got := abandoned(0, 9); len(got) != 2 {
			t.Errorf("abandoned by a dead server: %v", got)
		}
		run(t, cfg, fmt.Sprintf("UPDATE lock_servers SET alive_until = alive_until - interval '1 hour' WHERE id = %d",
			idOf(t, other)))
		if got := abandoned(59*time.Minute, 9); len(got) != 2 {
			t.Errorf("abandoned after an hour: %v", got)
		}
	})
}

// A dead server is deleted, but not at once, and not while a client may return to a place
// in one of its queues.
func TestDeadServersAreDeleted(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	s, other := open(t, cfg), open(t, cfg)
	execute(t, s, acquire("r", "p"))
	c := waiting("r", "w")
	id := enqueue(t, s, c).Resource.ID
	run(t, cfg,
		"INSERT INTO lock_servers VALUES (1001, now() - interval '59 minutes'), "+
			"(1002, now() - interval '61 minutes'), (1003, now() - interval '3 hours')",
		fmt.Sprintf("INSERT INTO lock_waiters VALUES (%d, 7, 1003, 1, 'q', 'q', now(), now() + interval '1 hour', 0, 0)", id))
	servers := func() (ids []int) {
		t.Helper()
		rows, err := connect(t, cfg).QueryContext(t.Context(), "SELECT id FROM lock_servers ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for _, step := range []struct {
		keep time.Duration
		want []int
	}{
		{10 * time.Minute, []int{idOf(t, s), idOf(t, other), 1001, 1002, 1003}}, // a place may be kept until then
		{0, []int{idOf(t, s), idOf(t, other), 1001, 1003}},
	} {
		if err := s.DeleteDeadServers(t.Context(), step.keep); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, servers()); diff != "" {
			t.Errorf("kept for %v (-want +got):\n%s", step.keep, diff)
		}
	}
}

// For other servers a server is dead two seconds after its last heartbeat at the latest,
// and at once when it is closed. It is alive again when its heartbeats succeed again.
func TestServerStaysAlive(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	db := connect(t, cfg)
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if left := aliveFor(t, s, db); left > 2*time.Second {
		t.Errorf("at first alive for %v, want at most 2 s", left)
	}
	s.Start(nil)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Its heartbeats wait for this lock, as if the database stalled.
	const block = "LOCK TABLE lock_servers IN ROW EXCLUSIVE MODE; SELECT FROM lock_servers FOR UPDATE"
	if _, err := tx.ExecContext(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a server without heartbeats is dead", func() bool { return aliveFor(t, s, db) < 0 })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a server with heartbeats is alive", func() bool { return aliveFor(t, s, db) >= 0 })
	if left := aliveFor(t, s, db); left > 2*time.Second {
		t.Errorf("alive for %v, want at most 2 s", left)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := aliveFor(t, s, db); left > 0 {
		t.Errorf("alive for %v after it was closed", left)
	}
}

// A server that could not reach the database for so long that the others have deleted it
// is alive again.
func TestDeletedServerIsAliveAgain(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	s := open(t, cfg)
	run(t, cfg, "DELETE FROM lock_servers")
	db := connect(t, cfg)
	eventually(t, "the server is registered again", func() bool {
		return number(t, db,
			"SELECT count(*) FROM lock_servers") == 1
	})
	if left := aliveFor(t, s, db); left < 0 {
		t.Errorf("dead for %v", -left)
	}
}
