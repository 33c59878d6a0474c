package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// TestShutdownAnswersWaiters stops a server that has waiters. They are answered at
// once. Their places delay no other request, and a retry on another server or after a
// restart gets its old place.
func TestShutdownAnswersWaiters(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		leaving := start(t, databaseURL)
		var other *server
		var later *waiter
		h := leaving.acquire(t, "r", "holder")
		const count = 10
		var bodies []map[string]any
		var names []string
		var waiters []*waiter
		for i := range 2 * count { // every second one has a request_id
			name := fmt.Sprint("waiter ", i)
			body := waiting("r", name)
			if i%2 == 0 {
				body = named("r", name, "its request")
				bodies, names = append(bodies, body), append(names, name)
			}
			w := leaving.wait(t, body)
			waiters = append(waiters, w)
			var all []string
			for _, w := range waiters {
				all = append(all, w.process)
			}
			leaving.awaitQueue(t, "r", all...)
		}
		onPostgres := serversOn(databaseURL) > 1
		if onPostgres {
			other = start(t, databaseURL)
			later = other.wait(t, waiting("r", "later"))
			await(t, "length of the queue", 2*count+1, func() int { return len(other.queue(t, "r")) })
		}

		begun := time.Now()
		leaving.Signal(t, syscall.SIGTERM)
		for _, w := range waiters {
			r := w.answer(t)
			if r.Status != http.StatusServiceUnavailable || r.Code != "shutting_down" ||
				r.Header.Get("Retry-After") == "" {
				t.Errorf("%s got %+v", w.process, r)
			}
		}
		within(t, "from the signal until all waiters were answered", time.Since(begun), 5*time.Second)
		if onPostgres {
			other.wantQueue(t, "r", "later")
		}
		leaving.WantStopped(t)
		within(t, "from the signal until the server had stopped", time.Since(begun), 10*time.Second)

		if !onPostgres {
			other = start(t, databaseURL)
			other.wantQueue(t, "r")
			later = other.wait(t, waiting("r", "later"))
			other.awaitQueue(t, "r", "later")
		}
		back := make([]*waiter, count)
		for _, i := range rand.Perm(count) {
			back[i] = other.wait(t, bodies[i])
		}
		other.awaitQueue(t, "r", append(names, "later")...)
		fleet{other}.drain(t, h, append(back, later)...)
	})
}

// TestShutdownDuringHandovers stops a server while a free lock is reserved for one of its
// waiters. The lock goes to the next waiter.
func TestShutdownDuringHandovers(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	databaseURL := testdb.Postgres(t)
	staying := start(t, databaseURL, "RECHECK_INTERVAL=1h")
	const rounds = 8
	granted := 0
	for round := range rounds {
		leaving := start(t, databaseURL, "RECHECK_INTERVAL=1h")
		resource := fmt.Sprint("round ", round)
		h := staying.acquire(t, resource, "holder")
		first := leaving.wait(t, named(resource, "first", "its request"))
		staying.awaitQueue(t, resource, "first")
		second := staying.wait(t, waiting(resource, "second"))
		staying.awaitQueue(t, resource, "first", "second")

		var releasing sync.WaitGroup
		releasing.Go(func() {
			<-time.After(upTo(random, 15*time.Millisecond))
			staying.release(t, h)
		})
		<-time.After(12 * time.Millisecond)
		leaving.Signal(t, syscall.SIGTERM)
		releasing.Wait()
		r := first.answer(t)
		leaving.WantStopped(t)
		if h, ok := holdOf(r); ok {
			granted++
			fleet{staying}.drain(t, h, second)
			continue
		}
		if r.Code != "shutting_down" {
			t.Errorf("the first waiter got %+v", r)
		}
		h = second.granted(t)
		back := staying.wait(t, named(resource, "first", "its request"))
		fleet{staying}.drain(t, h, back)
	}
	t.Logf("granted before the shutdown: %d of %d", granted, rounds)
}

// TestRollingRestart restarts three servers one after the other while clients take turns
// at one lock. Every client is served, in the order of the queue. The clients only notice
// that they have to use another server.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	databaseURL := testdb.Postgres(t)
	f := startFleet(t, databaseURL, 3)
	var servers [3]atomic.Pointer[server]
	for i := range servers {
		servers[i].Store(f[i])
	}

	const clients = 12
	var served grantLog
	var turns [clients]atomic.Int32
	var sentAway atomic.Int32
	var quit atomic.Bool
	var all sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		process := fmt.Sprint("client ", i)
		// ask repeats a request on one server after the other until one executes it. It
		// reports whether it had to repeat the request.
		ask := func(method, path string, body any) (r reply, repeated, ok bool) {
			for attempts := 0; ; attempts++ {
				r, err := servers[random.IntN(3)].Load().try(method, path, body)
				switch {
				case err == nil && (r.Code != "shutting_down" || r.Status != http.StatusServiceUnavailable):
					return r, attempts > 0, true
				case err != nil && !unanswered(err), attempts == 1000:
					t.Errorf("%s: %+v, %v", process, r, err)
					return r, true, false
				}
				sentAway.Add(1)
				<-time.After(5 * time.Millisecond)
			}
		}
		all.Go(func() {
			for turn := 0; !quit.Load(); turn++ {
				r, repeated, ok := ask(http.MethodPost, "/locks/request",
					named("r", process, fmt.Sprint("turn ", turn)))
				if _, granted := holdOf(r); !ok || !granted {
					t.Errorf("%s requested the lock, got %+v", process, r)
					return
				}
				if repeated { // it may have been disconnected when its turn came
					served.beginOutOfOrder(t)
				} else {
					served.begin(t, r)
				}
				<-time.After(upTo(random, 2*time.Millisecond))
				served.end()
				query := url.Values{"resource_name": {"r"}, "process_id": {process}}
				r, repeated, ok = ask(http.MethodDelete, "/locks/release?"+query.Encode(), nil)
				if !ok || r.Status != http.StatusOK && (!repeated || r.Code != "already_released") {
					t.Errorf("%s released the lock, got %+v", process, r)
					return
				}
				turns[i].Add(1)
			}
		})
	}
	t.Cleanup(func() {
		quit.Store(true)
		all.Wait()
	})
	everybodyServed := func() {
		t.Helper()
		var want [clients]int32
		for i := range turns {
			want[i] = turns[i].Load() + 2
		}
		for i := range turns {
			apptest.Eventually(t, fmt.Sprintf("client %d is served", i),
				func() bool { return t.Failed() || turns[i].Load() >= want[i] })
		}
	}
	everybodyServed()
	for i := range servers {
		old := servers[i].Load()
		old.Stop(t, syscall.SIGTERM)
		servers[i].Store(start(t, databaseURL))
		everybodyServed()
	}
	quit.Store(true)
	all.Wait()
	served.wantInOrder(t)
	f = fleet{servers[0].Load(), servers[1].Load()}
	f[0].wantQueue(t, "r")
	f[1].awaitFree(t, "r")
	t.Logf("%d grants in order, requests repeated %d times", len(served.grants), sentAway.Load())
	if sentAway.Load() == 0 {
		t.Error("no client used a server that was stopping")
	}
}
