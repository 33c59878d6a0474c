package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// eventually asks every now and then until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(60 * time.Second); !so(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

// idOf is a server's id in lock_servers.
func idOf(t *testing.T, s *store.Store) int {
	t.Helper()
	text, found := strings.CutPrefix(s.Channel(), "lockd_")
	id, err := strconv.Atoi(text)
	if !found || err != nil {
		t.Fatalf("the channel %q has no id", s.Channel())
	}
	return id
}

// hearing returns a function that returns the payloads that have come on a server's channel since it was last called.
func hearing(t *testing.T, cfg store.Config, s *store.Store) func() []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cfg.Source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "LISTEN "+s.Channel()); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		t.Helper()
		// Notifications come in the order of the commits, so all that were sent before this one have come with it.
		if _, err := conn.Exec(t.Context(), "SELECT pg_notify($1, 'mark')", s.Channel()); err != nil {
			t.Fatal(err)
		}
		payloads := []string{}
		for {
			n, err := conn.WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Payload == "mark" {
				return payloads
			}
			payloads = append(payloads, n.Payload)
		}
	}
}

// TestOneQueueForAllServers: first come, first served, whichever server they are connected to. Only a waiter's own server
// grants it the resource, and is told to.
func TestOneQueueForAllServers(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	a, b := open(t, cfg), open(t, cfg)
	if a.Channel() == b.Channel() {
		t.Fatalf("two servers on the channel %s", a.Channel())
	}
	atA, atB := hearing(t, cfg, a), hearing(t, cfg, b)
	const resource = `r "'; -- 日本`
	execute(t, a, lock.Acquire{Resource: resource, ProcessID: "p"})
	enqueue(t, b, waiting(resource, "w1"))
	enqueue(t, a, waiting(resource, "w2"))
	enqueue(t, b, waiting(resource, "w3"))
	for _, s := range []*store.Store{a, b} {
		if diff := cmp.Diff([]string{"w1", "w2", "w3"}, processes(t, s, resource)); diff != "" {
			t.Errorf("queue (-want +got):\n%s", diff)
		}
	}
	if toA, toB := atA(), atB(); len(toA)+len(toB) != 0 {
		t.Errorf("told %q and %q while it is held", toA, toB)
	}

	if granted := release(t, a, resource, "p"); len(granted) != 0 {
		t.Errorf("the other server granted %+v", granted)
	}
	if toA, toB := atA(), atB(); len(toA) != 0 || !cmp.Equal(toB, []string{resource}) {
		t.Errorf("told %q and %q, want only the second server to be told", toA, toB)
	}
	if out := execute(t, a, lock.Settle{Names: []string{resource}}); len(out.Granted)+len(out.Changed) != 0 {
		t.Errorf("the other server granted %+v", out)
	}
	// It is reserved: for a newcomer, and for one that is further behind.
	for _, s := range []*store.Store{a, b} {
		var held *lock.HeldError
		if _, err := s.Execute(t.Context(), lock.Acquire{Resource: resource, ProcessID: "new"}); !errors.As(err, &held) || held.Next != "w1" {
			t.Errorf("a newcomer: %v", err)
		}
	}
	again := waiting(resource, "w2")
	if out := execute(t, a, again); out.Hold.Token != 0 {
		t.Errorf("the second was granted %+v", out.Hold)
	}
	out := execute(t, b, lock.Settle{Names: []string{resource}})
	if len(out.Granted) != 1 || out.Granted[0].Hold.ProcessID != "w1" {
		t.Fatalf("granted %s", asJSON(out.Granted))
	}

	atA()
	atB()
	if granted := release(t, b, resource, "w1"); len(granted) != 0 {
		t.Errorf("the other server granted %+v", granted)
	}
	if toA, toB := atA(), atB(); len(toB) != 0 || !cmp.Equal(toA, []string{resource}) {
		t.Errorf("told %q and %q, want only the first server to be told", toA, toB)
	}
	out = execute(t, a, lock.Settle{Names: []string{resource}})
	if len(out.Granted) != 1 || out.Granted[0].To.Connection != again.Connection {
		t.Errorf("granted %s", asJSON(out.Granted))
	}
	// By the one whose turn it is, with the next one on the same server, nobody is told.
	release(t, a, resource, "w2")
	atA()
	atB()
	execute(t, b, lock.Settle{Names: []string{resource}})
	if toA, toB := atA(), atB(); len(toA)+len(toB) != 0 {
		t.Errorf("told %q and %q when it was granted", toA, toB)
	}
}

// TestAwayIsSeenByAll: a place that is kept is kept on every server, and found from every server.
func TestAwayIsSeenByAll(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	a, b := open(t, cfg), open(t, cfg)
	atB := hearing(t, cfg, b)
	execute(t, a, lock.Acquire{Resource: "r", ProcessID: "p"})
	first := waiting("r", "w1")
	enqueue(t, a, first)
	enqueue(t, a, waiting("r", "w2"))
	execute(t, a, lock.Leave{Request: first, Gone: true, Keep: time.Hour})
	if diff := cmp.Diff([]string{"w2"}, processes(t, b, "r")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	enqueue(t, b, waiting("r", "w1")) // it comes back by another server
	if diff := cmp.Diff([]string{"w1", "w2"}, processes(t, a, "r")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	// What the first server still knows of it is out of date.
	if _, err := a.Execute(t.Context(), lock.Leave{Request: first, Gone: true}); !errors.As(err, new(*lock.HeldError)) {
		t.Errorf("the old connection left the place of the new one: %v", err)
	}
	release(t, a, "r", "p")
	if got := atB(); !cmp.Equal(got, []string{"r"}) {
		t.Errorf("told %q", got)
	}
	if out := execute(t, b, lock.Settle{Names: []string{"r"}}); len(out.Granted) != 1 || out.Granted[0].Hold.ProcessID != "w1" {
		t.Errorf("granted %+v", out.Granted)
	}
}

// TestDeadServerIsPassedOver, and not before it is dead; and its waiters come back to their places.
func TestDeadServerIsPassedOver(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	a := open(t, cfg)
	dying, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	dying.Start()
	id := idOf(t, dying)
	for _, r := range []string{"soon", "now"} {
		execute(t, a, lock.Acquire{Resource: r, ProcessID: "p"})
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

	// One that has crashed just now counts as alive for a while.
	run(t, cfg, fmt.Sprintf("UPDATE lock_servers SET alive_until = clock_timestamp() + interval '2 s' WHERE id = %d", id))
	var told []lock.Commit
	a.Watch(func(c lock.Commit) { told = append(told, c) })
	if granted := release(t, a, "soon", "p"); len(granted) != 0 {
		t.Fatalf("granted %+v, but the first waiter may be there", granted)
	}
	due := told[0].Awaited[0].Due(told[0].Now)
	if due.Before(told[0].Now) || due.After(told[0].Now.Add(2*time.Second)) {
		t.Errorf("due %v after now, want within two seconds", due.Sub(told[0].Now))
	}
	var granted []lock.Grant
	eventually(t, "the server is dead", func() bool {
		granted = execute(t, a, lock.Settle{Names: []string{"soon"}}).Granted
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

// TestLeft tells of the places that are not kept any more.
func TestLeft(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		for name, keep := range map[string]time.Duration{"over": time.Microsecond, "over too": time.Microsecond, "kept": time.Hour} {
			c := waiting("r", name)
			enqueue(t, s, c)
			execute(t, s, lock.Leave{Request: c, Gone: true, Keep: keep})
		}
		enqueue(t, s, waiting("r", "here"))
		left := func(keep time.Duration, limit int) (names map[string]bool) {
			t.Helper()
			places, err := s.Left(t.Context(), keep, limit)
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
		eventually(t, "a microsecond is over", func() bool { return len(left(0, 9)) >= 2 })
		if diff := cmp.Diff(map[string]bool{"over": true, "over too": true}, left(0, 9)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		if got := left(0, 1); len(got) != 1 {
			t.Errorf("one of %v", got)
		}
		places, err := s.Left(t.Context(), 0, 9)
		if err != nil {
			t.Fatal(err)
		}
		execute(t, s, lock.Vacate{Gone: append(places, lock.Place{Resource: "r", ProcessID: "kept", RequestID: "of kept"})})
		if got := left(0, 9); len(got) != 0 {
			t.Errorf("left again: %v", got)
		}
		if r, _, err := s.Find(t.Context(), "r"); err != nil || r.Waiters != 1 || r.Away != 1 {
			t.Errorf("%d wait, %d are away, %v", r.Waiters, r.Away, err)
		}
		if cfg.Driver != store.Postgres {
			return
		}
		// A dead server's are kept for as long as those who hang up keep theirs.
		other, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		other.Start()
		enqueue(t, other, waiting("r", "of the dead"))
		enqueue(t, other, waiting("r", "of the dead too"))
		if got := left(0, 9); len(got) != 0 {
			t.Errorf("left while their server is alive: %v", got)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if got := left(time.Hour, 9); len(got) != 0 {
			t.Errorf("left an hour too early: %v", got)
		}
		if got := left(0, 9); len(got) != 2 {
			t.Errorf("left of a dead server: %v", got)
		}
		run(t, cfg, fmt.Sprintf("UPDATE lock_servers SET alive_until = alive_until - interval '1 hour' WHERE id = %d", idOf(t, other)))
		if got := left(59*time.Minute, 9); len(got) != 2 {
			t.Errorf("left after an hour: %v", got)
		}
	})
}

// TestDeadServersAreForgotten: not those that are alive, not at once, and not while anybody may come back to a place.
func TestDeadServersAreForgotten(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	s, other := open(t, cfg), open(t, cfg)
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
	c := waiting("r", "w")
	id := enqueue(t, s, c).Changed[0].ID
	run(t, cfg,
		"INSERT INTO lock_servers VALUES (1001, now() - interval '59 minutes'), (1002, now() - interval '61 minutes'), (1003, now() - interval '3 hours')",
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
		{10 * time.Minute, []int{idOf(t, s), idOf(t, other), 1001, 1002, 1003}}, // its place may be kept for so long
		{0, []int{idOf(t, s), idOf(t, other), 1001, 1003}},
	} {
		if _, err := s.Left(t.Context(), step.keep, 10); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, servers()); diff != "" {
			t.Errorf("kept for %v (-want +got):\n%s", step.keep, diff)
		}
	}
}

// aliveFor returns for how much longer a server counts as alive, by the database's clock.
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

// TestServerStaysAlive: for the others it dies within two seconds of its last word, and at once when it is closed; and
// one that could not be heard of for a while is alive again.
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
	s.Start()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Its beats wait for this lock, as for a database that stalls.
	if _, err := tx.ExecContext(t.Context(), "LOCK TABLE lock_servers IN ROW EXCLUSIVE MODE; SELECT FROM lock_servers FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a server that is not heard of is dead", func() bool { return aliveFor(t, s, db) < 0 })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a server that is heard of again is alive", func() bool { return aliveFor(t, s, db) >= 0 })
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

// TestForgottenServerComesBack: one that was away for so long that the others have forgotten it.
func TestForgottenServerComesBack(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	s := open(t, cfg)
	run(t, cfg, "DELETE FROM lock_servers")
	db := connect(t, cfg)
	eventually(t, "it is heard of again", func() bool { return number(t, db, "SELECT count(*) FROM lock_servers") == 1 })
	if left := aliveFor(t, s, db); left < 0 {
		t.Errorf("dead for %v", -left)
	}
}

// TestWatchIsToldOfAnUnknownCommit: its grants may have happened, and have to be asked for.
func TestWatchIsToldOfAnUnknownCommit(t *testing.T) {
	t.Parallel()
	for name, delivered := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			var mu sync.Mutex
			var told []lock.Commit
			s.Watch(func(c lock.Commit) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, c)
			})
			execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
			c := waiting("r", "w")
			enqueue(t, s, c)

			p.deliver.Store(delivered)
			p.cutAfter.Store("commit\x00")
			if _, err := s.Execute(t.Context(), lock.Release{Resource: "r", ProcessID: "p"}); !errors.Is(err, lock.ErrOutcomeUnknown) {
				t.Fatalf("answer: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(told) != 2 || told[0].Unknown || !told[1].Unknown {
				t.Fatalf("told %+v", told)
			}
			granted, awaited := told[1].Granted, told[1].Awaited
			if len(granted) != 1 || granted[0].To.Connection != c.Connection || len(awaited) != 1 || awaited[0].Name != "r" {
				t.Errorf("told %+v", told[1])
			}
			r, _, err := s.Find(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			if holder := r.Holds[0].ProcessID; (holder == "w") != delivered {
				t.Errorf("held by %s, COMMIT arrived: %v", holder, delivered)
			}
		})
	}
}

// TestWatchIsToldOnce of a transaction that was run again, because its connection had broken before COMMIT.
func TestWatchIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"lock_waiters", "lock_servers"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			var told []lock.Commit
			s.Watch(func(c lock.Commit) { told = append(told, c) })
			execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
			if word == "lock_servers" { // it is looked at when somebody waits already
				enqueue(t, s, waiting("r", "first"))
				told = nil
			}
			p.cutAfter.Store(word)
			enqueue(t, s, waiting("r", "w"))
			if p.cuts.Load() != 1 || len(told) != 1 || told[0].Unknown {
				t.Errorf("told %+v after %d cuts", told, p.cuts.Load())
			}
			wantCounts(t, cfg)
		})
	}
}
