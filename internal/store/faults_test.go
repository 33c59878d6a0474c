package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// proxy stands between a store and its Postgres and cuts the connection once, where the test says.
type proxy struct {
	address  string
	upstream string
	cutAfter atomic.Value // a string: a connection that writes locks is cut once the client has sent it; empty: never
	deliver  atomic.Bool  // whether what the client sent last still reaches the database; a COMMIT becomes a ROLLBACK if not
	answer   atomic.Value // a []byte that the client gets for it instead of a cut; empty: none
	atOnce   atomic.Bool  // whether the cut does not wait for the answer of the database
	cuts     atomic.Int32
	answers  atomic.Int32 // ReadyForQuery of the database: each ends a round trip
}

// throughProxy makes cfg go through a new proxy.
func throughProxy(t *testing.T, cfg *store.Config) *proxy {
	t.Helper()
	u, err := url.Parse(cfg.Source)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), upstream: u.Host}
	p.cutAfter.Store("")
	p.answer.Store([]byte(nil))
	u.Host = p.address
	cfg.Source = u.String()

	var pipes sync.WaitGroup
	pipes.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.upstream)
			if err != nil {
				client.Close()
				continue
			}
			c := &connection{proxy: p, client: client, server: server}
			pipes.Go(c.toDatabase)
			pipes.Go(c.toClient)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		pipes.Wait()
	})
	return p
}

// connection is one client's way through the proxy.
type connection struct {
	*proxy
	client, server net.Conn
	cut            atomic.Bool // no answer of the database comes through any more, or none but one
	writes         bool        // it has locked rows: the others only read, or tell that the server is alive
}

func (c *connection) close() {
	c.client.Close()
	c.server.Close()
}

func (c *connection) toDatabase() {
	defer c.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		c.writes = c.writes || bytes.Contains(buf[:n], []byte("FOR UPDATE"))
		if word := c.cutAfter.Load().(string); word != "" && (c.writes || word == "begin") && bytes.Contains(buf[:n], []byte(word)) {
			c.cutAfter.Store("")
			c.cuts.Add(1)
			answered := len(c.answer.Load().([]byte)) > 0
			if !c.deliver.Load() {
				if !answered {
					return
				}
				n = copy(buf, "Q\x00\x00\x00\x0drollback\x00")
			}
			c.cut.Store(true)
		}
		if _, err := c.server.Write(buf[:n]); err != nil || c.cut.Load() && c.atOnce.Load() {
			return
		}
	}
}

func (c *connection) toClient() {
	defer c.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		c.answers.Add(int32(bytes.Count(buf[:n], []byte("Z\x00\x00\x00\x05"))))
		answer := buf[:n]
		if c.cut.Swap(false) { // the database has answered: it has done it
			if answer = c.answer.Load().([]byte); len(answer) == 0 {
				return
			}
		}
		if _, err := c.client.Write(answer); err != nil {
			return
		}
	}
}

// A connection that breaks when COMMIT has been sent leaves the outcome open. It is reported as such and not run again.
func TestUnknownCommit(t *testing.T) {
	t.Parallel()
	for name, delivered := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			execute(t, s, lock.Acquire{Resource: "warm", ProcessID: "p"})

			p.deliver.Store(delivered)
			p.cutAfter.Store("commit\x00") // not the setting synchronous_commit
			_, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p"})
			if !errors.Is(err, lock.ErrOutcomeUnknown) {
				t.Fatalf("answer: %v", err)
			}
			r, _, err := s.Find(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			if held := len(r.Holds) == 1; held != delivered {
				t.Errorf("held: %v, COMMIT arrived: %v", held, delivered)
			}
			execute(t, s, lock.Release{Resource: "warm", ProcessID: "p"})
		})
	}
}

// Of several hosts, all but one take connections and say nothing, as the lost ones of a cluster may: a command that needs a
// new connection reaches the living one in time.
func TestSilentHosts(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	living := connect(t, cfg)
	for range 2 {
		silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { silent.Close() })
		cfg.Source = strings.Replace(cfg.Source, "@", "@"+silent.Addr().String()+",", 1)
	}
	s := open(t, cfg)
	var lost time.Time
	err := living.QueryRow(`SELECT clock_timestamp() FROM (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE application_name = 'lockd' AND datname = current_database()) AS all_of_them`).Scan(&lost)
	if err != nil {
		t.Fatal(err)
	}
	// The commits use the connection that they get without a pause: the lease needs one of its own.
	var busy sync.WaitGroup
	defer busy.Wait()
	ctx, enough := context.WithCancel(context.Background())
	defer enough()
	for i := range 4 {
		busy.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.Execute(context.Background(), lock.Acquire{Resource: fmt.Sprint(i), ProcessID: "p", RequestID: "again"})
			}
		})
	}
	deadline := time.After(6 * time.Second)
	for renewed := false; !renewed; {
		err := living.QueryRow("SELECT bool_or(alive_until > $1::timestamptz + interval '1750 ms') FROM lock_servers", lost).Scan(&renewed)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-deadline:
			t.Fatal("the server cannot renew its lease")
		case <-time.After(10 * time.Millisecond):
		}
	}
	execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
}

// A connection that breaks before COMMIT is sent costs nothing but a new one.
func TestBrokenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"begin", "FOR UPDATE", "INSERT INTO resource_locks"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			p := throughProxy(t, &cfg)
			s := open(t, cfg)
			p.cutAfter.Store(word)
			execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
			if p.cuts.Load() != 1 {
				t.Errorf("the connection was cut %d times", p.cuts.Load())
			}
		})
	}
}

// poison is a command that no transaction survives.
type poison struct{ resource string }

func (c poison) Resources() []string { return []string{c.resource} }

func (c poison) Decide(time.Time, []lock.Resource) (lock.Outcome, error) { panic("poison") }

func TestPoisonCommandFailsAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				name := fmt.Sprint("resource ", i)
				if i%10 == 0 {
					if _, err := s.Execute(context.Background(), poison{name}); err == nil {
						t.Error("the poison was accepted")
					}
					return
				}
				if _, err := s.Execute(context.Background(), lock.Acquire{Resource: name, ProcessID: "p"}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
	})
}

// What a batch did before it failed must not be seen: neither in the database nor in what its commands are told later.
func TestFailedBatchLeavesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		broken := brokenAfter{resource: "r"}
		if _, err := s.Execute(t.Context(), broken); err == nil {
			t.Fatal("a row that the database cannot keep was accepted")
		}
		if r, _, err := s.Find(t.Context(), "r"); err != nil || r.ID != 0 {
			t.Errorf("left behind: %+v, %v", r, err)
		}
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
	})
}

// brokenAfter saves two states of which the second names a row that another resource has.
type brokenAfter struct{ resource string }

func (c brokenAfter) Resources() []string { return []string{c.resource, c.resource + "2"} }

func (c brokenAfter) Decide(now time.Time, before []lock.Resource) (lock.Outcome, error) {
	one, two := before[0], before[1]
	one.ID, two.ID = 77, 77
	one.Holds = []lock.Hold{{ProcessID: "p", Token: 1, LockedAt: now}}
	two.Holds = one.Holds
	return lock.Outcome{Now: now, Changed: []lock.Resource{one, two}}, nil
}

// The sentinels of a stopped store.
func TestStoppedStore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p"}); !errors.Is(err, lock.ErrStopping) {
			t.Errorf("before Start: %v", err)
		}
		s.Start()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Execute(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p"}); !errors.Is(err, lock.ErrStopping) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestSecondStoreOnOneFileIsRefused(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	open(t, cfg)
	if _, err := store.Open(t.Context(), cfg); err == nil {
		t.Error("two stores have the same file")
	}
}

// Files whose names mean something in a SQLite URI are opened under just these names.
func TestOddFileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"with space.db", "per%20cent.db", "question?mark=1.db", "hash#tag.db", "plus+é.db"} {
		cfg := config(t, store.SQLite)
		cfg.Source = t.TempDir() + "/" + name
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		run(t, store.Config{Driver: store.SQLite, Source: "file:" + (&url.URL{Path: cfg.Source}).EscapedPath() + "?mode=ro"},
			"SELECT 1 FROM resource_locks")
	}
}

func TestInMemoryDatabasesAreSeparate(t *testing.T) {
	t.Parallel()
	for range 2 {
		cfg := config(t, store.SQLite)
		cfg.Source = ""
		s := open(t, cfg)
		execute(t, s, lock.Acquire{Resource: "r", ProcessID: "p"})
		if found := held(t, s, lock.ListFilter{}); len(found) != 1 {
			t.Errorf("a reader sees %+v", found)
		}
	}
}
