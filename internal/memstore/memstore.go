// Package memstore implements service.Store in memory. It is for the tests of this
// module, and through client/locktest for those of its users. It has the rules and the
// queue of internal/store and passes the same conformance tests, but nothing survives the
// process.
//
// A [Database] may have several servers, like a Postgres database. Each server is a
// [Store]. Except for ExecuteBatch, a transaction executes one command. ExecuteWithin
// ignores its delay.
package memstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Database is what several servers share. Its methods may be called concurrently.
type Database struct {
	clock func() time.Time

	mu         sync.Mutex
	resources  map[string]*record
	tokenFloor int64
	events     []lock.Event // oldest first
	servers    []*Store     // the id of a server is its index + 1
	lastID     int64
	lastEvent  int64
}

// record is a stored resource. The fields of its waiters that depend on the reading
// server, Local and AliveUntil, are set by load.
type record struct {
	lock.Resource
	servers map[int64]int // the server of each waiter, by ticket
}

// NewDatabase returns an empty database. Its time is that of the clock, in UTC and
// truncated to microseconds, like that of the other databases.
func NewDatabase(clock func() time.Time) *Database {
	return &Database{
		clock:     func() time.Time { return clock().UTC().Truncate(time.Microsecond) },
		resources: map[string]*record{},
	}
}

// Open adds a server.
func (d *Database) Open() *Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &Store{db: d, id: len(d.servers) + 1}
	d.servers = append(d.servers, s)
	return s
}

// Now returns the database's time.
func (d *Database) Now() time.Time { return d.clock() }

// Resource returns the state of a resource with its whole queue. No waiter in it is
// local.
func (d *Database) Resource(name string) lock.Resource {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.load(name, 0)
}

// Events returns the whole history, oldest first.
func (d *Database) Events() []lock.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.events)
}

// longLease is the remaining lease of a live server: longer than any test runs.
const longLease = 24 * 365 * time.Hour

// load returns the state of a resource as the given server reads it.
func (d *Database) load(name string, server int) lock.Resource {
	stored := d.resources[name]
	if stored == nil {
		return lock.Resource{Name: name, Token: d.tokenFloor}
	}
	r := stored.Resource
	r.Holds, r.Queue = slices.Clone(r.Holds), slices.Clone(r.Queue)
	for i, w := range r.Queue {
		loaded, owner := *w, stored.servers[w.Ticket]
		loaded.Local = owner == server && w.DetachedUntil.IsZero()
		loaded.AliveUntil = time.Time{}
		if owner != server {
			loaded.AliveUntil = d.aliveUntil(owner)
		}
		r.Queue[i] = &loaded
	}
	return r
}

// aliveUntil returns when the lease of a server ends.
func (d *Database) aliveUntil(server int) time.Time {
	if server == 0 {
		return time.Time{}
	}
	if end := d.servers[server-1].leaseEnd; !end.IsZero() {
		return end
	}
	return d.clock().Add(longLease)
}

// save stores a new state and returns it with its id. A waiter that was not loaded
// belongs to the given server.
func (d *Database) save(r lock.Resource, loaded []*lock.Waiter, server int) lock.Resource {
	servers := map[int64]int{}
	for i, w := range r.Queue {
		servers[w.Ticket] = server
		if slices.Contains(loaded, w) {
			servers[w.Ticket] = d.resources[r.Name].servers[w.Ticket]
		}
		kept := *w
		kept.Request.Wait = 0
		r.Queue[i] = &kept
	}
	if r.ID == 0 {
		d.lastID++
		r.ID = d.lastID
	}
	d.resources[r.Name] = &record{r, servers}
	if r.Deleted {
		delete(d.resources, r.Name)
		d.tokenFloor = max(d.tokenFloor, r.Token)
	}
	return r
}

// Store is one server of a database. Make one with [Database.Open]; it executes commands
// between Start and Close.
type Store struct {
	db *Database
	id int

	// Guarded by db.mu.
	running    bool
	onCommit   func(service.Commit)
	wake       func(resource string)
	superseded func(connection int64)
	fault      func(lock.Command) Fault
	leaseEnd   time.Time // zero: the server is alive
}

// Fault describes how a command or a read fails.
type Fault struct {
	Err       error // nil: it does not fail
	Committed bool  // if Err is service.ErrOutcomeUnknown: whether the transaction was committed
}

// Start makes the store execute commands and report each commit to onCommit. The contract
// of onCommit is that of internal/store.
func (s *Store) Start(onCommit func(service.Commit)) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.running, s.onCommit = true, onCommit
}

// Close makes the store refuse commands. To the other servers this one is dead from now
// on.
func (s *Store) Close() error {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.running = false
	if s.leaseEnd.IsZero() {
		s.leaseEnd = s.db.clock()
	}
	return nil
}

// Notify sets the callbacks for notifications of other servers. They call wake if a
// resource is free and its next waiter is local, and superseded if a request took the
// place of a local one. Either may be nil. A callback runs inside a transaction, so it
// must not use the store.
func (s *Store) Notify(wake func(resource string), superseded func(connection int64)) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.wake, s.superseded = wake, superseded
}

// SetFault sets the function that decides which commands and reads fail. It gets nil for
// a read. A nil function ends all faults.
func (s *Store) SetFault(fault func(lock.Command) Fault) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.fault = fault
}

// EndLease ends the lease of this server at the given time. From then on the server is
// dead.
func (s *Store) EndLease(at time.Time) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.leaseEnd = at
}

// Edit changes a resource in a way that no command does, as an administrator or the
// restore of a backup may. New waiters belong to this server.
func (s *Store) Edit(name string, edit func(*lock.Resource)) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	r := s.db.load(name, s.id)
	loaded := slices.Clone(r.Queue)
	edit(&r)
	s.db.save(r, loaded, s.id)
}

// DatabaseID returns a constant id.
func (s *Store) DatabaseID() string { return fmt.Sprintf("%032x", 1) }

// Ping returns the error of a read, if reads fail.
func (s *Store) Ping(context.Context) error { return s.faultOf(nil).Err }

// faultOf returns the fault of a command, or of a read if the command is nil.
func (s *Store) faultOf(c lock.Command) Fault {
	s.db.mu.Lock()
	fault := s.fault
	s.db.mu.Unlock()
	if fault == nil {
		return Fault{}
	}
	return fault(c)
}

// Execute implements service.Store.
func (s *Store) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	results, err := s.ExecuteBatch(ctx, c)
	if err != nil {
		return lock.Outcome{}, err
	}
	return results[0].Outcome, results[0].Err
}

// ExecuteWithin implements service.Store.
func (s *Store) ExecuteWithin(ctx context.Context, c lock.Command, _ time.Duration) (lock.Outcome, error) {
	return s.Execute(ctx, c)
}

// Result is the answer to one command of a batch.
type Result struct {
	Outcome lock.Outcome
	Err     error // a refusal
}

// ExecuteBatch executes commands in one transaction. If the first one fails, all fail.
func (s *Store) ExecuteBatch(ctx context.Context, batch ...lock.Command) ([]Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fault := s.faultOf(batch[0])
	unknown := errors.Is(fault.Err, service.ErrOutcomeUnknown)
	if fault.Err != nil && !unknown {
		return nil, fault.Err
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if !s.running {
		return nil, service.ErrStopping
	}
	t := transaction{
		Store: s, commit: service.Commit{Now: s.db.clock(), ReadAt: time.Now(), Unknown: unknown},
		states: map[string]lock.Resource{}, loaded: map[string][]*lock.Waiter{}, stored: !unknown || fault.Committed,
	}
	results := make([]Result, len(batch))
	for i, c := range batch {
		results[i].Outcome, results[i].Err = t.decide(c)
	}
	t.finish(results)
	if unknown {
		return nil, fault.Err
	}
	return results, nil
}

// transaction is a transaction in progress. The database is locked.
type transaction struct {
	*Store
	commit  service.Commit
	states  map[string]lock.Resource
	loaded  map[string][]*lock.Waiter
	changed []string
	stored  bool // whether it stores its changes
}

// decide decides a command on the states that the earlier commands left.
func (t *transaction) decide(c lock.Command) (lock.Outcome, error) {
	var before []lock.Resource
	for _, name := range c.Needs().Resources {
		if _, found := t.states[name]; !found {
			r := t.db.load(name, t.id)
			t.states[name], t.loaded[name] = r, slices.Clone(r.Queue)
		}
		before = append(before, t.states[name])
	}
	out, err := c.Decide(t.commit.Now, before)
	for _, r := range out.Changed {
		t.states[r.Name] = r
		t.changed = append(t.changed, r.Name)
	}
	t.commit.Events = append(t.commit.Events, out.Events...)
	for _, w := range out.Superseded {
		if w.Local {
			t.commit.Superseded = append(t.commit.Superseded, w.Connection)
		} else if t.stored {
			t.notifySuperseded(w)
		}
	}
	return out, err
}

// notifySuperseded notifies the server of a request whose place a later request has
// taken.
func (t *transaction) notifySuperseded(w *lock.Waiter) {
	owner := t.db.resources[w.Request.Resource].servers[w.Ticket]
	if owner != 0 && t.db.servers[owner-1].superseded != nil {
		t.db.servers[owner-1].superseded(w.Connection)
	}
}

// finish stores the changes and reports the commit.
func (t *transaction) finish(results []Result) {
	slices.Sort(t.changed)
	for _, name := range slices.Compact(t.changed) {
		if t.stored {
			t.states[name] = t.db.save(t.states[name], t.loaded[name], t.id)
		}
	}
	if t.stored {
		for _, e := range t.commit.Events {
			t.db.lastEvent++
			e.ID = t.db.lastEvent
			t.db.events = append(t.db.events, e)
		}
	}
	for i := range results {
		results[i].Outcome.AssignIDs(func(name string) int64 { return t.states[name].ID })
		t.commit.Granted = append(t.commit.Granted, results[i].Outcome.Granted...)
	}
	for _, name := range slices.Sorted(maps.Keys(t.states)) {
		if r := t.states[name]; r.Waiters > 0 || len(t.loaded[name]) > 0 {
			t.commit.Contended = append(t.commit.Contended, r)
			if t.stored {
				t.notifyNext(r)
			}
		}
	}
	if t.onCommit != nil && (len(t.changed)+len(t.commit.Contended) > 0 || t.commit.Unknown) {
		t.onCommit(t.commit)
	}
}

// notifyNext notifies the server of the next waiter if the resource is free and reserved
// for it.
func (t *transaction) notifyNext(r lock.Resource) {
	next := r.Next(t.commit.Now)
	if next == nil || next.Local {
		return
	}
	owner := t.db.resources[r.Name].servers[next.Ticket]
	if owner != 0 && t.db.servers[owner-1].wake != nil {
		t.db.servers[owner-1].wake(r.Name)
	}
}

// byID returns the stored resources in the order of their ids.
func (d *Database) byID() []*record {
	return slices.SortedFunc(maps.Values(d.resources), func(a, b *record) int { return cmp.Compare(a.ID, b.ID) })
}
