package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// deadWithin is the time after which the waiters of a dead server are passed. slack is
// what a busy machine may add.
const (
	deadWithin = 2 * time.Second
	slack      = 2 * time.Second
)

// within logs how long something took, and checks that it took at most limit.
func within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	t.Logf("%s: %v", what, took.Round(100*time.Microsecond))
	if took > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	}
}

// TestKilledServersWaitersArePassedOver kills a server that has waiters. Other waiters
// are granted the lock. A request that can be retried gets its old place from another
// server.
func TestKilledServersWaitersArePassedOver(t *testing.T) {
	t.Parallel()
	for name, atOnce := range map[string]bool{"released at once": true, "released later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, testdb.Postgres(t), 3)
			h := f[0].acquire(t, "r", "holder")
			dead := f[1].wait(t, named("r", "dead", "its request"))
			f[2].awaitQueue(t, "r", "dead")
			f[1].wait(t, waiting("r", "lost"))
			f[2].awaitQueue(t, "r", "dead", "lost")
			second := f[2].wait(t, waiting("r", "second"))
			f[2].awaitQueue(t, "r", "dead", "lost", "second")
			third := f[2].wait(t, waiting("r", "third"))
			f[2].awaitQueue(t, "r", "dead", "lost", "second", "third")

			f[1].Kill(t)
			killed := time.Now()
			if !atOnce {
				f[2].awaitQueue(t, "r", "second", "third")
				within(t, "from the kill until other servers pass its waiters", time.Since(killed), deadWithin+slack)
			}
			f[0].release(t, h)
			released := time.Now()
			if r := f[0].request(t, "r", "newcomer"); r.Status != http.StatusConflict {
				t.Errorf("a newcomer got %+v", r)
			}
			h = second.granted(t)
			if atOnce {
				within(t, "from the kill until the next waiter has the lock", second.at.Sub(killed), deadWithin+slack)
			} else {
				within(t, "from the release until the next waiter has the lock", second.at.Sub(released), slack)
			}
			if dead.end(t); dead.err == nil {
				t.Errorf("a killed server answered %+v", dead.reply)
			}
			back := f[0].wait(t, named("r", "dead", "its request"))
			f[2].awaitQueue(t, "r", "dead", "third")
			fleet{f[0], f[2]}.drain(t, h, back, third)
		})
	}
}

// TestServerKilledAtTheHandover kills the server that ends a hold, during that or right
// after it. The next waiter, on another server, is granted the lock.
func TestServerKilledAtTheHandover(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	databaseURL := testdb.Postgres(t)
	f := startFleet(t, databaseURL, 2)
	for round := range 10 {
		dying := start(t, databaseURL)
		h := f[0].acquire(t, "r", "holder")
		waiters := []*waiter{f[1].wait(t, waiting("r", "first"))}
		f[0].awaitQueue(t, "r", "first")
		waiters = append(waiters, f[0].wait(t, waiting("r", "second")))
		f[0].awaitQueue(t, "r", "first", "second")

		var sent time.Time
		query := url.Values{"resource_name": {"r"}, "process_id": {"holder"}}
		if round%2 == 0 {
			dying.release(t, h)
			sent = time.Now()
			dying.Kill(t)
		} else {
			var releasing sync.WaitGroup
			sent = time.Now()
			releasing.Go(func() { _, _ = dying.try(http.MethodDelete, "/locks/release?"+query.Encode(), nil) })
			<-time.After(upTo(random, 8*time.Millisecond))
			dying.Kill(t)
			releasing.Wait()
			// The release may have been lost. Repeating it is harmless.
			if r := f[0].do(t, http.MethodDelete, "/locks/release?"+query.Encode(), nil); r.Status == http.StatusOK {
				t.Log("the release was lost")
				sent = time.Now()
			}
		}
		h = waiters[0].granted(t)
		within(t, "from the release until the next waiter has the lock", waiters[0].at.Sub(sent), slack)
		f.drain(t, h, waiters[1])
	}
}

// TestKilledServersHoldExpires checks that a hold lives until its TTL although its server
// died. Then the next waiter, on another server, is granted the lock.
func TestKilledServersHoldExpires(t *testing.T) {
	t.Parallel()
	f := startFleet(t, testdb.Postgres(t), 3, "SWEEP_INTERVAL=1h")
	forever := f[0].acquire(t, "kept", "holder")
	before := f[0].wait(t, waiting("waited for", "holder")).granted(t)
	r := f[0].do(t, http.MethodPost, "/locks/request", expiring("r", "holder", 2*time.Second))
	h, _ := holdOf(r)
	first := f[1].wait(t, waiting("r", "first"))
	f[2].awaitQueue(t, "r", "first")
	f[0].Kill(t)
	second := f[2].wait(t, waiting("r", "second"))
	f[1].awaitQueue(t, "r", "first", "second")
	f[1].wantHeld(t, []hold{h, forever, before})

	next := first.granted(t)
	expiry := timeIn(t, r, "expires_at")
	if granted := timeIn(t, first.reply, "locked_at"); granted.Before(expiry) {
		t.Errorf("granted at %v, before the hold expired at %v", granted, expiry)
	}
	within(t, "from the expiry until the next waiter has the lock", first.at.Sub(expiry), deadWithin)
	f[1:].drain(t, next, second)
	f[2].wantHeld(t, []hold{forever, before})
}

// TestServerThatStandsStill checks that the waiters of a paused server are passed like
// those of a dead one, and granted when it continues.
func TestServerThatStandsStill(t *testing.T) {
	t.Parallel()
	f := startFleet(t, testdb.Postgres(t), 3)
	h := f[0].acquire(t, "r", "holder")
	waiters := make([]*waiter, 4)
	names := []string{"still 1", "second", "still 2", "fourth"}
	for i := range waiters {
		waiters[i] = f[1+i%2].wait(t, waiting("r", names[i]))
		f[2].awaitQueue(t, "r", names[:i+1]...)
	}

	f[1].Signal(t, syscall.SIGSTOP)
	stopped := time.Now()
	t.Cleanup(func() { _ = syscall.Kill(f[1].ID(), syscall.SIGCONT) })
	f[0].release(t, h)
	h = waiters[1].granted(t)
	within(t, "from the stop until the next waiter has the lock", waiters[1].at.Sub(stopped), deadWithin+slack)
	f[2].wantQueue(t, "r", "fourth")
	<-time.After(4*time.Second - time.Since(stopped))
	f[1].Signal(t, syscall.SIGCONT)
	f[2].awaitQueue(t, "r", "still 1", "still 2", "fourth")
	f.drain(t, h, waiters[0], waiters[2], waiters[3])
}

// TestNotificationsCutOff checks that a server without notifications finds the next
// waiter by its recheck, and uses notifications again when they are back.
func TestNotificationsCutOff(t *testing.T) {
	t.Parallel()
	const recheck = 1500 * time.Millisecond
	databaseURL := testdb.Postgres(t)
	proxied, proxy := throughListenerProxy(t, databaseURL)
	f := fleet{start(t, databaseURL), start(t, proxied, "RECHECK_INTERVAL="+recheck.String())}
	measureHandOver := func(resource string) time.Duration {
		h := f[0].acquire(t, resource, "holder")
		w := f[1].wait(t, waiting(resource, "waiter"))
		f[0].awaitQueue(t, resource, "waiter")
		begun := time.Now()
		f[0].release(t, h)
		h = w.granted(t)
		f[1].release(t, h)
		return w.at.Sub(begun)
	}
	// One of several hand-overs that is much faster than the recheck shows that
	// notifications work.
	wantNotified := func(when string) {
		t.Helper()
		best := time.Hour
		for range 5 {
			best = min(best, measureHandOver("r"))
		}
		within(t, when+", the fastest of five hand-overs", best, recheck/10)
	}
	apptest.Eventually(t, "the server listens", func() bool { listening, _ := proxy.counts(); return listening == 1 })
	wantNotified("at first")

	proxy.cut()
	apptest.Eventually(t, "the server tries to listen again", func() bool { _, refused := proxy.counts(); return refused > 1 })
	within(t, "without notifications, a hand-over", measureHandOver("r"), recheck+slack)
	proxy.allow()
	apptest.Eventually(t, "the server listens again",
		func() bool { return strings.Contains(f[1].Output.String(), "arrive again") })
	wantNotified("afterwards")
	if s := f[1].Output.String(); strings.Count(s, "no notifications") != 1 {
		t.Error("the log does not say once that there are no notifications")
	}
}

// TestNotificationsMissed checks that a server, when it listens again, reads what it has
// missed.
func TestNotificationsMissed(t *testing.T) {
	t.Parallel()
	databaseURL := testdb.Postgres(t)
	proxied, proxy := throughListenerProxy(t, databaseURL)
	f := fleet{start(t, databaseURL, "RECHECK_INTERVAL=1h"), start(t, proxied, "RECHECK_INTERVAL=1h")}
	apptest.Eventually(t, "the server listens", func() bool { listening, _ := proxy.counts(); return listening == 1 })
	h := f[0].acquire(t, "r", "holder")
	w := f[1].wait(t, waiting("r", "waiter"))
	f[0].awaitQueue(t, "r", "waiter")
	proxy.cut()
	apptest.Eventually(t, "the server tries to listen again", func() bool { _, refused := proxy.counts(); return refused > 0 })
	f[0].release(t, h)
	f[0].Stop(t, syscall.SIGTERM) // no other notification follows
	proxy.allow()
	allowed := time.Now()
	h = w.granted(t)
	t.Logf("granted %v after listening was permitted again", w.at.Sub(allowed))
	f[1].release(t, h)
}

// TestNotificationsOff checks that servers with NOTIFICATIONS=false neither listen nor
// notify, and that hand-overs still work.
func TestNotificationsOff(t *testing.T) {
	t.Parallel()
	for setting, notifies := range map[string]bool{"true": true, "false": false} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			databaseURL := testdb.Postgres(t)
			f := startFleet(t, databaseURL, 2, "NOTIFICATIONS="+setting, "RECHECK_INTERVAL=10ms")
			db, err := pgx.Connect(t.Context(), databaseURL)
			must(t, err)
			t.Cleanup(func() { _ = db.Close(context.Background()) })
			exec := func(statement string) {
				t.Helper()
				_, err := db.Exec(t.Context(), statement)
				must(t, err)
			}
			exec("DO $$ DECLARE id bigint; BEGIN FOR id IN SELECT s.id FROM lock_servers AS s LOOP " +
				"EXECUTE 'LISTEN lockd_' || id; EXECUTE 'LISTEN lockd_' || id || '_superseded'; END LOOP; END $$")
			exec("LISTEN the_end")
			h := f[0].acquire(t, "r", "holder")
			w := f[1].wait(t, waiting("r", "waiter"))
			f[0].awaitQueue(t, "r", "waiter")
			f[0].release(t, h)
			f[1].release(t, w.granted(t))

			h = f[0].acquire(t, "s", "holder")
			first := f[1].wait(t, named("s", "waiter", "its request"))
			f[0].awaitQueue(t, "s", "waiter")
			again := f[0].wait(t, named("s", "waiter", "its request"))
			first.answer(t)
			f.drain(t, h, again)

			exec("NOTIFY the_end")
			heard := map[string]bool{}
			for !heard["the_end"] {
				n, err := db.WaitForNotification(t.Context())
				must(t, err)
				heard[strings.TrimLeft(n.Channel, "lockd_0123456789")] = true
			}
			if heard[""] != notifies || heard["superseded"] != notifies {
				t.Errorf("heard on %v, want other channels than the_end: %v", heard, notifies)
			}
		})
	}
}

// TestSQLiteServerKilledWithWaiters kills a server with waiting requests. After its
// restart their places delay no other request, and a retry gets its old place. A request
// that had been granted the lock has it.
func TestSQLiteServerKilledWithWaiters(t *testing.T) {
	t.Parallel()
	databaseURL := sqliteURL(testdb.SQLite(t))
	s := start(t, databaseURL)
	held := s.acquire(t, "held", "holder")
	passed := s.wait(t, waiting("held", "had waited"))
	s.awaitQueue(t, "held", "had waited")
	s.release(t, held)
	held = passed.granted(t)
	h := s.acquire(t, "r", "holder")
	free := s.acquire(t, "free", "holder")
	for i, body := range []map[string]any{
		named("r", "a", "1"), waiting("r", "lost"), named("r", "b", "2"),
		waiting("free", "lost"),
	} {
		s.wait(t, body)
		if i < 3 {
			s.awaitQueue(t, "r", []string{"a", "lost", "b"}[:i+1]...)
		}
	}
	s.awaitQueue(t, "free", "lost")
	s.Kill(t)

	s = start(t, databaseURL)
	s.wantHeld(t, []hold{held, h, free})
	s.wantQueue(t, "r")
	s.wantQueue(t, "free")
	s.release(t, free)
	s.acquire(t, "free", "newcomer") // at once

	fleet := fleet{s}
	newcomer := s.wait(t, waiting("r", "newcomer"))
	s.awaitQueue(t, "r", "newcomer")
	b := s.wait(t, named("r", "b", "2"))
	s.awaitQueue(t, "r", "b", "newcomer")
	a := s.wait(t, named("r", "a", "1"))
	s.awaitQueue(t, "r", "a", "b", "newcomer")
	fleet.drain(t, h, a, b, newcomer)
}

// TestSupersededAcrossServers makes a waiting request again on another server. The first
// one is answered at once, and is not granted the lock after the second one has released
// it. No server rechecks during the test.
func TestSupersededAcrossServers(t *testing.T) {
	t.Parallel()
	f := startFleet(t, testdb.Postgres(t), 2, "RECHECK_INTERVAL=1h")
	h := f[0].acquire(t, "r", "other")
	frozen := f[0].wait(t, named("r", "p", "run-7"))
	f[1].awaitQueue(t, "r", "p")
	repeated := time.Now()
	repeat := f[1].wait(t, named("r", "p", "run-7"))
	if r := frozen.answer(t); r.Status != http.StatusConflict || r.Code != "superseded" {
		t.Errorf("the first request was answered %+v", r)
	}
	within(t, "from the retry until the first request was answered", time.Since(repeated), 100*time.Millisecond+slack)
	f[0].release(t, h)
	f[1].release(t, repeat.granted(t))
	f[0].awaitFree(t, "r")
}
