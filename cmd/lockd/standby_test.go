package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/testdb"
)

// TestSilentStandby has a synchronous standby that does not answer, so that a COMMIT is
// not answered either. The client gets an unknown outcome in time. Until the standby has
// the commit no client sees it, because a fail-over might lose it. The number of waiting
// connections stays small.
func TestSilentStandby(t *testing.T) {
	t.Parallel()
	primary, err := testdb.NewCluster()
	must(t, err)
	t.Cleanup(func() { must(t, primary.Close()) })
	admin := open(t, "pgx", primary.URL("postgres"))
	for _, name := range []string{"direct", "pooled", "impatient", "cut"} {
		execute(t, admin, "CREATE DATABASE "+name)
	}
	for _, timeout := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		execute(t, admin, "ALTER DATABASE impatient SET "+timeout+" = '3s'")
	}
	urls := map[string]string{
		"direct":    primary.URL("direct"),
		"pooled":    testdb.PgBouncer(t, primary.URL("pooled"), 5) + "&default_query_exec_mode=exec",
		"impatient": primary.URL("impatient"),
	}
	var cutting atomic.Bool
	urls["cut"] = strings.Replace(primary.URL("cut"), primary.Address(),
		throughCommitCutter(t, primary.Address(), &cutting), 1)
	fleets := map[string]fleet{}
	for name, url := range urls {
		fleets[name] = startFleet(t, url, 2, "NOTIFICATIONS=false", "SWEEP_INTERVAL=1h")
	}
	standby, err := primary.NewStandby()
	must(t, err)
	t.Cleanup(func() { must(t, standby.Close()) })
	for _, f := range fleets {
		f[0].acquire(t, "before", "p")
	}

	cutting.Store(true)
	must(t, standby.Freeze())
	thaw := sync.OnceFunc(func() { must(t, standby.Thaw()) })
	defer thaw()
	var clients sync.WaitGroup
	for name, f := range fleets {
		clients.Go(func() {
			begun := time.Now()
			r, err := f[0].try(http.MethodPost, "/locks/request", acquisition("r", "p"))
			if err != nil || r.Status != http.StatusServiceUnavailable || r.Code != "outcome_unknown" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			within(t, name+": from the request to the answer", time.Since(begun), 10*time.Second+slack)
			// The next request does not reach a COMMIT.
			begun = time.Now()
			r, err = f[0].try(http.MethodPost, "/locks/request", acquisition("next", "p"))
			if err != nil || r.Status != http.StatusServiceUnavailable || r.Code == "outcome_unknown" {
				t.Errorf("%s, next: %+v, %v", name, r, err)
			}
			within(t, name+": from the next request to the answer", time.Since(begun), 10*time.Second+slack)
		})
	}
	answered := make(chan struct{})
	go func() {
		clients.Wait()
		close(answered)
	}()
	for done := false; !done; {
		select {
		case <-answered:
			done = true
		case <-time.After(100 * time.Millisecond):
		}
		for name, f := range fleets {
			for i, s := range f {
				if r := s.status(t, "r"); r.Status != http.StatusOK || r.Data["is_locked"] != false {
					t.Fatalf("%s: server %d answered %+v", name, i, r)
				}
			}
			if got := one(t, open(t, "pgx", primary.URL(name)),
				"SELECT count(*) FROM resource_locks WHERE resource_name <> 'before'"); got != "0" {
				t.Fatalf("%s: %s rows are visible", name, got)
			}
		}
	}
	for name := range fleets {
		query := fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = '%s'", name)
		if got := one(t, admin, query); got != "1" {
			t.Errorf("%s: %s connections wait for the standby", name, got)
		}
	}

	cutting.Store(false)
	thaw()
	for name, f := range fleets {
		for _, s := range f {
			await(t, name+": the holder after the standby answers", "p", func() string {
				by, _ := s.status(t, "r").Data["locked_by"].(string)
				return by
			})
			if got := strings.Join(s.locked(t), " "); got != "before r" {
				t.Errorf("%s: locked: %s", name, got)
			}
		}
		f[0].acquire(t, "after", "p")
	}
}

// throughCommitCutter returns the address of a proxy for a Postgres. While cutting is
// set, it cuts each connection when a COMMIT has passed.
func throughCommitCutter(t *testing.T, address string, cutting *atomic.Bool) string {
	t.Helper()
	return relay(t, func(client net.Conn) {
		forward(client, address, func(database io.Writer, data []byte) error {
			_, err := database.Write(data)
			if cutting.Load() && bytes.Contains(data, []byte("commit\x00")) {
				return net.ErrClosed
			}
			return err
		})
	})
}
