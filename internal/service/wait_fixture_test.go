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

// database is a database in memory whose clock is that of the synctest bubble.
type database struct{ *memstore.Database }

func newDatabase() *database { return &database{memstore.NewDatabase(time.Now)} }

// processes returns the processes in the queue of a resource, in its order. A "-"
// precedes a detached one.
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

// holder returns the process that holds a resource now, or "".
func (d *database) holder(name string) string {
	hold, _ := d.Resource(name).Holder(time.Now())
	return hold.ProcessID
}

// history returns the kind and the reason of each event of a process, oldest first.
func (d *database) history(process string) []string {
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

// node is one server's store. It counts commands, and tests inject what races with them.
type node struct {
	*memstore.Store
	observe func(service.Commit) // called with every commit

	mu             sync.Mutex
	executed       int
	maxDelays      []time.Duration // of ExecuteWithin
	sameBatch      []lock.Command  // these share the transaction of the next command
	beforeFullRead func()          // see onFullRead
	afterFullRead  func()
}

// commands returns the number of commands executed so far.
func (n *node) commands() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.executed
}

// onFullRead sets what happens just before and just after the next full recheck reads.
// Either may be nil.
func (n *node) onFullRead(before, after func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.beforeFullRead, n.afterFullRead = before, after
}

func (n *node) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	n.mu.Lock()
	n.executed++
	batch := append([]lock.Command{c}, n.sameBatch...)
	n.sameBatch = nil
	n.mu.Unlock()
	results, err := n.ExecuteBatch(ctx, batch...)
	if err != nil {
		return lock.Outcome{}, err
	}
	return results[0].Outcome, results[0].Err
}

func (n *node) ExecuteWithin(ctx context.Context, c lock.Command, maxDelay time.Duration) (lock.Outcome, error) {
	n.mu.Lock()
	n.maxDelays = append(n.maxDelays, maxDelay)
	n.mu.Unlock()
	return n.Execute(ctx, c)
}

func (n *node) Waiting(ctx context.Context, onlyFree bool) ([]service.Waiting, error) {
	if onlyFree {
		return n.Store.Waiting(ctx, onlyFree)
	}
	n.mu.Lock()
	before, after := n.beforeFullRead, n.afterFullRead
	n.beforeFullRead, n.afterFullRead = nil, nil
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

// server is one of the servers of a database.
type server struct {
	*service.Service
	node *node
	t    *testing.T
}

// usual is the configuration of most tests. Its times differ from each other.
var usual = service.Config{
	Limits:     lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: 24 * time.Hour},
	MaxWaiters: 100, MaxQueue: 100,
	KeepPlace: 10 * time.Second, Recheck: 7 * time.Second,
}

// fullRecheck is when a server with the usual configuration first reads all requests that
// wait on it: at the tenth recheck with a waiting request.
const fullRecheck = 10 * 7 * time.Second

// noRecheck returns a configuration without periodic rechecks, so that the test shows
// that its result does not depend on them.
func noRecheck() service.Config {
	c := usual
	c.Recheck = 1000 * time.Hour
	return c
}

// newServer returns a server that is not started yet.
func (d *database) newServer(t *testing.T, cfg service.Config) *server {
	n := &node{Store: d.Open()}
	s := &server{service.New(n, cfg, slog.New(slog.DiscardHandler)), n, t}
	n.Notify(s.Wake, s.WakeSuperseded)
	n.observe = s.Committed
	n.Start(func(c service.Commit) { n.observe(c) })
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

// dropHints makes the server miss every notification of the other servers from now on.
func (s *server) dropHints() { s.node.Notify(nil, nil) }

// wantIdle fails if the server executed a command since commands returned before.
func (s *server) wantIdle(before int) {
	s.t.Helper()
	if got := s.node.commands() - before; got != 0 {
		s.t.Errorf("%d commands while there was nothing to do, want none", got)
	}
}

// call is an acquire in progress.
type call struct {
	t          *testing.T
	process    string
	disconnect context.CancelFunc
	done       chan struct{}
	started    time.Time

	grant lock.Grant
	err   error
	took  time.Duration
}

// request starts an acquire of "r", or of the named resource. It returns when the acquire
// waits or has its answer.
func (s *server) request(r lock.Request) *call {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	c := &call{t: s.t, process: r.ProcessID, disconnect: cancel, done: make(chan struct{}), started: time.Now()}
	r.Resource = cmp.Or(r.Resource, "r")
	go func() {
		defer close(c.done)
		defer cancel()
		c.grant, c.err = s.Acquire(ctx, r)
		c.took = time.Since(c.started)
	}()
	synctest.Wait()
	return c
}

// queue starts an acquire that has to wait. It fails the test if the acquire is answered.
func (s *server) queue(r lock.Request) *call {
	s.t.Helper()
	r.Wait = cmp.Or(r.Wait, time.Hour)
	c := s.request(r)
	c.wantWaiting()
	return c
}

// hold acquires "r" for a process, without waiting.
func (s *server) hold(process string, ttl time.Duration) lock.Grant {
	s.t.Helper()
	g, err := s.Acquire(s.t.Context(), lock.Request{Resource: "r", ProcessID: process, TTL: ttl})
	if err != nil {
		s.t.Fatalf("hold of %q: %v", process, err)
	}
	return g
}

// release ends the hold that a process has of "r". It returns when everything that the
// release causes has happened.
func (s *server) release(process string) {
	s.t.Helper()
	if _, err := s.Release(s.t.Context(), lock.Release{Resource: "r", ProcessID: process}); err != nil {
		s.t.Fatalf("release of %q: %v", process, err)
	}
	synctest.Wait()
}

// advance lets time pass. It returns when everything that this causes has happened.
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
		c.t.Fatalf("%q got %+v, %v after %v, want it to wait", c.process, c.grant.Hold, c.err, c.took)
	}
}

// wantGranted fails unless the call was granted a hold after exactly that time.
func (c *call) wantGranted(waited time.Duration) lock.Grant {
	c.t.Helper()
	if !c.answered() {
		c.t.Fatalf("%q waits, want it to be granted the hold", c.process)
	}
	if c.err != nil || c.grant.Hold.ProcessID != c.process || c.took != waited {
		c.t.Fatalf("%q: got %+v, %v after %v, want a hold after %v", c.process, c.grant.Hold, c.err, c.took, waited)
	}
	return c.grant
}

// wantError fails unless the call ended with that error.
func (c *call) wantError(want error) {
	c.t.Helper()
	if !c.answered() {
		c.t.Fatalf("%q waits, want %v", c.process, want)
	}
	if !errors.Is(c.err, want) {
		c.t.Fatalf("%q: got %+v, %v, want %v", c.process, c.grant.Hold, c.err, want)
	}
}

// wantSuperseded fails unless the call was refused because a later request has its place.
func (c *call) wantSuperseded() {
	c.t.Helper()
	var refusal *lock.HeldError
	if !c.answered() || !errors.As(c.err, &refusal) || refusal.Kind != lock.Superseded {
		c.t.Fatalf("%q: got %+v, %v, answered %t, want it superseded", c.process, c.grant.Hold, c.err, c.answered())
	}
}

// wantQueue fails unless exactly these processes have a place in the queue of "r". A "-"
// precedes a detached one.
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

// wantEvents fails unless these are all events of a process.
func (d *database) wantEvents(t *testing.T, process string, want ...string) {
	t.Helper()
	if got := d.history(process); !slices.Equal(got, want) {
		t.Fatalf("history of %q: got %q, want %q", process, got, want)
	}
}
