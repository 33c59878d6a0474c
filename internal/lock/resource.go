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

	// Queue are the waiters in the order of their tickets: all of them, or at least those that may matter to the commands
	// at hand, see [Command].
	Queue []*Waiter

	Waiters    int   // how many places of the queue are taken by waiters that are connected as far as is known
	Away       int   // how many are kept for waiters whose connection has ended
	LastTicket int64 // the highest ticket given so far while the row lives

	// Forgotten asks the store to delete the row.
	Forgotten bool
}

// Hold is one successful acquisition.
type Hold struct {
	ProcessID string
	Token     int64 // the fencing token: unique and growing for the resource
	LockedAt  time.Time
	ExpiresAt time.Time // zero: never

	QueuedAt   time.Time // when it began to wait for the resource; zero: it was granted at once
	Connection int64     // the request that it was granted to and that takes it along when it hangs up, see [Leave]; 0: none

	RequestID string // the name of this acquisition, empty if neither the caller nor waiting gave it one
	Reason    string // why, in the caller's words
	Metadata  string // a JSON object, empty if none was given

	RenewedAt time.Time // the last renewal; zero: none
	Renewals  int

	MinHoldUntil time.Time // the resource stays taken until then even if it is released before; zero: no minimum
	ReleasedAt   time.Time // its process has released it, and only MinHoldUntil keeps the resource taken; zero: not so
}

// Live reports whether the hold still keeps others out at the given moment.
func (h Hold) Live(now time.Time) bool {
	return h.ExpiresAt.IsZero() || now.Before(h.ExpiresAt)
}

// Owned reports whether the hold is live and its process has not released it.
func (h Hold) Owned(now time.Time) bool {
	return h.ReleasedAt.IsZero() && h.Live(now)
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

// grant adds a hold.
func (r Resource) grant(h Hold) Resource {
	r.Holds = append(r.Holds[:len(r.Holds):len(r.Holds)], h)
	r.Token = h.Token
	r.Last, r.EndedAt = Hold{}, time.Time{}
	r.Forgotten = false
	return r
}

// replace changes the hold that has the same token.
func (r Resource) replace(h Hold) Resource {
	r.Holds = slices.Clone(r.Holds)
	for i := range r.Holds {
		if r.Holds[i].Token == h.Token {
			r.Holds[i] = h
		}
	}
	return r
}

// end takes a hold away.
func (r Resource) end(h Hold, at time.Time) Resource {
	left := make([]Hold, 0, len(r.Holds))
	for _, other := range r.Holds {
		if other.Token != h.Token {
			left = append(left, other)
		}
	}
	r.Holds = left
	r.Last, r.EndedAt = h, at
	return r
}

// endExpired takes away every hold whose time is over. Each ended when its time came, not when that was noticed. A hold
// that its process had released before leaves no event: its end has been told.
func (r Resource) endExpired(now time.Time) (Resource, []Event) {
	var events []Event
	for _, h := range r.Holds {
		if h.Live(now) {
			continue
		}
		r = r.end(h, h.ExpiresAt)
		if h.ReleasedAt.IsZero() {
			events = append(events, eventOf(Expired, r.Name, h, h.ExpiresAt))
		}
	}
	return r, events
}
