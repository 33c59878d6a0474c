package service_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

// database is a database in memory with some views of it. Its clock is the bubble's.
type database struct{ *memstore.Database }

func newDatabase() *database { return &database{memstore.NewDatabase(time.Now)} }

// processes returns those in the queue of a resource, in its order, with "-" before a detached
// one.
func (d *database) processes(name string) []string {
	var all []string
	for _, w := range d.Resource(name).Queue {
		if w.DetachedUntil.IsZero() {
			all = append(all, w.Request.ProcessID)
		} else {
			all = append(all, "-"+w.Request.ProcessID)
		}
	}
	return all
}

// holder returns the process that holds a resource now, "" if none does.
func (d *database) holder(name string) string {
	hold, _ := d.Resource(name).Holder(time.Now())
	return hold.ProcessID
}

// waits returns how each wait and hold of a process began and ended, and why.
func (d *database) waits(process string) []string {
	var events []string
	for _, e := range d.Events() {
		if e.ProcessID == process {
			text := string(e.Kind)
			if e.Reason != "" {
				text += " " + e.Reason
			}
			events = append(events, text)
		}
	}
	return events
}

// node is one server's store. It counts commands and can interfere with them.
type node struct {
	*memstore.Store
	observe func(service.Commit) // what is called with every commit

	mu          sync.Mutex
	executed    []lock.Command
	sameBatch   []lock.Command // share the transaction of the next command
	beforeReads func()         // called once before Waiting reads
	afterReads  func()         // called once after Waiting has read and before it returns
}

// commands returns the number of commands executed so far.
func (n *node) commands() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.executed)
}

func (n *node) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	n.mu.Lock()
	n.executed = append(n.executed, c)
	batch := append([]lock.Command{c}, n.sameBatch...)
	n.sameBatch = nil
	n.mu.Unlock()
	results, err := n.ExecuteBatch(ctx, batch...)
	if err != nil {
		return lock.Outcome{}, err
	}
	return results[0].Outcome, results[0].Err
}

func (n *node) ExecuteWithin(ctx context.Context, c lock.Command, _ time.Duration) (lock.Outcome, error) {
	return n.Execute(ctx, c)
}

func (n *node) Waiting(ctx context.Context, onlyFree bool) ([]service.Waiting, error) {
	n.mu.Lock()
	before, after := n.beforeReads, n.afterReads
	n.beforeReads, n.afterReads = nil, nil
	n.mu.Unlock()
	if before != nil {
		before()
	}
	waiting, err := n.Store.Waiting(ctx, onlyFree)
	if after != nil {
		after()
	}
	return waiting, err
}

// server is one of several over a database.
type server struct {
	*service.Service
	node *node
	t    *testing.T
}

// usual is the configuration of most tests: no two of the times are the same.
var usual = service.Config{
	Limits:     lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: 24 * time.Hour},
	MaxWaiters: 100, MaxQueue: 100,
	KeepPlace: 10 * time.Second, Recheck: 7 * time.Second,
}

// fullRecheck is when a server with the usual configuration first reads all requests that wait on it.
const fullRecheck = 10 * 7 * time.Second

// noRecheck returns a configuration without periodic rechecks: what happens in a test must not
// depend on them.
func noRecheck() service.Config {
	c := usual
	c.Recheck = 1000 * time.Hour
	return c
}

// newServer returns a server that serves waiting requests once its Start is called.
func (d *database) newServer(t *testing.T, cfg service.Config) *server {
	n := &node{Store: d.Open()}
	s := &server{service.New(n, cfg, slog.New(slog.DiscardHandler)), n, t}
	n.Notify(s.Wake, s.WakeSuperseded)
	n.observe = s.Committed
	n.Store.Start(func(c service.Commit) { n.observe(c) })
	return s
}

// startServer starts a server that is stopped when the test ends.
func (d *database) startServer(t *testing.T, cfg service.Config) *server {
	s := d.newServer(t, cfg)
	s.Start()
	t.Cleanup(func() {
		s.StopWaiting()
		synctest.Wait()
		s.Stop()
	})
	return s
}

// dropHints makes the server miss every hint of the other servers from now on.
func (s *server) dropHints() { s.node.Notify(nil, nil) }

// wantIdle fails if there were commands since there were that many.
func (s *server) wantIdle(before int) {
	s.t.Helper()
	if got := s.node.commands() - before; got != 0 {
		s.t.Errorf("%d commands while nothing happened, want none", got)
	}
}

// call is a request under way.
type call struct {
	t          *testing.T
	process    string
	disconnect context.CancelFunc
	done       chan struct{}
	began      time.Time

	grant lock.Grant
	err   error
	took  time.Duration
}

// ask begins a request for "r" and returns when it waits or has its answer.
func (s *server) ask(c lock.Request) *call {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	one := &call{t: s.t, process: c.ProcessID, disconnect: cancel, done: make(chan struct{}), began: time.Now()}
	c.Resource = cmp.Or(c.Resource, "r")
	go func() {
		defer close(one.done)
		defer cancel()
		one.grant, one.err = s.Acquire(ctx, c)
		one.took = time.Since(one.began)
	}()
	synctest.Wait()
	return one
}

// queue begins a request that must have to wait for "r".
func (s *server) queue(c lock.Request) *call {
	s.t.Helper()
	c.Wait = cmp.Or(c.Wait, time.Hour)
	one := s.ask(c)
	one.wantWaiting()
	return one
}

// hold has a process hold "r".
func (s *server) hold(process string, ttl time.Duration) lock.Grant {
	s.t.Helper()
	g, err := s.Acquire(s.t.Context(), lock.Request{Resource: "r", ProcessID: process, TTL: ttl})
	if err != nil {
		s.t.Fatalf("hold of %q: %v", process, err)
	}
	return g
}

// release ends the hold that a process has of "r", and lets everything come of it.
func (s *server) release(process string) {
	s.t.Helper()
	if _, err := s.Release(s.t.Context(), lock.Release{Resource: "r", ProcessID: process}); err != nil {
		s.t.Fatalf("release of %q: %v", process, err)
	}
	synctest.Wait()
}

// advance lets time pass until everything that it causes has happened.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (c *call) answered() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *call) wantWaiting() {
	c.t.Helper()
	if c.answered() {
		c.t.Fatalf("%q was answered %+v, %v after %v, want it to wait", c.process, c.grant.Hold, c.err, c.took)
	}
}

// wantGranted fails unless it has been granted a hold, after that time.
func (c *call) wantGranted(waited time.Duration) lock.Grant {
	c.t.Helper()
	if !c.answered() {
		c.t.Fatalf("%q waits, want it granted", c.process)
	}
	if c.err != nil || c.grant.Hold.ProcessID != c.process || c.took != waited {
		c.t.Fatalf("%q: got %+v, %v after %v, want a hold after %v", c.process, c.grant.Hold, c.err, c.took, waited)
	}
	return c.grant
}

// wantError fails unless it has ended with that error.
func (c *call) wantError(want error) {
	c.t.Helper()
	if !c.answered() {
		c.t.Fatalf("%q waits, want %v", c.process, want)
	}
	if !errors.Is(c.err, want) {
		c.t.Fatalf("%q: got %+v, %v, want %v", c.process, c.grant.Hold, c.err, want)
	}
}

// wantQueue fails unless just these processes have a place in the queue of "r", with "-" before those that are away.
func (d *database) wantQueue(t *testing.T, want ...string) {
	t.Helper()
	if got := d.processes("r"); !slices.Equal(got, want) {
		t.Fatalf("queue: got %q, want %q", got, want)
	}
}

func (d *database) wantHolder(t *testing.T, want string) {
	t.Helper()
	if got := d.holder("r"); got != want {
		t.Fatalf("held by %q, want %q", got, want)
	}
}

// wantEvents fails unless that is all that the history tells of a process.
func (d *database) wantEvents(t *testing.T, process string, want ...string) {
	t.Helper()
	if got := d.waits(process); !slices.Equal(got, want) {
		t.Fatalf("history of %q: got %q, want %q", process, got, want)
	}
}
