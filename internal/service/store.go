package service

import (
	"context"
	"time"

	"resource-lock-manager/internal/lock"
)

// Store keeps resources and their history. All its methods may be called concurrently.
// Their errors wrap one of the errors of this package if the caller can act on it.
type Store interface {
	// Execute decides a command on the stored states and makes the outcome durable before
	// it returns: a nil error means committed and synced to disk. It returns a refusal of
	// the command as Decide gave it.
	Execute(ctx context.Context, c lock.Command) (lock.Outcome, error)
	// ExecuteWithin is like Execute, but the command does not cause a transaction by
	// itself until maxDelay has passed. It joins any transaction that starts earlier.
	ExecuteWithin(ctx context.Context, c lock.Command, maxDelay time.Duration) (lock.Outcome, error)
	Reader
	Housekeeping
}

// Commit describes a transaction of this server, which was committed unless it is
// Unknown.
type Commit struct {
	Now     time.Time    // the timestamp of its decisions
	ReadAt  time.Time    // when this process read that timestamp, by its own clock
	Events  []lock.Event // what it appended to the history, in order; without ids
	Unknown bool         // it may not have been committed: its outcome is unknown

	Contended  []lock.Resource // the states of those resources that it read or changed and that have waiters
	Granted    []lock.Grant    // all grants to local waiters
	Superseded []int64         // the connections of local requests whose places later requests have taken
}

// Snapshot is the state of a resource, without its queue, at one time.
type Snapshot struct {
	Resource lock.Resource
	At       time.Time
}

// Owner returns the live hold that its process has not released, if there is one. A
// fencing token is valid while it is that of the owner.
func (s Snapshot) Owner() (lock.Hold, bool) {
	hold, held := s.Resource.Holder(s.At)
	return hold, held && hold.Owned(s.At)
}

// QueuePage is a part of the queue of a resource at one time.
type QueuePage struct {
	Waiters  []*lock.Waiter // connected ones, in their order
	Position int            // of the first of them, from 1
	At       time.Time
}

// IdlePage is a part of the idle resources.
type IdlePage struct {
	Names  []string
	Before time.Time // they have been idle since before this time
	Next   int64     // the id after which the next page starts; 0: this is the last page
}

// Waiting is a request that waits on this server, as it is stored.
type Waiting struct {
	Place      lock.Place
	Connection int64
	Free       bool // no process holds the resource
}

// Reader reads what is stored, outside the transactions of Execute.
type Reader interface {
	// Find returns the state of a resource; without a row only its name is set.
	Find(ctx context.Context, name string) (Snapshot, error)
	// Held calls begin once with the number of held resources that match the filter and
	// the time of the snapshot, and then each for every one of them, all from one
	// snapshot. They are ordered by id, or with a Prefix by name, byte by byte. An error
	// of begin or each ends it.
	Held(
		ctx context.Context, f ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
	) error
	// HeldBy returns up to limit names of resources that the process holds, in the order
	// of names, starting after the given one.
	HeldBy(ctx context.Context, process, after string, limit int) ([]string, error)
	// History returns the newest events that match the filter, newest first. See
	// [HistoryFilter.ByTime].
	History(ctx context.Context, f HistoryFilter) ([]lock.Event, error)
	// LastEnd returns how the process's last hold of the resource ended, or with a token
	// how that very hold ended. It reports false if there was none, or if its end is not
	// recorded. A hold that was released does not count as force-released after that.
	LastEnd(ctx context.Context, resource, process string, token int64) (lock.Event, bool, error)
	// Queue returns up to limit connected waiters with a ticket after the given one.
	Queue(ctx context.Context, resource string, after int64, limit int) (QueuePage, error)
	// Waiting returns the requests that wait on this server: all, or only those for
	// resources that no process holds.
	Waiting(ctx context.Context, onlyFree bool) ([]Waiting, error)
}

// Housekeeping finds what can be removed.
type Housekeeping interface {
	// Expired returns the names of up to limit resources whose hold has expired and has
	// not been ended by a command.
	Expired(ctx context.Context, limit int) ([]string, error)
	// IdleResources reads up to window rows after the given id. It returns those that
	// have not been held for the given time.
	IdleResources(ctx context.Context, afterID int64, window int, idle time.Duration) (IdlePage, error)
	// DeleteEvents deletes up to limit events older than the given age and returns how
	// many.
	DeleteEvents(ctx context.Context, age time.Duration, limit int) (int, error)
	// AbandonedPlaces returns up to limit places that are not kept any more; the place of
	// a dead server's waiter is kept for the given time.
	AbandonedPlaces(ctx context.Context, keep time.Duration, limit int) ([]lock.Place, error)
	// DeleteDeadServers deletes the servers that have been dead for the given time and
	// for an hour more, and that have no waiters.
	DeleteDeadServers(ctx context.Context, keep time.Duration) error
}

// ListFilter chooses held resources. Zero fields do not restrict.
type ListFilter struct {
	Prefix    string // of the name, compared character by character
	ProcessID string
	AfterID   int64  // only rows with a higher id
	After     string // with a Prefix: only names that are greater, byte by byte
	Limit     int    // the maximum number
}

// Validate returns every fault of the filter.
func (f ListFilter) Validate(lock.Limits) []lock.Fault {
	var faults lock.Faults
	faults.Text("prefix", f.Prefix)
	faults.Text("process_id", f.ProcessID)
	return faults
}

// HistoryFilter chooses events. Zero fields do not restrict.
type HistoryFilter struct {
	Resource  string
	ProcessID string
	Kinds     []lock.EventKind // each once
	Since     time.Time        // only events at this time or later
	Until     time.Time        // only events before this time
	BeforeID  int64            // only events that come after this one, newest first
	Limit     int
}

// Validate returns every fault of the filter.
func (f HistoryFilter) Validate(lock.Limits) []lock.Fault {
	var faults lock.Faults
	faults.Text("resource_name", f.Resource)
	faults.Text("process_id", f.ProcessID)
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults.Add("until", lock.LaterThan, "since")
	}
	return faults
}

// ByTime reports whether events are ordered by their times. Otherwise they are ordered by
// their ids. The two orders differ only for expiries, which are recorded after they came,
// and never within a resource.
func (f HistoryFilter) ByTime() bool {
	return len(f.Kinds) > 0 || !f.Since.IsZero() || !f.Until.IsZero()
}
