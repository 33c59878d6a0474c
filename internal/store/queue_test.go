package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

var connections atomic.Int64

// waiting is an acquire that may wait, under a name that is its process's.
func waiting(resource, process string) lock.Acquire {
	return lock.Acquire{
		Resource: resource, ProcessID: process, RequestID: "of " + process,
		Wait: time.Minute, Connection: connections.Add(1), QueueLimit: 1 << 20,
	}
}

// enqueue executes an acquire that has to wait.
func enqueue(tb testing.TB, s *store.Store, c lock.Acquire) lock.Outcome {
	tb.Helper()
	out := execute(tb, s, c)
	if out.Hold.Token != 0 {
		tb.Fatalf("%s does not wait, it was granted %+v", c.ProcessID, out.Hold)
	}
	return out
}

// processes returns who waits, in the order in which the store tells it, page by page.
func processes(tb testing.TB, s *store.Store, resource string) []string {
	tb.Helper()
	var names []string
	for after, at := int64(0), 1; ; {
		page, position, _, err := s.Queue(context.Background(), resource, after, 7)
		if err != nil {
			tb.Fatal(err)
		}
		if len(page) == 0 {
			return names
		}
		if position != at {
			tb.Errorf("a page begins at the position %d, want %d", position, at)
		}
		for _, w := range page {
			if w.Ticket <= after {
				tb.Errorf("ticket %d comes after %d", w.Ticket, after)
			}
			names, after = append(names, w.Request.ProcessID), w.Ticket
			at++
		}
	}
}

// number returns what a statement counts.
func number(tb testing.TB, db *sql.DB, statement string) int {
	tb.Helper()
	var n int
	if err := db.QueryRowContext(context.Background(), statement).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
	return n
}

// release executes a release and returns what it handed on.
func release(tb testing.TB, s *store.Store, resource, process string) []lock.Grant {
	tb.Helper()
	return execute(tb, s, lock.Release{Resource: resource, ProcessID: process}).Granted
}

// TestQueueIsServedInItsOrder, which is the one in which it is told, whatever batches the waiters came in, and one by one.
func TestQueueIsServedInItsOrder(t *testing.T) {
	t.Parallel()
	const many = 120
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
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

// TestWaiterSurvives: what was asked for is what is granted, however long that takes.
func TestWaiterSurvives(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		plain, full := waiting("r", "plain"), waiting("r", `p"'; --`)
		full.RequestID, full.TTL, full.MinHold = `日本 "'`, 90*time.Second+time.Microsecond, time.Microsecond
		full.Reason, full.Metadata = "why 🔒\u2028", `{"z":1.10,"a":{"b":[null,9007199254740993]}}`
		wants := map[string]lock.Acquire{plain.ProcessID: plain, full.ProcessID: full}
		since := map[string]time.Time{}
		for _, c := range []lock.Acquire{plain, full} {
			since[c.ProcessID] = enqueue(t, s, c).Now
		}

		queue, position, now, err := s.Queue(t.Context(), "r", 0, 10)
		if err != nil || len(queue) != 2 || position != 1 || now.Before(since[full.ProcessID]) {
			t.Fatalf("queue %+v from %d at %v, %v", queue, position, now, err)
		}
		stored := cmpopts.IgnoreFields(lock.Acquire{}, "Wait", "QueueLimit") // matter only to the asking server
		for i, c := range []lock.Acquire{plain, full} {
			want := &lock.Waiter{Ticket: queue[i].Ticket, Request: c, Since: since[c.ProcessID], Here: true}
			if diff := cmp.Diff(want, queue[i], stored, cmpopts.IgnoreFields(lock.Waiter{}, "AliveUntil")); diff != "" {
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
				ProcessID: c.ProcessID, Token: g.Hold.Token, LockedAt: g.Now, QueuedAt: since[c.ProcessID], Connection: c.Connection,
				RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
			}
			if c.TTL > 0 {
				want.ExpiresAt, want.MinHoldUntil = g.Now.Add(c.TTL), g.Now.Add(c.MinHold)
			}
			if diff := cmp.Diff(want, g.Hold); diff != "" {
				t.Errorf("hold (-want +got):\n%s", diff)
			}
			r, _, err := s.Find(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]lock.Hold{g.Hold}, r.Holds); diff != "" {
				t.Errorf("stored hold (-granted +stored):\n%s", diff)
			}
			delete(wants, c.ProcessID)
			holder = c.ProcessID
		}
	})
}

// look is a command that sees what the store loads for it, and changes nothing.
type look struct {
	resource string
	places   []lock.Place
	seen     *lock.Resource
}

var errLooked = errors.New("only looked")

func (c look) Resources() []string  { return []string{c.resource} }
func (c look) Places() []lock.Place { return c.places }

func (c look) Decide(_ time.Time, before []lock.Resource) (lock.Outcome, error) {
	*c.seen = before[0]
	return lock.Outcome{}, errLooked
}

// loaded returns the processes of the waiters that are loaded for a command.
func loaded(tb testing.TB, s *store.Store, resource string, places ...lock.Place) []string {
	tb.Helper()
	var r lock.Resource
	if _, err := s.Execute(context.Background(), look{resource, places, &r}); !errors.Is(err, errLooked) {
		tb.Fatal(err)
	}
	names := []string{}
	for _, w := range r.Queue {
		names = append(names, w.Request.ProcessID)
	}
	return names
}

// TestLongQueueIsNotLoaded: of thousands that wait a command gets the few first, and the places that it names.
func TestLongQueueIsNotLoaded(t *testing.T) {
	t.Parallel()
	const many = 3000
	onBoth(t, func(t *testing.T, cfg store.Config) {
		cfg.MaxQueue = 2 * many
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
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
		first, _, _, err := s.Queue(t.Context(), "r", 0, many)
		if err != nil || len(first) != many {
			t.Fatalf("%d wait, %v", len(first), err)
		}
		name := func(i int) string { return first[i].Request.ProcessID }
		place := func(i int) lock.Place {
			return lock.Place{Resource: "r", ProcessID: name(i), RequestID: "of " + name(i)}
		}

		if got := loaded(t, s, "r"); len(got) > 5 || !slices.Equal(got[:2], []string{name(0), name(1)}) {
			t.Errorf("loaded %q, want only some of the first", got)
		}
		got := loaded(t, s, "r", place(2000), place(0), lock.Place{Resource: "r", ProcessID: name(2000), RequestID: "unknown"})
		if len(got) > 6 || got[0] != name(0) || got[len(got)-1] != name(2000) || slices.Compact(got)[0] != got[0] {
			t.Errorf("loaded %q, want the first and %s", got, name(2000))
		}
		// A request deep in the queue can leave it, and come back to it.
		execute(t, s, lock.Leave{Request: first[2500].Request, Gone: true, Keep: time.Hour})
		if r, _, err := s.Find(t.Context(), "r"); err != nil || r.Waiters != many-1 || r.Away != 1 {
			t.Errorf("%d wait, %d are away, %v", r.Waiters, r.Away, err)
		}
		again := waiting("r", name(2500))
		enqueue(t, s, again)
		queue, position, _, err := s.Queue(t.Context(), "r", first[2499].Ticket, 1)
		if err != nil || position != 2501 || queue[0].Ticket != first[2500].Ticket || queue[0].Request.Connection != again.Connection {
			t.Errorf("it came back to the position %d: %+v, %v", position, queue, err)
		}
		execute(t, s, lock.Leave{Request: first[1000].Request, Gone: true})
		if granted := release(t, s, "r", "p"); len(granted) != 1 || granted[0].Hold.ProcessID != name(0) {
			t.Errorf("granted %+v", granted)
		}
		if r, _, err := s.Find(t.Context(), "r"); err != nil || r.Waiters != many-2 || r.Away != 0 {
			t.Errorf("%d wait, %d are away, %v", r.Waiters, r.Away, err)
		}
	})
}

// queueStatements returns the statements that load queues, as they stand in the source.
func queueStatements(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set, files := token.NewFileSet(), []*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	// Its imports are unknown here, but constants are known without them.
	_, _ = (&types.Config{Error: func(error) {}}).Check("store", set, files, &info)
	found := map[string]string{}
	for _, file := range files {
		ast.Inspect(file, func(node ast.Node) bool {
			pair, ok := node.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if key, ok := pair.Key.(*ast.Ident); ok && key.Name == "queues" && info.Types[pair.Value].Value != nil {
				driver := strings.TrimSuffix(filepath.Base(set.Position(pair.Pos()).Filename), ".go")
				found[driver] = constant.StringVal(info.Types[pair.Value].Value)
			}
			return true
		})
	}
	if len(found) != 2 {
		t.Fatalf("statements of %d dialects found", len(found))
	}
	return found
}

// TestQueuesAreReadByTheirIndexes, and only as far as it is asked for.
func TestQueuesAreReadByTheirIndexes(t *testing.T) {
	t.Parallel()
	statements := queueStatements(t)
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		id := enqueue(t, s, waiting("r", "w")).Changed[0].ID
		places := fmt.Sprintf(`[{"resource_id":%d,"process_id":"w","request_id":"of w"}]`, id)
		arguments := []string{fmt.Sprintf("'[%d]'", id), "1", "'2026-01-01 00:00:00.000000'", "3", "'" + places + "'"}
		statement := statements[cfg.Driver]
		for _, argument := range arguments {
			statement = strings.Replace(statement, "?", argument, 1)
		}
		db := connect(t, cfg)
		explain := "EXPLAIN QUERY PLAN "
		if cfg.Driver == store.Postgres {
			explain = "EXPLAIN "
			run(t, cfg, fmt.Sprintf(`INSERT INTO lock_waiters SELECT %d, n, 1, n, 'p' || n, 'q' || n, now(), NULL, 0, 0
				FROM generate_series(1, 50000) AS n; ANALYZE`, id)) // MAX_WAITERS of a server
		}
		rows, err := db.QueryContext(t.Context(), explain+statement)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var plan strings.Builder
		for rows.Next() {
			var line string
			targets := []any{new(int), new(int), new(int), &line}
			if cfg.Driver == store.Postgres {
				targets = targets[3:]
			}
			if err := rows.Scan(targets...); err != nil {
				t.Fatal(err)
			}
			plan.WriteString(line + "\n")
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		wants := map[string][]string{
			store.SQLite:   {"SEARCH w USING PRIMARY KEY (resource_id=?)", "lock_waiters_request (resource_id=? AND request_id=? AND process_id=?)"},
			store.Postgres: {"Limit", "using lock_waiters_pkey", "Index Cond: ((resource_id = p.resource_id) AND (request_id = p.request_id)"},
		}
		for _, want := range wants[cfg.Driver] {
			if !strings.Contains(plan.String(), want) {
				t.Errorf("no %q in the plan:\n%s", want, &plan)
			}
		}
		for _, never := range []string{"Seq Scan on lock_waiters", "SCAN lock_waiters", "AUTOMATIC"} {
			if strings.Contains(plan.String(), never) {
				t.Errorf("%q in the plan:\n%s", never, &plan)
			}
		}
		// Sorted is only what was found, never the queue: two sorts make the union, one the order.
		if n := strings.Count(plan.String(), "TEMP B-TREE"); n > 3 {
			t.Errorf("%d sorts in the plan:\n%s", n, &plan)
		}
	})
}

// gate is a command that keeps the store busy until it is opened, so that what comes meanwhile shares a transaction.
type gate struct{ entered, open chan struct{} }

func (c gate) Resources() []string { return []string{"gate"} }

func (c gate) Decide(time.Time, []lock.Resource) (lock.Outcome, error) {
	close(c.entered)
	<-c.open
	return lock.Outcome{}, errLooked
}

// TestQueuedAndGrantedInOneTransaction leaves no row behind, and its counts are right.
func TestQueuedAndGrantedInOneTransaction(t *testing.T) {
	t.Parallel()
	const crowd = 20
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		var commits atomic.Int64
		s.Watch(func(lock.Commit) { commits.Add(1) })
		for i := range crowd {
			execute(t, s, lock.Acquire{Resource: fmt.Sprint("r", i), ProcessID: "p"})
		}
		closed := gate{make(chan struct{}), make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Execute(context.Background(), closed) })
		<-closed.entered
		before := commits.Load()
		for i := range crowd {
			name := fmt.Sprint("r", i)
			for _, c := range []lock.Command{waiting(name, "a"), waiting(name, "b"), lock.Release{Resource: name, ProcessID: "p"}} {
				wg.Go(func() {
					if _, err := s.Execute(context.Background(), c); err != nil {
						t.Error(err)
					}
				})
			}
		}
		close(closed.open)
		wg.Wait()
		if n := commits.Load() - before; n > crowd {
			t.Errorf("%d transactions for %d resources: nothing was shared", n, crowd)
		}
		wantCounts(t, cfg)
		for i := range crowd {
			r, now, err := s.Find(t.Context(), fmt.Sprint("r", i))
			if holder, held := r.Holder(now); err != nil || !held || holder.ProcessID == "p" || r.Waiters != 1 {
				t.Errorf("%+v, %v: want it held by one, and the other waiting", r, err)
			}
		}
	})
}

// wantCounts fails the test unless the counts in the resources' rows are those of the queues' table.
func wantCounts(t *testing.T, cfg store.Config) (waiters int) {
	t.Helper()
	db := connect(t, cfg)
	rows, err := db.QueryContext(t.Context(), `SELECT r.resource_name, r.waiters, r.away,
			(SELECT count(*) FROM lock_waiters w WHERE w.resource_id = r.id AND w.away_until IS NULL),
			(SELECT count(*) FROM lock_waiters w WHERE w.resource_id = r.id AND w.away_until IS NOT NULL)
		FROM resource_locks r`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var counted, away, wantCounted, wantAway int
		if err := rows.Scan(&name, &counted, &away, &wantCounted, &wantAway); err != nil {
			t.Fatal(err)
		}
		if counted != wantCounted || away != wantAway {
			t.Errorf("%s counts %d waiters and %d away, the table has %d and %d", name, counted, away, wantCounted, wantAway)
		}
		waiters += wantCounted + wantAway
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if orphans := number(t, db, "SELECT count(*) FROM lock_waiters WHERE resource_id NOT IN (SELECT id FROM resource_locks)"); orphans != 0 {
		t.Errorf("%d places in queues of no resource", orphans)
	}
	return waiters
}

// TestCountsAreTrue, whatever happens at the same time.
func TestCountsAreTrue(t *testing.T) {
	t.Parallel()
	const clients, rounds, resources = 16, 60, 3
	onBoth(t, func(t *testing.T, cfg store.Config) {
		stores := []*store.Store{open(t, cfg)}
		if cfg.Driver == store.Postgres {
			stores = append(stores, open(t, cfg))
		}
		var wg sync.WaitGroup
		for client := range clients {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			wg.Go(func() {
				s := stores[client%len(stores)]
				for range rounds {
					c := waiting(fmt.Sprint("r", random.IntN(resources)), fmt.Sprint("p", random.IntN(clients)))
					c.TTL = time.Duration(random.IntN(3)) * time.Millisecond
					commands := []lock.Command{
						c, c, c,
						lock.Acquire{Resource: c.Resource, ProcessID: c.ProcessID},
						lock.Release{Resource: c.Resource, ProcessID: c.ProcessID},
						lock.ForceRelease{Resource: c.Resource, Reason: "x", By: "y"},
						lock.Settle{Names: []string{"r0", "r1", "r2"}},
						lock.Vacate{Gone: c.Places()},
						lock.Forget{Names: []string{c.Resource}, Before: time.Now().Add(time.Hour)},
					}
					out, err := s.Execute(context.Background(), commands[random.IntN(len(commands))])
					if i := slices.IndexFunc(queueOf(out), func(w *lock.Waiter) bool { return w.Request.Connection == c.Connection }); i >= 0 {
						if random.IntN(2) == 0 {
							_, err = s.Execute(context.Background(), lock.Leave{
								Request: c, Gone: random.IntN(2) == 0, Ticket: queueOf(out)[i].Ticket, Keep: time.Duration(random.IntN(3)) * time.Millisecond,
							})
						}
					}
					var held *lock.HeldError
					var notHeld *lock.NotHeldError
					var notLocked *lock.NotLockedError
					if err != nil && !errors.As(err, &held) && !errors.As(err, &notHeld) && !errors.As(err, &notLocked) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if wantCounts(t, cfg) == 0 {
			t.Error("nobody waits in the end, so nothing was counted")
		}
	})
}

// queueOf is what an outcome shows of the queue that it is about.
func queueOf(out lock.Outcome) []*lock.Waiter {
	if len(out.Changed) != 1 {
		return nil
	}
	return out.Changed[0].Queue
}

// TestNobodyIsToldOfAHoldWithoutAQueue: a request that had a place, lost it, asked again and was granted the resource at
// once, and whose client is gone when that is to be told: the hold must end.
func TestNobodyIsToldOfAHoldWithoutAQueue(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		c := waiting("r", "p")
		if out := execute(t, s, c); out.Hold.Token == 0 || !out.Hold.QueuedAt.IsZero() {
			t.Fatalf("granted %+v", out.Hold)
		}
		if _, err := s.Execute(t.Context(), lock.Leave{Request: c, Ticket: 7, Keep: time.Hour, Gone: true}); err != nil {
			t.Error(err)
		}
		if r, now, err := s.Find(t.Context(), "r"); err != nil || len(r.Holds) > 0 {
			t.Errorf("still held at %v: %+v, %v", now, r.Holds, err)
		}
	})
}

// TestWaitingOnThisServer tells which of its own requests wait, and which of them for nothing.
func TestWaitingOnThisServer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		asked := map[string]lock.Acquire{}
		for _, name := range []string{"held", "long", "expired", "left", "granted"} {
			ttl := map[string]time.Duration{"expired": 50 * time.Millisecond, "long": time.Hour}[name]
			execute(t, s, lock.Acquire{Resource: name, ProcessID: "p", TTL: ttl})
			asked[name] = waiting(name, "w")
			if out := execute(t, s, asked[name]); out.Hold.Token != 0 && name != "expired" {
				t.Fatalf("granted %+v", out)
			}
		}
		execute(t, s, lock.Leave{Request: asked["left"], Gone: true, Keep: time.Hour})
		release(t, s, "granted", "p")
		var got []lock.Waiting
		eventually(t, "a moment is over", func() bool {
			var err error
			if got, err = s.Waiting(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b lock.Waiting) int { return strings.Compare(a.Request.Resource, b.Request.Resource) })
			return len(got) != 3 || got[0].Free
		})
		want := []lock.Waiting{{Request: asked["expired"], Free: true}, {Request: asked["held"]}, {Request: asked["long"]}}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(lock.Acquire{}, "Wait", "QueueLimit")); diff != "" {
			t.Errorf("waiting (-want +got):\n%s", diff)
		}
		free, err := s.Waiting(t.Context(), true)
		if diff := cmp.Diff(got[:1], free); diff != "" || err != nil {
			t.Errorf("waiting for free ones (-want +got), %v:\n%s", err, diff)
		}
	})
}

// TestPlaceAfterARestart: a SQLite server that was ended has nobody connected any more, but who repeats a request finds
// its place.
func TestPlaceAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	clock := newClocks(&cfg, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
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
		t.Errorf("%q wait, but nobody can be there", got)
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
		if left, err := s.Left(t.Context(), keep, 10); err != nil || len(left) != want {
			t.Errorf("kept for %v: %+v, %v, want %d left", keep, left, err, want)
		}
	}
}

// TestWatchIsTold what every transaction means for those who wait, before Execute returns.
func TestWatchIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		var told []lock.Commit
		s.Watch(func(c lock.Commit) { told = append(told, c) })
		execute(t, s, lock.Acquire{Resource: "nobody waits", ProcessID: "p"})
		held := execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Hour})
		if len(told) != 0 {
			t.Errorf("told %+v, though nobody waits", told)
		}
		start := time.Now()
		first, second := waiting("r", "a"), waiting("r", "b")
		out := enqueue(t, s, first)
		if len(told) != 1 || len(told[0].Granted) != 0 || told[0].Unknown || !told[0].Now.Equal(out.Now) ||
			told[0].Read.Before(start) || told[0].Read.After(time.Now()) {
			t.Fatalf("told %+v", told)
		}
		if diff := cmp.Diff(out.Changed, told[0].Awaited); diff != "" {
			t.Errorf("awaited (-changed +told):\n%s", diff)
		}
		enqueue(t, s, second)
		// A refusal tells of the resource too: its next moment may be set anew.
		if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"}); !errors.As(err, new(*lock.HeldError)) {
			t.Fatal(err)
		}
		if last := told[len(told)-1]; len(told) != 3 || len(last.Awaited) != 1 || !last.Awaited[0].Due(last.Now).Equal(held.Hold.ExpiresAt) {
			t.Errorf("told %+v", told)
		}
		for i, holder := range []string{"p", "a"} {
			told = nil
			granted := release(t, s, "r", holder)
			if diff := cmp.Diff(granted, told[0].Granted); diff != "" || len(told) != 1 || len(granted) != 1 {
				t.Errorf("release %d (-outcome +told):\n%s", i, diff)
			}
			if r := told[0].Awaited; len(r) != 1 || r[0].Waiters != 1-i { // also of the last: so that its timer ends
				t.Errorf("release %d: awaited %+v", i, r)
			}
		}
		told = nil
		release(t, s, "r", "b")
		if len(told) != 0 {
			t.Errorf("told %+v, though nobody waits any more", told)
		}
	})
}

// asJSON is for a failure's message.
func asJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
