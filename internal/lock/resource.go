package lock

import (
	"slices"
	"time"
)

// Resource is the state of one named resource. It is a value: rules return a changed copy and never write through a
// slice that a caller may hold.
type Resource struct {
	ID   int64 // the stored row's id, stable while the row lives; 0 when there is no row yet
	Name string

	// Token is the highest fencing token given for this name so far. For a resource without a row it is the floor that
	// the store remembers for forgotten names.
	Token int64

	// Holds are the current holds in the order of their tokens. In exclusive mode, the only one so far, there is at most
	// one. A hold that has expired stays here until a command ends it.
	Holds []Hold

	// Last is the hold that ended most recently and EndedAt when it did; both are zero while the resource is held or
	// was never held.
	Last    Hold
	EndedAt time.Time

	// Forgotten asks the store to delete the row.
	Forgotten bool
}

// Hold is one successful acquisition.
type Hold struct {
	ProcessID string
	Token     int64 // the fencing token: unique and growing for the resource
	LockedAt  time.Time
	ExpiresAt time.Time // zero: never
}

// Live reports whether the hold still counts at the given moment.
func (h Hold) Live(now time.Time) bool {
	return h.ExpiresAt.IsZero() || now.Before(h.ExpiresAt)
}

// Holder returns the live hold that keeps others out at the given moment.
func (r Resource) Holder(now time.Time) (Hold, bool) {
	i := slices.IndexFunc(r.Holds, func(h Hold) bool { return h.Live(now) })
	if i < 0 {
		return Hold{}, false
	}
	return r.Holds[i], true
}

// nextToken implements I2. Microseconds since 1970 stay below 2^53 until the year 2255, so that every JSON reader keeps
// them exactly.
func (r Resource) nextToken(now time.Time) int64 {
	return max(r.Token+1, now.UnixMicro())
}
