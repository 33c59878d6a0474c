package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/testdb"
)

// TestQueue runs the scenarios of a queue with every way in which servers learn of each
// other's changes.
func TestQueue(t *testing.T) {
	scenarios := map[string]func(t *testing.T, f fleet, resource string){
		"first come first served":      firstComeFirstServed,
		"newcomers do not overtake":    newcomersDoNotOvertake,
		"expiry hands over":            expiryHandsOver,
		"disconnects at random":        randomDisconnects,
		"disconnect during the grant":  disconnectDuringGrant,
		"cut off and back":             cutOffAndBack,
		"cut off again and again":      cutOffAgainAndAgain,
		"wait is over":                 waitIsOver,
		"repeated after a lost answer": repeatedAfterALostAnswer,
	}
	onFleets(t, func(t *testing.T, f fleet) {
		for name, scenario := range scenarios {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				scenario(t, f, name)
			})
		}
		// The sweeper grants nothing. The log shows which disconnected requests were
		// answered.
	}, "SWEEP_INTERVAL=1h", "LOG_LEVEL=debug")
}

// firstComeFirstServed checks the order of grants across servers, for every way to end a
// hold.
func firstComeFirstServed(t *testing.T, f fleet, resource string) {
	h := f.at(0).acquire(t, resource, "holder")
	waiters := f.enqueue(t, resource, 12)
	for i, w := range waiters {
		s := f.at(i/2 + 1)
		query := url.Values{"resource_name": {resource}, "process_id": {h.process}, "reason": {"test"}}
		path := []string{"/locks/release", "/locks/force-release", "/locks/release-all"}[i%3]
		if r := s.do(t, http.MethodDelete, path+"?"+query.Encode(), nil); r.Status != http.StatusOK {
			t.Fatalf("%s: %+v", path, r)
		}
		next := w.granted(t)
		if next.token <= h.token {
			t.Errorf("%s has token %.0f after %.0f", w.process, next.token, h.token)
		}
		var left []string
		for _, later := range waiters[i+1:] {
			if later.isDone() {
				t.Fatalf("%s was answered before its turn: %+v, %v", later.process, later.reply, later.err)
			}
			left = append(left, later.process)
		}
		f.at(i+2).wantQueue(t, resource, left...)
		f.at(i+1).wantHeld(t, []hold{next})
		h = next
	}
	f.at(0).release(t, h)
	f.at(1).awaitFree(t, resource)
}

// newcomersDoNotOvertake checks that while a request waits, a request that does not wait
// gets nothing, and one that waits is granted the lock after the earlier ones.
func newcomersDoNotOvertake(t *testing.T, f fleet, resource string) {
	h := f.at(0).acquire(t, resource, "holder")
	waiters := f.enqueue(t, resource, 4)

	var hammers sync.WaitGroup
	var quit atomic.Bool
	var mu sync.Mutex
	answers := map[string]int{}
	for i := range 2 * len(f) {
		hammers.Go(func() {
			for !quit.Load() {
				r, err := f.at(i).try(http.MethodPost, "/locks/request",
					acquisition(resource, fmt.Sprint("newcomer ", i)))
				mu.Lock()
				if err != nil {
					answers[err.Error()]++
				} else {
					answers[r.Code]++
				}
				mu.Unlock()
				if err != nil || r.Status != http.StatusConflict {
					t.Errorf("a newcomer got %+v, %v", r, err)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		quit.Store(true)
		hammers.Wait()
	})
	for turn := range 20 { // one more waiter is always queued before the last one is granted the lock
		f.at(turn).release(t, h)
		h = waiters[0].granted(t)
		waiters = append(waiters[1:], f.at(turn).wait(t, waiting(resource, fmt.Sprint("later ", turn))))
		var names []string
		for _, w := range waiters {
			names = append(names, w.process)
		}
		f.at(turn).awaitQueue(t, resource, names...)
	}
	quit.Store(true)
	hammers.Wait()
	t.Logf("newcomers got %v", answers)
	if answers["already_locked"] == 0 {
		t.Error("no newcomer was refused because of a holder")
	}
	f.drain(t, h, waiters...)
}

// expiryHandsOver checks that an expired hold is granted to the next waiter soon after
// its end and not before, whichever servers granted and renewed it.
func expiryHandsOver(t *testing.T, f fleet, resource string) {
	const soon = 1500 * time.Millisecond
	tests := map[string]struct {
		ttl     time.Duration
		renewed time.Duration // while another waits; 0: not at all
		servers [3]int        // of the request, of the renewal, and of the other waiter
	}{
		"on one server":                   {500 * time.Millisecond, 0, [3]int{1, 0, 1}},
		"the holder asked another":        {500 * time.Millisecond, 0, [3]int{0, 0, 1}},
		"renewed for longer by another":   {time.Second, 1300 * time.Millisecond, [3]int{1, 0, 1}},
		"renewed for longer by a third":   {time.Second, 1300 * time.Millisecond, [3]int{0, 2, 1}},
		"renewed for less time":           {time.Hour, 300 * time.Millisecond, [3]int{1, 1, 1}},
		"renewed for less time elsewhere": {time.Hour, 300 * time.Millisecond, [3]int{0, 2, 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			name := resource + ", " + name
			r := f.at(test.servers[0]).do(t, http.MethodPost, "/locks/request", expiring(name, "holder", test.ttl))
			w := f.at(test.servers[2]).wait(t, waiting(name, "waiter"))
			if test.renewed > 0 {
				f.at(test.servers[1]).awaitQueue(t, name, "waiter")
				r = f.at(test.servers[1]).do(t, http.MethodPost, "/locks/renew", expiring(name, "holder", test.renewed))
			}
			expiry := timeIn(t, r, "expires_at")
			w.granted(t)
			late := timeIn(t, w.reply, "locked_at").Sub(expiry)
			answered := w.at.Sub(expiry) // the database is on this machine
			t.Logf("granted %v after the expiry, answered after %v", late, answered)
			if late < 0 || answered > soon {
				t.Errorf("granted %v after the expiry, answered after %v, want within %v", late, answered, soon)
			}
		})
	}
}

// cutOffAndBack checks that a disconnected client delays no other one, and that its retry
// gets its old place on any server.
func cutOffAndBack(t *testing.T, f fleet, resource string) {
	h := f.at(0).acquire(t, resource, "holder")
	cut := f.at(0).wait(t, named(resource, "cut", "its request"))
	f.at(0).awaitQueue(t, resource, "cut")
	second := f.at(1).wait(t, waiting(resource, "second"))
	f.at(0).awaitQueue(t, resource, "cut", "second")
	third := f.at(2).wait(t, waiting(resource, "third"))
	f.at(0).awaitQueue(t, resource, "cut", "second", "third")

	cut.disconnect()
	f.at(1).awaitQueue(t, resource, "second", "third")
	f.at(1).release(t, h)
	h = second.granted(t)

	// Another process may use the same request_id.
	stranger := f.at(1).wait(t, named(resource, "stranger", "its request"))
	f.at(1).awaitQueue(t, resource, "third", "stranger")
	back := f.at(1).wait(t, named(resource, "cut", "its request"))
	f.at(0).awaitQueue(t, resource, "cut", "third", "stranger")
	f.drain(t, h, back, third, stranger)
	if !queuedAt(t, back.reply).Before(queuedAt(t, second.reply)) {
		t.Error("its wait counts from the retry, not from the first request")
	}
}

// cutOffAgainAndAgain has a proxy that cuts every connection after a short time. A client
// that retries its request keeps its place.
func cutOffAgainAndAgain(t *testing.T, f fleet, resource string) {
	var proxies []*client
	const cuts = 8
	done := make(chan struct{}, 2*cuts)
	for _, s := range f {
		proxies = append(proxies, newClient(t, throughCutter(t, s.url, 40*time.Millisecond, done)))
	}
	h := f.at(0).acquire(t, resource, "holder")
	body := named(resource, "cut", "its request")
	cut := f.at(0).wait(t, body)
	f.at(0).awaitQueue(t, resource, "cut")
	second := f.at(1).wait(t, waiting(resource, "second"))
	f.at(0).awaitQueue(t, resource, "cut", "second")
	cut.disconnect()
	for i := range cuts {
		cut.end(t)
		if cut.err == nil {
			t.Fatalf("the connection was not cut: %+v", cut.reply)
		}
		cut = proxies[i%len(proxies)].wait(t, body)
	}
	cut.end(t)
	for range cuts { // a retry that comes too late would get a place behind the next waiter
		<-done
	}
	f.at(0).wantQueue(t, resource, "second")
	back := f.at(1).wait(t, body)
	f.at(0).awaitQueue(t, resource, "cut", "second")
	f.drain(t, h, back, second)
}

// repeatedAfterALostAnswer checks that a retry after a lost answer gets the same hold,
// also if the request waited.
func repeatedAfterALostAnswer(t *testing.T, f fleet, resource string) {
	h := f.at(0).acquire(t, resource, "holder")
	w := f.at(0).wait(t, named(resource, "p", "its request"))
	f.at(1).awaitQueue(t, resource, "p")
	f.at(1).release(t, h)
	granted := w.granted(t)
	for i := range 2 {
		if again := f.at(i+1).wait(t, named(resource, "p", "its request")).granted(t); again != granted {
			t.Errorf("the retry got %+v, want %+v", again, granted)
		}
	}
	f.drain(t, granted)
}

// waitIsOver checks that a request that times out is answered with the holder, and has no
// place any more.
func waitIsOver(t *testing.T, f fleet, resource string) {
	h := f.at(0).acquire(t, resource, "holder")
	for i, body := range []map[string]any{acquisition(resource, "p"), named(resource, "p", "its request")} {
		body["wait_seconds"] = 0.2
		r := f.at(i+1).wait(t, body).answer(t)
		if r.Status != http.StatusConflict || r.Code != "wait_timeout" || r.Holder["process_id"] != "holder" {
			t.Errorf("got %+v", r)
		}
		f.at(i).wantQueue(t, resource)
	}
	f.drain(t, h)
}

// TestPlaceIsKeptForAWhile checks that a place is kept for KEEP_PLACE and not longer.
func TestPlaceIsKeptForAWhile(t *testing.T) {
	onFleets(t, func(t *testing.T, f fleet) {
		h := f.at(0).acquire(t, "r", "holder")
		cut := f.at(0).wait(t, named("r", "cut", "its request"))
		f.at(1).awaitQueue(t, "r", "cut")
		second := f.at(1).wait(t, waiting("r", "second"))
		f.at(0).awaitQueue(t, "r", "cut", "second")
		cut.disconnect()
		f.at(1).awaitQueue(t, "r", "second")
		<-time.After(50 * time.Millisecond)
		back := f.at(1).wait(t, named("r", "cut", "its request"))
		f.at(0).awaitQueue(t, "r", "second", "cut")
		f.drain(t, h, second, back)
	}, "KEEP_PLACE=50ms", "SWEEP_INTERVAL=1h")
}

// TestRequestOnTwoConnections makes one request on two connections. The later one has the
// place, and the earlier one is superseded. The queue has one waiter.
func TestRequestOnTwoConnections(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		f := startFleet(t, databaseURL, serversOn(databaseURL), "RECHECK_INTERVAL=100ms")
		// both returns the two requests, the older one first, and a waiter behind them.
		both := func(resource string) (older, newer, later *waiter) {
			older = f.at(0).wait(t, named(resource, "p", "its request"))
			f.at(1).awaitQueue(t, resource, "p")
			later = f.at(0).wait(t, waiting(resource, "later"))
			f.at(1).awaitQueue(t, resource, "p", "later")
			newer = f.at(1).wait(t, named(resource, "p", "its request"))
			return older, newer, later
		}
		wantSuperseded := func(w *waiter) {
			t.Helper()
			if r := w.answer(t); r.Status != http.StatusConflict || r.Code != "superseded" {
				t.Errorf("the older connection got %+v", r)
			}
		}
		t.Run("both stay connected", func(t *testing.T) {
			h := f.at(0).acquire(t, "a", "holder")
			older, newer, later := both("a")
			wantSuperseded(older)
			f.at(0).wantQueue(t, "a", "p", "later")
			f.at(0).release(t, h)
			h = newer.granted(t)
			if again := f.at(0).wait(t, named("a", "p", "its request")).granted(t); again != h {
				t.Errorf("the retry got %+v, want %+v", again, h)
			}
			f.drain(t, h, later)
		})
		t.Run("the older one disconnects", func(t *testing.T) {
			h := f.at(0).acquire(t, "b", "holder")
			older, newer, later := both("b")
			wantSuperseded(older)
			older.disconnect()
			f.at(0).wantQueue(t, "b", "p", "later")
			f.drain(t, h, newer, later)
		})
		t.Run("the newer one disconnects", func(t *testing.T) {
			h := f.at(0).acquire(t, "c", "holder")
			older, newer, later := both("c")
			wantSuperseded(older)
			newer.disconnect()
			f.at(0).awaitQueue(t, "c", "later")
			back := f.at(0).wait(t, named("c", "p", "its request"))
			f.at(0).awaitQueue(t, "c", "p", "later")
			f.drain(t, h, back, later)
		})
		t.Run("the lock is free", func(t *testing.T) {
			h := f.at(0).acquire(t, "d", "holder")
			older, newer, later := both("d")
			f.at(0).release(t, h)
			// The one that has the place is answered first. The other one is answered
			// with the same hold, or was superseded.
			await(t, "holder", any("p"), func() any { return f.at(0).status(t, "d").Data["locked_by"] })
			granted := 0
			for _, w := range []*waiter{older, newer} {
				if r := w.answer(t); r.Status == http.StatusOK {
					granted++
					h = w.granted(t)
				} else if r.Code != "superseded" {
					t.Errorf("got %+v", r)
				}
			}
			if granted == 0 {
				t.Fatal("no request was answered with the hold")
			}
			f.drain(t, h, later)
		})
	})
}

// serversOn returns the maximum number of servers on a database.
func serversOn(databaseURL string) int {
	if strings.HasPrefix(databaseURL, "postgres") {
		return 2
	}
	return 1
}

// TestQueueIsBounded checks that no server accepts a waiter into a full queue, and that
// each waiter that leaves makes room for one.
func TestQueueIsBounded(t *testing.T) {
	onFleets(t, func(t *testing.T, f fleet) {
		h := f.at(0).acquire(t, "r", "holder")
		waiters := f.enqueue(t, "r", 3)
		for i := range f {
			wantQueueFull(t, f[i], "r")
			if r := f[i].request(t, "r", "newcomer"); r.Status != http.StatusConflict {
				t.Errorf("a request that does not wait got %+v", r)
			}
		}
		f.at(0).wantQueue(t, "r", "waiter 0", "waiter 1", "waiter 2")

		waiters[1].disconnect()
		f.at(0).awaitQueue(t, "r", "waiter 0", "waiter 2")
		late := f.at(0).wait(t, waiting("r", "late"))
		f.at(1).awaitQueue(t, "r", "waiter 0", "waiter 2", "late")
		wantQueueFull(t, f.at(1), "r")
		f.drain(t, h, waiters[0], waiters[2], late)
	}, "MAX_WAITERS_PER_RESOURCE=3")
}

// TestWaitersOfOneServerAreBounded checks that a server with the maximum number of
// waiters refuses further ones, and that another server accepts them.
func TestWaitersOfOneServerAreBounded(t *testing.T) {
	t.Parallel()
	f := startFleet(t, testdb.Postgres(t), 2, "MAX_WAITERS=2")
	var holds []hold
	var waiters []*waiter
	for _, resource := range []string{"a", "b", "c"} {
		holds = append(holds, f[0].acquire(t, resource, "holder"))
	}
	for _, resource := range []string{"a", "b"} {
		waiters = append(waiters, f[0].wait(t, waiting(resource, "p")))
		f[0].awaitQueue(t, resource, "p")
	}
	wantQueueFull(t, f[0], "c")
	free := f[0].wait(t, waiting("free", "p")).granted(t) // it need not wait
	waiters = append(waiters, f[1].wait(t, waiting("c", "p")))
	f[0].awaitQueue(t, "c", "p")
	for i, h := range holds {
		f.drain(t, h, waiters[i])
	}
	f[0].wait(t, waiting("a", "p")).granted(t)
	f[0].release(t, free)
}

func wantQueueFull(t *testing.T, s *server, resource string) {
	t.Helper()
	r := s.wait(t, waiting(resource, "one too many")).answer(t)
	if r.Status != http.StatusServiceUnavailable || r.Code != "queue_full" || r.Header.Get("Retry-After") == "" {
		t.Errorf("the request above the maximum got %+v", r)
	}
}

// grantLog records the grants of clients, to check their order.
type grantLog struct {
	mu     sync.Mutex
	inside int
	grants []reply
}

// begin records a grant as soon as the client has it. end is called before the release.
func (s *grantLog) begin(tb testing.TB, r reply) {
	s.beginOutOfOrder(tb)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = append(s.grants, r)
}

// beginOutOfOrder is begin for a grant that may have been late.
func (s *grantLog) beginOutOfOrder(tb testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside++; s.inside > 1 {
		tb.Errorf("%d hold the lock at once", s.inside)
	}
}

func (s *grantLog) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
}

// wantInOrder checks that the grants have the order in which the requests were queued.
func (s *grantLog) wantInOrder(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	type turn struct {
		process string
		token   float64
		came    time.Time
	}
	turns := make([]turn, len(s.grants))
	for i, r := range s.grants {
		h, _ := holdOf(r)
		turns[i] = turn{h.process, h.token, queuedAt(tb, r)}
	}
	if !slices.IsSortedFunc(turns, func(a, b turn) int { return int(a.token - b.token) }) {
		tb.Errorf("tokens do not grow: %v", turns)
	}
	if !slices.IsSortedFunc(turns, func(a, b turn) int { return a.came.Compare(b.came) }) {
		sorted := slices.SortedStableFunc(slices.Values(turns), func(a, b turn) int { return a.came.Compare(b.came) })
		tb.Errorf("granted in another order than queued (-queued +granted):\n%s",
			cmp.Diff(sorted, turns, cmp.AllowUnexported(turn{})))
	}
}
