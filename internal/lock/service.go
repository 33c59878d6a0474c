package lock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// Store keeps resources and their history. All its methods may be called concurrently, and their errors wrap one of this
// package's sentinel errors where the caller can do something about it.
type Store interface {
	// Execute decides a command on the stored states and makes the outcome durable before it returns: a nil error means
	// committed and synced. A refusal is returned as Decide gave it.
	Execute(ctx context.Context, c Command) (Outcome, error)
	// Watch sets who is told of every transaction of Execute, before Execute returns. It is called once, before Execute.
	Watch(func(Commit))
	Reader
	Sweepable
}

// Commit tells what a transaction means for those who wait.
type Commit struct {
	Now     time.Time  // its moment
	Read    time.Time  // when this process learned that moment, by its own clock
	Awaited []Resource // of the resources that it looked at or changed those that have waiters, as they are now
	Granted []Grant    // all holds that it gave to waiters connected to this server
	Unknown bool       // it may not have happened: its grants have to be asked for again

	Superseded []int64 // connections of requests on this server whose places later requests have taken
}

// Reader looks at what is stored, outside any transaction of Execute.
type Reader interface {
	// Find returns the resource, with its Name and nothing else when there is no such row, and the moment of the look.
	Find(ctx context.Context, name string) (Resource, time.Time, error)
	// Held calls begin once with how many resources match the filter and are held, and the moment of the look, and then
	// each for every one of them, all from one snapshot: ordered by id, or with a Prefix by name, byte by byte. An error of
	// begin or each ends it.
	Held(ctx context.Context, f ListFilter, begin func(total int, now time.Time) error, each func(Resource) error) error
	// HeldBy returns the names of up to limit resources after the given name that the process holds, ordered by name.
	HeldBy(ctx context.Context, process, after string, limit int) ([]string, error)
	// History returns the newest events that match the filter, newest first.
	History(ctx context.Context, f HistoryFilter) ([]Event, error)
	// LastEnd tells how the process's last hold of the resource ended, or for a token that very hold. It finds nothing when
	// there was none, or when its end has not been recorded. A hold that was released is not broken afterwards.
	LastEnd(ctx context.Context, resource, process string, token int64) (Event, bool, error)
	// Queue returns up to limit connected waiters with a higher ticket, in their order, the position of the first of them,
	// from 1, and the moment of the look.
	Queue(ctx context.Context, resource string, after int64, limit int) (waiters []*Waiter, position int, now time.Time, err error)
	// Waiting returns what is stored about the requests that wait on this server: about all, or only those for resources
	// that nobody holds.
	Waiting(ctx context.Context, onlyFree bool) ([]Waiting, error)
}

// Waiting is a request that waits on this server.
type Waiting struct {
	Request Acquire // the names of its place, and its Connection
	Free    bool    // nobody holds the resource
}

// Sweepable is what the housekeeping needs.
type Sweepable interface {
	// Expired returns the names of up to limit resources whose hold has expired and has not been ended by a command.
	Expired(ctx context.Context, limit int) ([]string, error)
	// Idle looks at the next window of rows after the given id and returns the names among them that nothing has held
	// for the given time, the moment that they must have ended before, and the id to go on after (0: from the start).
	Idle(ctx context.Context, afterID int64, window int, idle time.Duration) (names []string, before time.Time, next int64, err error)
	// DeleteEvents deletes up to limit events older than the given age and returns how many.
	DeleteEvents(ctx context.Context, age time.Duration, limit int) (int, error)
	// Left returns up to limit places that are not kept any more, where the place of a dead server's waiter is kept for the
	// given time, and forgets servers that died long ago.
	Left(ctx context.Context, keep time.Duration, limit int) ([]Place, error)
}

// ListFilter chooses held resources. Zero fields do not restrict.
type ListFilter struct {
	Prefix    string // of the name, compared character by character
	ProcessID string
	AfterID   int64  // only rows with a higher id
	After     string // with a Prefix: only names that are greater, byte by byte
	Limit     int    // at most so many
}

// HistoryFilter chooses events. Zero fields do not restrict.
type HistoryFilter struct {
	Resource  string
	ProcessID string
	BeforeID  int64 // only events with a lower id
	Limit     int
}

// Service is what the HTTP API offers, in terms of the domain. It checks every request against the limits, so that the
// store only ever sees sound commands. It is safe for concurrent use.
//
// Requests that wait need Start; they are answered by StopWaiting at the latest.
type Service struct {
	store    Store
	limits   Limits
	room     *waitingRoom
	refusals *refusals
}

// NewService returns a service on the store.
func NewService(store Store, limits Limits, log *slog.Logger) *Service {
	refused := &refusals{}
	s := &Service{store: store, limits: limits, room: newWaitingRoom(store, limits, refused, log), refusals: refused}
	store.Watch(s.room.committed)
	return s
}

// Start begins to look after the requests that wait. It is called once.
func (s *Service) Start() { s.room.start() }

// StopWaiting answers every request that waits, and any that would have to, with [ErrStopping]. It may be called again.
func (s *Service) StopWaiting() { s.room.closeDoor() }

// Stop ends what Start began, after StopWaiting and when no request waits any more. It is called once, after Start.
func (s *Service) Stop() { s.room.stop() }

// Wake looks at the named resources again: one of them may be free, and its next waiter connected to this server.
func (s *Service) Wake(names ...string) { s.room.settle(names...) }

// WakeAll looks at all resources that requests wait for on this server.
func (s *Service) WakeAll() { s.room.wakeAll() }

// WakeSuperseded ends the waiting of a request whose place a later one has taken on another server.
func (s *Service) WakeSuperseded(connection int64) { s.room.supersede(connection) }

// Acquire returns the new hold, or [InvalidError], [HeldError], [QueueFullError], [PlaceLostError] or one of the sentinel
// errors. With Wait it may block until it has one of these, or until ctx ends, which means that the client has gone: the
// request then has no hold, and its place is kept only if it has a RequestID. A request that need not block runs to its
// end whether its client is there or not: see GiveBack.
func (s *Service) Acquire(ctx context.Context, c Acquire) (Grant, error) {
	c = s.withDefaults(c)
	if err := c.validate(s.limits); err != nil {
		return Grant{}, err
	}
	c.Connection, c.Named = int64(rand.Uint64()>>1)|1, c.RequestID != ""
	if c.Wait > 0 {
		return s.room.acquire(ctx, c)
	}
	ctx = context.Background() // see GiveBack
	if err := s.refuse(ctx, c); err != nil {
		return Grant{}, err
	}
	out, err := s.store.Execute(ctx, c)
	if err != nil {
		s.refusals.note(c.Resource, isHeld(err))
		return Grant{}, err
	}
	return grantOf(out, c), nil
}

// grantOf is what the command's own outcome grants.
func grantOf(out Outcome, c Acquire) Grant {
	return Grant{ID: out.Changed[0].ID, Now: out.Now, Hold: out.Hold, To: c, Repeated: out.Repeated, Ticket: out.Ticket}
}

// GiveBack ends a hold whose client has gone before it was told of it, and ignores its minimum. With a RequestID the
// client can come back: a request that was granted the hold at once keeps it, and one that had waited keeps its place for
// KeepPlace. If the database cannot do it now, it is done later.
func (s *Service) GiveBack(g Grant) { s.room.giveBack(context.Background(), g) }

// CheckAcquire returns what Acquire would find wrong with the request itself.
func (s *Service) CheckAcquire(c Acquire) error { return s.withDefaults(c).validate(s.limits) }

func (s *Service) withDefaults(c Acquire) Acquire {
	if c.TTL == 0 {
		c.TTL = s.limits.DefaultTTL
	}
	return c
}

// Release returns the hold that it ended, or [InvalidError], [NotHeldError] or one of the sentinel errors.
func (s *Service) Release(ctx context.Context, c Release) (Outcome, error) {
	if err := c.validate(); err != nil {
		return Outcome{}, err
	}
	out, err := s.store.Execute(ctx, c)
	if err != nil {
		err = s.explain(ctx, err, c.Token, map[EventKind]Why{Released: AlreadyReleased, ForceReleased: Broken})
	}
	return out, err
}

// CheckRelease returns what Release would find wrong with the request itself.
func (s *Service) CheckRelease(c Release) error { return c.validate() }

// Renew returns the hold with its new expiry, or [InvalidError], [NotHeldError] or one of the sentinel errors.
func (s *Service) Renew(ctx context.Context, c Renew) (Outcome, error) {
	if err := c.validate(s.limits); err != nil {
		return Outcome{}, err
	}
	out, err := s.store.Execute(ctx, c)
	if err != nil {
		err = s.explain(ctx, err, c.Token, map[EventKind]Why{ForceReleased: Broken})
	}
	return out, err
}

// CheckRenew returns what Renew would find wrong with the request itself.
func (s *Service) CheckRenew(c Renew) error { return c.validate(s.limits) }

// explain adds to a NotHeldError how the hold ended, as far as the history knows and the caller's answer makes a
// difference of it. The refusal stands whatever comes of this.
func (s *Service) explain(ctx context.Context, err error, token int64, ends map[EventKind]Why) error {
	var notHeld *NotHeldError
	if !errors.As(err, &notHeld) {
		return err
	}
	if end, found, endErr := s.store.LastEnd(ctx, notHeld.Resource, notHeld.ProcessID, token); endErr == nil && found {
		if why, tells := ends[end.Kind]; tells {
			return &NotHeldError{Resource: notHeld.Resource, ProcessID: notHeld.ProcessID, Why: why}
		}
	}
	return err
}

// ForceRelease returns the hold that it broke, or [InvalidError], [NotLockedError] or one of the sentinel errors.
func (s *Service) ForceRelease(ctx context.Context, c ForceRelease) (Outcome, error) {
	if err := c.validate(); err != nil {
		return Outcome{}, err
	}
	return s.store.Execute(ctx, c)
}

// CheckForceRelease returns what ForceRelease would find wrong with the request itself.
func (s *Service) CheckForceRelease(c ForceRelease) error { return c.validate() }

// Owned is a hold as its process knows it.
type Owned struct {
	Resource string
	Token    int64
}

// manyHolds is how many holds of a process one transaction renews or releases, so that nobody waits long behind it.
const manyHolds = 500

// RenewAll renews every hold of the process and returns how many that were. Of the holds that the caller lists it returns
// those that the process has no more.
func (s *Service) RenewAll(ctx context.Context, process string, ttl time.Duration, listed []Owned) (renewed int, lost []Owned, err error) {
	if err := s.CheckRenewAll(process, ttl, listed); err != nil {
		return 0, nil, err
	}
	kept := map[Owned]bool{}
	err = s.forHolds(ctx, process, func(names []string) (Command, func(Outcome)) {
		return RenewAll{Names: names, ProcessID: process, TTL: ttl}, func(out Outcome) {
			renewed += len(out.Changed)
			for _, r := range out.Changed {
				for _, h := range r.Holds {
					kept[Owned{r.Name, h.Token}] = true
				}
			}
		}
	})
	lost = slices.DeleteFunc(slices.Clone(listed), func(o Owned) bool { return kept[o] })
	return renewed, lost, err
}

// CheckRenewAll returns what RenewAll would find wrong with the request itself.
func (s *Service) CheckRenewAll(process string, ttl time.Duration, listed []Owned) error {
	var f faults
	f.name("process_id", process)
	f.requiredTTL(ttl, s.limits)
	for i, o := range listed {
		f.name(fmt.Sprintf("holds.%d.resource_name", i), o.Resource)
	}
	return f.err()
}

// ReleaseAll ends every hold of the process and returns how many that were.
func (s *Service) ReleaseAll(ctx context.Context, process string) (released int, err error) {
	if err := s.CheckName("process_id", process); err != nil {
		return 0, err
	}
	err = s.forHolds(ctx, process, func(names []string) (Command, func(Outcome)) {
		return ReleaseAll{Names: names, ProcessID: process}, func(out Outcome) { released += len(out.Changed) }
	})
	return released, err
}

// forHolds runs commands over all resources that a process holds, some at a time.
func (s *Service) forHolds(ctx context.Context, process string, command func(names []string) (Command, func(Outcome))) error {
	for after := ""; ; {
		names, err := s.store.HeldBy(ctx, process, after, manyHolds)
		if err != nil || len(names) == 0 {
			return err
		}
		c, take := command(names)
		out, err := s.store.Execute(ctx, c)
		if err != nil {
			return err
		}
		take(out)
		if len(names) < manyHolds {
			return nil
		}
		after = names[len(names)-1]
	}
}

// Status returns the state of a resource, without its queue, and the moment of the look.
func (s *Service) Status(ctx context.Context, name string) (Resource, time.Time, error) {
	if err := s.CheckName("resource_name", name); err != nil {
		return Resource{}, time.Time{}, err
	}
	r, now, err := s.store.Find(ctx, name)
	if err != nil {
		return Resource{}, time.Time{}, err
	}
	return r, now, nil
}

// Queue returns up to limit waiters with a higher ticket. See [Reader].
func (s *Service) Queue(ctx context.Context, name string, after int64, limit int) (waiters []*Waiter, position int, now time.Time, err error) {
	if err := s.CheckName("resource_name", name); err != nil {
		return nil, 0, time.Time{}, err
	}
	return s.store.Queue(ctx, name, after, limit)
}

// Current returns the hold of a resource that its process has not released, if there is one, and the moment of the look:
// a fencing token is valid while it is that hold's.
func (s *Service) Current(ctx context.Context, name string) (hold Hold, current bool, now time.Time, err error) {
	r, now, err := s.Status(ctx, name)
	if err != nil {
		return Hold{}, false, now, err
	}
	if hold, held := r.Holder(now); held && hold.Owned(now) {
		return hold, true, now, nil
	}
	return Hold{}, false, now, nil
}

// CheckName returns what is wrong with a name that a request is about.
func (s *Service) CheckName(field, name string) error {
	var f faults
	f.name(field, name)
	return f.err()
}

// List streams the live holds that match the filter. See [Reader] for begin and each.
func (s *Service) List(ctx context.Context, f ListFilter, begin func(total int, now time.Time) error, each func(Resource) error) error {
	if err := s.CheckList(f); err != nil {
		return err
	}
	return s.store.Held(ctx, f, begin, each)
}

// CheckList returns what List would find wrong with the filter.
func (s *Service) CheckList(f ListFilter) error {
	var faults faults
	faults.text("prefix", f.Prefix, MaxNameLength)
	faults.text("process_id", f.ProcessID, MaxNameLength)
	return faults.err()
}

// History returns the newest events that match the filter, newest first.
func (s *Service) History(ctx context.Context, f HistoryFilter) ([]Event, error) {
	if err := s.CheckHistory(f); err != nil {
		return nil, err
	}
	return s.store.History(ctx, f)
}

// CheckHistory returns what History would find wrong with the filter.
func (s *Service) CheckHistory(f HistoryFilter) error {
	var faults faults
	faults.text("resource_name", f.Resource, MaxNameLength)
	faults.text("process_id", f.ProcessID, MaxNameLength)
	return faults.err()
}

// SweepExpired records the end of up to limit holds whose time is over and returns how many it found: fewer than limit
// means that none is left for now.
func (s *Service) SweepExpired(ctx context.Context, limit int) (int, error) {
	names, err := s.store.Expired(ctx, limit)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	_, err = s.store.Execute(ctx, Settle{Names: names})
	return len(names), err
}

// SweepIdle forgets, among the next window of rows after the given id, the resources that nothing has held for the given
// time, and returns how many. It goes on after next; 0 means that the last row was reached.
func (s *Service) SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (forgotten int, next int64, err error) {
	names, before, next, err := s.store.Idle(ctx, afterID, window, idle)
	if err != nil || len(names) == 0 {
		return 0, next, err
	}
	out, err := s.store.Execute(ctx, Forget{Names: names, Before: before})
	return len(out.Changed), next, err
}

// SweepEvents deletes up to limit events that are older than the given age and returns how many: fewer than limit means
// that none is left for now.
func (s *Service) SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error) {
	return s.store.DeleteEvents(ctx, age, limit)
}

// SweepPlaces takes away up to limit places in queues that are not kept any more and returns how many it found: fewer than
// limit means that none is left for now.
func (s *Service) SweepPlaces(ctx context.Context, limit int) (int, error) {
	left, err := s.store.Left(ctx, s.limits.KeepPlace, limit)
	if err != nil || len(left) == 0 {
		return 0, err
	}
	_, err = s.store.Execute(ctx, Vacate{Gone: left, Keep: s.limits.KeepPlace})
	return len(left), err
}
