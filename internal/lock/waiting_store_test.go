package lock_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

// database is what several servers share. Its clock is the bubble's, and it does one transaction at a time.
type database struct {
	mu        sync.Mutex
	resources map[string]lock.Resource // whose waiters say nothing of servers
	servers   map[string]map[int64]int // of each waiter, by resource and ticket
	alive     map[int]time.Time        // when each server's lease ends; none: never
	events    []lock.Event             // oldest first
	hints     map[int]func(...string)  // what tells a server that the turn of one of its waiters may have come
	replaced  map[int]func(int64)      // what tells a server that a later request has the place of one of its waiters
	lastID    int64
}

func newDatabase() *database {
	return &database{
		resources: map[string]lock.Resource{}, servers: map[string]map[int64]int{},
		alive: map[int]time.Time{}, hints: map[int]func(...string){}, replaced: map[int]func(int64){},
	}
}

// load is the state of a resource as a server sees it.
func (d *database) load(name string, server int) lock.Resource {
	r := d.resources[name]
	r.Name = name
	r.Queue = slices.Clone(r.Queue)
	for i, w := range r.Queue {
		seen, of := *w, d.servers[name][w.Ticket]
		seen.Here = of == server && w.AwayUntil.IsZero()
		seen.AliveUntil = time.Time{}
		if of != server {
			seen.AliveUntil = time.Now().Add(time.Hour)
			if end, ends := d.alive[of]; ends {
				seen.AliveUntil = end
			}
		}
		r.Queue[i] = &seen
	}
	return r
}

// save keeps a new state. A waiter that was not loaded as it is belongs to the server that saves it.
func (d *database) save(r lock.Resource, loaded []*lock.Waiter, server int) lock.Resource {
	servers := map[int64]int{}
	for _, w := range r.Queue {
		servers[w.Ticket] = server
		if slices.Contains(loaded, w) {
			servers[w.Ticket] = d.servers[r.Name][w.Ticket]
		}
	}
	if r.ID == 0 {
		d.lastID++
		r.ID = d.lastID
	}
	d.servers[r.Name], d.resources[r.Name] = servers, r
	if r.Forgotten {
		delete(d.servers, r.Name)
		delete(d.resources, r.Name)
	}
	return r
}

// fault is how a command or a look fails.
type fault struct {
	err      error
	happened bool // all the same
}

// node is one server's connection to the database.
type node struct {
	lock.Store // nil: what is not overwritten below is not called
	db         *database
	id         int
	watch      func(lock.Commit)

	mu       sync.Mutex
	executed []lock.Command
	fault    func(lock.Command) fault // nil: it works
	batch    func()                   // called once after the next command: what shares its batch
	looking  func()                   // called once when Waiting is about to look
	looked   func()                   // called once when Waiting has looked and before it answers
}

func (n *node) Watch(watch func(lock.Commit)) { n.watch = watch }

// fail has every command fail as f says, and looks as f says of a nil command. Nil ends that.
func (n *node) fail(f func(lock.Command) fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = f
}

func (n *node) failing(c lock.Command) fault {
	n.mu.Lock()
	if c != nil {
		n.executed = append(n.executed, c)
	}
	f := n.fault
	n.mu.Unlock()
	if f == nil {
		return fault{}
	}
	return f(c)
}

// commands is how many commands it has been given so far.
func (n *node) commands() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.executed)
}

func (n *node) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return lock.Outcome{}, err
	}
	fails := n.failing(c)
	if fails.err != nil && !errors.Is(fails.err, lock.ErrOutcomeUnknown) {
		return lock.Outcome{}, fails.err
	}
	n.db.mu.Lock()
	defer n.db.mu.Unlock()
	out, err := n.transact(c, fails)
	n.mu.Lock()
	batch := n.batch
	n.batch = nil
	n.mu.Unlock()
	if batch != nil {
		batch()
		for i, r := range out.Changed { // the states are those at the end of the batch
			out.Changed[i] = n.db.load(r.Name, n.id)
		}
	}
	return out, err
}

// transact does one command. The database is locked.
func (n *node) transact(c lock.Command, fails fault) (lock.Outcome, error) {
	unknown := fails.err != nil
	commit := lock.Commit{Now: time.Now(), Read: time.Now(), Unknown: unknown}
	loaded := map[string][]*lock.Waiter{}
	states := map[string]lock.Resource{}
	var before []lock.Resource
	for _, name := range c.Resources() {
		r := n.db.load(name, n.id)
		for _, w := range r.Queue {
			w.Request.Named, w.Request.Wait = false, 0 // no database keeps these
		}
		loaded[name], states[name] = slices.Clone(r.Queue), r
		before = append(before, r)
	}
	out, err := c.Decide(commit.Now, before)
	commit.Granted = out.Granted
	for _, w := range out.Superseded {
		if w.Here {
			commit.Superseded = append(commit.Superseded, w.Request.Connection)
		} else if tell := n.db.replaced[n.db.servers[w.Request.Resource][w.Ticket]]; tell != nil && !unknown {
			tell(w.Request.Connection)
		}
	}
	for i, r := range out.Changed {
		if !unknown || fails.happened {
			r = n.db.save(r, loaded[r.Name], n.id)
		}
		out.Changed[i], states[r.Name] = r, r
	}
	if !unknown || fails.happened {
		n.db.events = append(n.db.events, out.Events...)
	}
	for i, g := range out.Granted {
		out.Granted[i].ID = states[g.To.Resource].ID
	}
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if r := states[name]; r.Waiters > 0 || len(loaded[name]) > 0 {
			commit.Awaited = append(commit.Awaited, r)
			n.db.hint(commit.Now, r)
		}
	}
	if len(commit.Awaited)+len(commit.Superseded) > 0 {
		n.watch(commit)
	}
	if unknown {
		return lock.Outcome{}, fails.err
	}
	return out, err
}

// hint tells the server of the waiter that a free resource is reserved for.
func (d *database) hint(now time.Time, r lock.Resource) {
	if _, held := r.Holder(now); held {
		return
	}
	if first := r.First(now); first != nil && !first.Here {
		if tell := d.hints[d.servers[r.Name][first.Ticket]]; tell != nil {
			tell(r.Name)
		}
	}
}

func (n *node) Find(_ context.Context, name string) (lock.Resource, time.Time, error) {
	n.db.mu.Lock()
	defer n.db.mu.Unlock()
	r := n.db.load(name, n.id)
	r.Queue = nil
	return r, time.Now(), n.failing(nil).err
}

func (n *node) LastEnd(context.Context, string, string, int64) (lock.Event, bool, error) {
	return lock.Event{}, false, nil
}

func (n *node) Queue(_ context.Context, name string, after int64, limit int) (found []*lock.Waiter, position int, now time.Time, err error) {
	n.db.mu.Lock()
	defer n.db.mu.Unlock()
	now = time.Now()
	at := 0
	for _, w := range n.db.load(name, n.id).Queue {
		if !w.Connected(now) {
			continue
		}
		at++
		if w.Ticket > after && len(found) < limit {
			if len(found) == 0 {
				position = at
			}
			found = append(found, w)
		}
	}
	return found, position, now, n.failing(nil).err
}

func (n *node) Waiting(_ context.Context, onlyFree bool) ([]lock.Waiting, error) {
	n.mu.Lock()
	looking, looked := n.looking, n.looked
	n.looking, n.looked = nil, nil
	n.mu.Unlock()
	if looking != nil {
		looking()
	}
	waiting, err := n.db.waiting(n.id), n.failing(nil).err
	if onlyFree {
		waiting = slices.DeleteFunc(waiting, func(w lock.Waiting) bool { return !w.Free })
	}
	if looked != nil {
		looked()
	}
	return waiting, err
}

func (d *database) waiting(server int) []lock.Waiting {
	d.mu.Lock()
	defer d.mu.Unlock()
	var waiting []lock.Waiting
	for name := range d.resources {
		r := d.load(name, server)
		_, held := r.Holder(time.Now())
		for _, w := range r.Queue {
			if w.Here {
				waiting = append(waiting, lock.Waiting{Free: !held, Request: lock.Acquire{
					Resource: name, ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID, Connection: w.Request.Connection,
				}})
			}
		}
	}
	return waiting
}

func (n *node) Left(_ context.Context, keep time.Duration, limit int) ([]lock.Place, error) {
	n.db.mu.Lock()
	defer n.db.mu.Unlock()
	now := time.Now()
	var left []lock.Place
	for _, name := range slices.Sorted(maps.Keys(n.db.resources)) {
		for _, w := range n.db.load(name, n.id).Queue {
			away := !w.AwayUntil.IsZero() && !now.Before(w.AwayUntil)
			dead := w.AwayUntil.IsZero() && !w.Here && !now.Before(w.AliveUntil.Add(keep))
			if (away || dead) && len(left) < limit {
				left = append(left, lock.Place{Resource: name, ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID})
			}
		}
	}
	return left, n.failing(nil).err
}

// processes are those in the queue of a resource, in its order; "-" before one that is away.
func (d *database) processes(name string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, w := range d.resources[name].Queue {
		if w.AwayUntil.IsZero() {
			all = append(all, w.Request.ProcessID)
		} else {
			all = append(all, "-"+w.Request.ProcessID)
		}
	}
	return all
}

// holder is the process that holds a resource now, "" if none does.
func (d *database) holder(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	hold, _ := d.resources[name].Holder(time.Now())
	return hold.ProcessID
}

// change does what no command does: somebody's hand in the database.
func (d *database) change(name string, f func(*lock.Resource)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.resources[name]
	f(&r)
	d.resources[name] = r
}

// ends is what the history tells of the waiting of a process: how it began and how it ended, and why.
func (d *database) ends(process string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var told []string
	for _, e := range d.events {
		if e.ProcessID == process {
			text := string(e.Kind)
			if e.Reason != "" {
				text += " " + e.Reason
			}
			told = append(told, text)
		}
	}
	return told
}

// server is one of several over a database.
type server struct {
	*lock.Service
	node *node
	t    *testing.T
}

// usual are the limits of most tests: no two of the times are the same.
var usual = lock.Limits{
	MaxTTL: lock.LongestTTL, MaxWait: 24 * time.Hour, MaxWaiters: 100, MaxQueue: 100,
	KeepPlace: 10 * time.Second, Recheck: 7 * time.Second,
}

// lookAtAll is when a server with the usual limits first looks at all requests that wait on it.
const lookAtAll = 10 * 7 * time.Second

// rarely are limits under which nothing is looked at again during a test: what happens, happens without that.
func rarely() lock.Limits {
	l := usual
	l.Recheck = 1000 * time.Hour
	return l
}

func newService(n *node, limits lock.Limits) *lock.Service {
	return lock.NewService(n, limits, slog.New(slog.DiscardHandler))
}

// serve starts a server, which ends with the test.
func (d *database) serve(t *testing.T, id int, limits lock.Limits) *server {
	n := &node{db: d, id: id}
	s := &server{newService(n, limits), n, t}
	d.mu.Lock()
	d.hints[id], d.replaced[id] = s.Wake, s.WakeSuperseded
	d.mu.Unlock()
	s.Start()
	t.Cleanup(func() {
		s.StopWaiting()
		synctest.Wait()
		s.Stop()
	})
	return s
}

// deaf makes the server miss every hint from the others from now on.
func (s *server) deaf() {
	s.node.db.mu.Lock()
	defer s.node.db.mu.Unlock()
	delete(s.node.db.hints, s.node.id)
	delete(s.node.db.replaced, s.node.id)
}

// wantIdle fails if there were commands since there were that many.
func (s *server) wantIdle(before int) {
	s.t.Helper()
	if got := s.node.commands() - before; got != 0 {
		s.t.Errorf("%d commands while nothing happened, want none", got)
	}
}

// call is a request under way.
type call struct {
	t       *testing.T
	process string
	hangUp  context.CancelFunc
	done    chan struct{}
	began   time.Time

	grant lock.Grant
	err   error
	took  time.Duration
}

// ask begins a request for "r" and returns when it waits or has its answer.
func (s *server) ask(c lock.Acquire) *call {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	one := &call{t: s.t, process: c.ProcessID, hangUp: cancel, done: make(chan struct{}), began: time.Now()}
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
func (s *server) queue(c lock.Acquire) *call {
	s.t.Helper()
	c.Wait = cmp.Or(c.Wait, time.Hour)
	one := s.ask(c)
	one.wantWaiting()
	return one
}

// hold has a process hold "r".
func (s *server) hold(process string, ttl time.Duration) lock.Grant {
	s.t.Helper()
	g, err := s.Acquire(s.t.Context(), lock.Acquire{Resource: "r", ProcessID: process, TTL: ttl})
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

// pass lets time go by, and everything come of it.
func pass(d time.Duration) {
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

// wantTold fails unless that is all that the history tells of a process.
func (d *database) wantTold(t *testing.T, process string, want ...string) {
	t.Helper()
	if got := d.ends(process); !slices.Equal(got, want) {
		t.Fatalf("history of %q: got %q, want %q", process, got, want)
	}
}
