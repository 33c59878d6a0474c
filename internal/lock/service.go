package lock

import (
	"context"
	"errors"
	"iter"
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
	// History returns the newest events that match the filter, newest first. See
	// [HistoryFilter.ByTime].
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
	Kinds     []EventKind // each once
	Since     time.Time   // only events at this moment or later
	Until     time.Time   // only events before this moment
	BeforeID  int64       // only events that come behind this one
	Limit     int
}

// ByTime reports whether the newest event is the one with the latest moment. Otherwise it is the
// one with the highest id. The two orders differ by expiries only, which are recorded after their
// moment, and never within a resource.
func (f HistoryFilter) ByTime() bool {
	return len(f.Kinds) > 0 || !f.Since.IsZero() || !f.Until.IsZero()
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
// request then has no hold that its client cannot come back for, and its place is kept only if it has a RequestID.
// Without Wait it runs to its end whether its client is there or not: see GiveBack.
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
		err = s.explain(ctx, err, c.Token)
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
		err = s.explain(ctx, err, c.Token)
	}
	return out, err
}

// CheckRenew returns what Renew would find wrong with the request itself.
func (s *Service) CheckRenew(c Renew) error { return c.validate(s.limits) }

// explain adds to a NotHeldError how the hold ended, as far as the state does not tell and the
// history knows. The end of a hold does not change, so it is true whatever happened since the
// refusal. A process that holds the resource by another acquisition learns of an earlier hold
// only that it was ended on purpose. The refusal stands whatever comes of this.
func (s *Service) explain(ctx context.Context, err error, token int64) error {
	var notHeld *NotHeldError
	if !errors.As(err, &notHeld) || notHeld.Why != Unknown && notHeld.Why != OtherToken {
		return err
	}
	end, found, endErr := s.store.LastEnd(ctx, notHeld.Resource, notHeld.ProcessID, token)
	if endErr != nil || !found || notHeld.Why == OtherToken && end.Kind == Expired {
		return err
	}
	explained := *notHeld
	switch end.Kind {
	case ForceReleased:
		explained.Why = Broken
	case Expired:
		explained.Why = HasExpired
	default:
		explained.Why = AlreadyReleased
	}
	return &explained
}

// ForceRelease returns the hold that it broke, or [InvalidError], [NotLockedError], [OtherHoldError] or one of the
// sentinel errors.
func (s *Service) ForceRelease(ctx context.Context, c ForceRelease) (Outcome, error) {
	if err := c.validate(); err != nil {
		return Outcome{}, err
	}
	return s.store.Execute(ctx, c)
}

// CheckForceRelease returns what ForceRelease would find wrong with the request itself.
func (s *Service) CheckForceRelease(c ForceRelease) error { return c.validate() }

// manyHolds is how many holds of a process one transaction renews or releases, so that nobody waits long behind it.
const manyHolds = 500

// Heartbeat is what a renewal of many holds did.
type Heartbeat struct {
	Renewed int
	Endless int     // how many holds were left alone because they never expire
	Lost    []Owned // of the listed holds those that the process has no more, in the order of the list
}

// RenewAll renews every hold of the process, or those that are listed unless the list is nil. An
// error may come after some of them were renewed; the call can be repeated.
func (s *Service) RenewAll(ctx context.Context, process string, ttl time.Duration, listed []Owned) (done Heartbeat, err error) {
	if err := s.CheckRenewAll(process, ttl, listed); err != nil {
		return done, err
	}
	only := onlyOf(listed)
	kept := map[Owned]bool{}
	err = s.forHolds(ctx, process, listed, func(names []string) Command {
		return RenewAll{Names: names, ProcessID: process, TTL: ttl, Only: only}
	}, func(out Outcome) {
		done.Renewed += len(out.Changed)
		done.Endless += len(out.Endless)
		for _, r := range out.Changed {
			for _, h := range r.Holds {
				kept[Owned{r.Name, h.Token}] = true
			}
		}
		for _, o := range out.Endless {
			kept[o] = true
		}
	})
	done.Lost = without(listed, kept)
	return done, err
}

// CheckRenewAll returns what RenewAll would find wrong with the request itself.
func (s *Service) CheckRenewAll(process string, ttl time.Duration, listed []Owned) error {
	var f faults
	f.name("process_id", process)
	f.requiredTTL(ttl, s.limits)
	f.holds(listed)
	return f.err()
}

// ReleaseAll ends every hold of the process, or those that are listed unless the list is nil. It
// returns how many that were, and of the listed holds those that the process has no more. An
// error may come after some of them were released; the call can be repeated.
func (s *Service) ReleaseAll(ctx context.Context, process string, listed []Owned) (released int, lost []Owned, err error) {
	if err := s.CheckReleaseAll(process, listed); err != nil {
		return 0, nil, err
	}
	only := onlyOf(listed)
	ended := map[Owned]bool{}
	err = s.forHolds(ctx, process, listed, func(names []string) Command {
		return ReleaseAll{Names: names, ProcessID: process, Only: only}
	}, func(out Outcome) {
		for _, e := range out.Events {
			if e.Kind == Released {
				released++
				ended[Owned{e.Resource, e.Token}] = true
			}
		}
	})
	return released, without(listed, ended), err
}

// CheckReleaseAll returns what ReleaseAll would find wrong with the request itself.
func (s *Service) CheckReleaseAll(process string, listed []Owned) error {
	var f faults
	f.name("process_id", process)
	f.holds(listed)
	return f.err()
}

// onlyOf is the set of the listed holds.
func onlyOf(listed []Owned) Only {
	if listed == nil {
		return nil
	}
	only := make(Only, len(listed))
	for _, o := range listed {
		only[o] = true
	}
	return only
}

// without returns the listed holds that are not in the set.
func without(listed []Owned, set map[Owned]bool) []Owned {
	return slices.DeleteFunc(slices.Clone(listed), func(o Owned) bool { return set[o] })
}

// forHolds runs commands over the resources of the listed holds, some at a time; with a nil list
// over all resources that a process holds. It calls take with each outcome.
func (s *Service) forHolds(
	ctx context.Context, process string, listed []Owned, command func(names []string) Command, take func(Outcome),
) error {
	for names, err := range s.chunks(ctx, process, listed) {
		if err != nil {
			return err
		}
		out, err := s.store.Execute(ctx, command(names))
		if err != nil {
			return err
		}
		take(out)
	}
	return nil
}

// chunks yields the names of up to manyHolds resources at a time, in their order, and ends with
// an error.
func (s *Service) chunks(ctx context.Context, process string, listed []Owned) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if listed != nil {
			var names []string
			for _, o := range listed {
				names = append(names, o.Resource)
			}
			slices.Sort(names)
			for chunk := range slices.Chunk(slices.Compact(names), manyHolds) {
				if !yield(chunk, nil) {
					return
				}
			}
			return
		}
		for after := ""; ; {
			names, err := s.store.HeldBy(ctx, process, after, manyHolds)
			if err == nil && len(names) == 0 || !yield(names, err) || len(names) < manyHolds {
				return
			}
			after = names[len(names)-1]
		}
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
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults.add("until", "greater_than", "Input should be later than since")
	}
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
