package robust_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
	"resource-lock-manager/internal/wire"
)

// overloadShortQueue has a short queue: most requests are refused at once.
func overloadShortQueue(t *testing.T, r *robust.Run) {
	if refused := overload(t, r, sqlite(t), "MAX_QUEUE=16"); refused == 0 {
		t.Error("no request was refused")
	}
}

// overloadPostgres has the default queue, which takes all that this many clients can
// send.
func overloadPostgres(t *testing.T, r *robust.Run) { overload(t, r, testdb.Postgres(t)) }

// overload runs many times as many clients as keep the server busy. They retry at once.
// It returns the number of refusals.
func overload(t *testing.T, r *robust.Run, databaseURL string, settings ...string) int64 {
	clients := 400
	if r.Long() {
		clients = 10_000 // more than may wait for the database by default
	}
	server := r.Servers(1, databaseURL, settings...)[0]
	before := healthOf(t, server)
	few := &load{t: t, name: "few"}
	few.start(dial(t, server, 8))
	r.Pause(500 * time.Millisecond)
	few.end()
	r.Work(robust.Workload{Clients: 4, AnswerTimeout: apptest.Timeout}, server)
	probe := newProbe(t, server)
	end := probe.inBackground()
	many := &load{t: t, name: "many"}
	many.start(dial(t, server, clients))
	for late := time.Now().Add(apptest.Timeout); r.Running() || !probe.served() && time.Now().Before(late); {
		r.Pause(50 * time.Millisecond)
	}
	many.end()
	end()
	fmt.Fprintf(t.Output(), "8 clients: %v; %d clients: %v; %v\n", few, clients, many, server.Memory(t))
	before.wantRecovered(t)
	wantMemoryBelow(t, server, int64(500+clients/5))
	for _, l := range []*load{few, many} {
		l.wantKept(dial(t, server, 1)[0])
	}
	r.Judge()
	return many.refused.Load()
}

// load is many clients that acquire locks that never expire, and release three of four.
// After a refusal they continue at once.
type load struct {
	t    *testing.T
	name string

	served, refused atomic.Int64
	all             sync.WaitGroup
	stop            chan struct{}
	began           time.Time
	lasted          time.Duration
	callers         []*caller
	held            []map[string]int64 // by caller and resource: the token that was acknowledged
}

func (l *load) String() string {
	per := func(n int64) int { return int(float64(n) / l.lasted.Seconds()) }
	return fmt.Sprintf("%d requests served, %d a second, and %d refused, %d a second",
		l.served.Load(), per(l.served.Load()), l.refused.Load(), per(l.refused.Load()))
}

func (l *load) start(callers []*caller) {
	l.callers, l.held = callers, make([]map[string]int64, len(callers))
	l.stop, l.began = make(chan struct{}), time.Now()
	for i := range callers {
		l.held[i] = map[string]int64{}
		l.all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if !l.takeTurn(i, n) {
					return
				}
			}
		})
	}
}

// takeTurn reports whether all answers were as expected.
func (l *load) takeTurn(i, n int) bool {
	resource, process := fmt.Sprintf("%s %d.%d", l.name, i, n), fmt.Sprint("caller ", i)
	got, ok := l.call(i, acquireText(robust.Operation{Resource: resource, Process: process}))
	if got.Status == http.StatusOK {
		l.held[i][resource] = got.Data.FencingToken
		if n%4 > 0 {
			if got, ok = l.call(i, releaseText(resource, process)); got.Status == http.StatusOK {
				delete(l.held[i], resource)
			}
		}
	}
	return ok
}

// call reports whether the answer was one that an overloaded server may give.
func (l *load) call(i int, request string) (reply, bool) {
	got, err := l.callers[i].call(request)
	switch {
	case err == nil && got.Status == http.StatusOK:
		l.served.Add(1)
	case err == nil && got.Status == http.StatusServiceUnavailable && got.Code == wire.CodeOverloaded &&
		got.RetryAfter != "":
		l.refused.Add(1)
	default:
		l.t.Errorf("caller %d under load: %+v, %v", i, got, err)
		return got, false
	}
	return got, true
}

func (l *load) end() {
	l.lasted = time.Since(l.began)
	close(l.stop)
	l.all.Wait()
	closeAll(l.callers)
}

// wantKept checks that exactly the acknowledged locks are held.
func (l *load) wantKept(reader *caller) {
	l.t.Helper()
	now := locks(l.t, reader, l.name+" ")
	for i := range l.held {
		for resource, token := range l.held[i] {
			if now[resource] != token {
				l.t.Errorf("G9 on %s: the token %d was acknowledged, but the holder has %d", resource, token,
					now[resource])
			}
			delete(now, resource)
		}
	}
	for resource, token := range now {
		l.t.Errorf("G9 on %s: the token %d is held, but was not acknowledged", resource, token)
	}
}

func manyHoldsSQLite(t *testing.T, r *robust.Run)   { manyHolds(t, r, sqlite(t)) }
func manyHoldsPostgres(t *testing.T, r *robust.Run) { manyHolds(t, r, testdb.Postgres(t)) }

// manyHolds has more held locks than fit into the permitted memory.
func manyHolds(t *testing.T, r *robust.Run, databaseURL string) {
	count := 100_000
	if r.Long() {
		count = 1_000_000
	}
	server := r.Servers(1, databaseURL)[0]
	server.Stop(t, syscall.SIGTERM)
	begun := time.Now()
	fill(t, databaseURL, count, 0)
	filled := time.Since(begun)
	server.Start(t)
	fmt.Fprintf(t.Output(), "filled in %v, started after %v\n", filled, time.Since(begun)-filled)
	before := healthOf(t, server)
	r.Work(robust.Workload{}, server)
	end := newProbe(t, server).inBackground()
	reader := dial(t, server, 1)[0]
	lists := 0
	for r.Running() || lists == 0 {
		list := reader.want(t, getText("/locks/all-locked", url.Values{"prefix": {"filled "}}))
		if total := list.Data.TotalLocks; total != count {
			t.Errorf("%d locks are held, want %d", total, count)
		}
		lists++
	}
	end()
	fmt.Fprintf(t.Output(), "%d lists of %d locks; %v\n", lists, count, server.Memory(t))
	before.wantRecovered(t)
	wantMemoryBelow(t, server, 1000)
	r.Judge()
}

func expiringSQLite(t *testing.T, r *robust.Run)   { expiringAtOnce(t, r, sqlite(t)) }
func expiringPostgres(t *testing.T, r *robust.Run) { expiringAtOnce(t, r, testdb.Postgres(t)) }

// expiringAtOnce has very many locks expire within one second. Some of them have a
// waiter.
func expiringAtOnce(t *testing.T, r *robust.Run, databaseURL string) {
	count, lead, waiters := 20_000, 3*time.Second, 100
	if r.Long() {
		count, lead, waiters = 100_000, 10*time.Second, 1000
	}
	server := r.Servers(1, databaseURL, "SWEEP_INTERVAL=200ms")[0]
	before := healthOf(t, server)
	server.Stop(t, syscall.SIGTERM)
	expiry := time.Now().Add(lead)
	fill(t, databaseURL, count, lead)
	server.Start(t)
	fmt.Fprintf(t.Output(), "%v until the first expires\n", time.Until(expiry))
	r.Work(robust.Workload{}, server)
	end := newProbe(t, server).inBackground()
	waiting := dial(t, server, waiters)
	var all sync.WaitGroup
	for i, c := range waiting {
		all.Go(func() {
			resource, process := fmt.Sprint("filled ", i*(count/waiters)), fmt.Sprint("waiter ", i)
			got, err := c.call(acquireText(robust.Operation{Resource: resource, Process: process, Wait: time.Minute}))
			if err != nil || got.Status != http.StatusOK {
				t.Errorf("%s got %+v, %v", process, got, err)
			}
		})
	}
	all.Wait()
	granted := time.Since(expiry)
	r.Pause(time.Until(expiry.Add(2 * time.Second)))
	reader := dial(t, server, 1)[0]
	if held := locks(t, reader, "filled "); len(held) != waiters {
		t.Errorf("%d locks are held, want the %d of the waiters", len(held), waiters)
	}
	for r.Running() {
		r.Pause(50 * time.Millisecond)
	}
	for n := range 20 {
		name := fmt.Sprint("filled ", n*(count/20)+1)
		apptest.Eventually(t, "the expiry is in the history", func() bool {
			events := reader.want(t, getText("/locks/history", url.Values{"resource_name": {name}})).Data.Events
			return len(events) == 1 && events[0].Event == "expired"
		})
	}
	swept := time.Since(expiry)
	end()
	fmt.Fprintf(t.Output(), "%d expired within a second; %v later the %d waiters had their locks, "+
		"%v later all had been swept; %v\n",
		count, granted.Round(time.Millisecond), waiters, swept.Round(time.Millisecond), server.Memory(t))
	closeAll(waiting)
	before.wantRecovered(t)
	wantMemoryBelow(t, server, 1000)
	r.Judge()
}

// fill adds holds to the database of a stopped server. They never expire if end is 0,
// otherwise all within a second after that time.
func fill(t *testing.T, databaseURL string, count int, end time.Duration) {
	t.Helper()
	driver, source := "pgx", databaseURL
	statement := `INSERT INTO resource_locks (resource_name, process_id, locked_at, expires_at, is_active, fencing_token)
		SELECT 'filled ' || i, 'filler', now(),
			CASE WHEN $2 > 0 THEN now() + make_interval(secs => $2 + i / ($1 + 1.0)) END,
			true, (extract(epoch FROM now()) * 1000000)::bigint
		FROM generate_series(0, $1 - 1) AS i`
	if path, ok := strings.CutPrefix(databaseURL, "sqlite:///"); ok {
		driver, source = "sqlite3", path
		statement = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1)
			INSERT INTO resource_locks (resource_name, process_id, locked_at, expires_at, is_active, fencing_token)
			SELECT 'filled ' || i, 'filler', strftime('%Y-%m-%d %H:%M:%f000', 'now'),
				CASE WHEN ?2 > 0
					THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', '+' || (?2 + i / (?1 + 1.0)) || ' seconds') END,
				true, unixepoch() * 1000000
			FROM n`
	}
	db := open(t, driver, source)
	_, err := db.Exec(statement, count, end.Seconds())
	must(t, err)
	must(t, db.Close())
}

// waitersFull has more requests wait than MAX_WAITERS permits. The others are refused,
// and succeed when there is room again.
func waitersFull(t *testing.T, r *robust.Run) {
	const room, extra = 50, 100
	server := r.Servers(1, sqlite(t), fmt.Sprint("MAX_WAITERS=", room))[0]
	before := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	holder := dial(t, server, 1)[0]
	end := newProbe(t, server).inBackground()
	for round := 0; r.Running() || round == 0; round++ {
		const resource = "wanted"
		holder.want(t, acquireText(robust.Operation{Resource: resource, Process: "holder"}))
		callers := dial(t, server, room+extra)
		var granted, full atomic.Int64
		var all sync.WaitGroup
		for i, c := range callers {
			all.Go(func() {
				process := fmt.Sprint("waiter ", i)
				ctx, cancel := context.WithTimeout(context.Background(), apptest.Timeout)
				defer cancel()
				for ctx.Err() == nil {
					request := robust.Operation{Resource: resource, Process: process, Wait: apptest.Timeout}
					got, err := c.call(acquireText(request))
					switch {
					case err != nil:
						t.Errorf("%s: %v", process, err)
						return
					case got.Status == http.StatusOK:
						granted.Add(1)
						_, _ = c.call(releaseText(resource, process))
						return
					case got.Code != wire.CodeQueueFull || got.Status != http.StatusServiceUnavailable ||
						got.RetryAfter == "":
						t.Errorf("%s: %+v", process, got)
						return
					}
					full.Add(1)
					<-time.After(20 * time.Millisecond)
				}
			})
		}
		apptest.Eventually(t, "the maximum number of waiters", func() bool { return full.Load() >= extra })
		holder.want(t, releaseText(resource, "holder"))
		all.Wait()
		closeAll(callers)
		if granted.Load() != room+extra {
			t.Errorf("%d of %d got the lock in the end", granted.Load(), room+extra)
		}
		fmt.Fprintf(t.Output(), "%d got the lock, %d requests were refused because MAX_WAITERS was reached\n",
			granted.Load(), full.Load())
	}
	end()
	before.wantRecovered(t)
	r.Judge()
}
