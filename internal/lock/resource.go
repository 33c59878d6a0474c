package lock

import (
	"slices"
	"time"
)

// Resource is the state of one named resource. It is a value: rules return a changed copy
// and never write through a slice that a caller may share.
type Resource struct {
	ID   int64 // of the stored row, constant while the row exists; 0 if there is no row
	Name string

	// Token is the highest fencing token given for this name so far. For a resource
	// without a row it is the floor that the store keeps for deleted names.
	Token int64

	// Holds are the current holds in the order of their tokens. There is at most one: all
	// holds are exclusive. An expired hold stays until a command ends it.
	Holds []Hold

	// Last is the hold that ended most recently and EndedAt is when it ended. Both are
	// zero while the resource is held or if it was never held.
	Last    Hold
	EndedAt time.Time

	// Queue are the waiters in the order of their tickets: all of them, or at least those
	// that the commands of the transaction need, see [Command].
	Queue []*Waiter

	Waiters    int   // the number of waiters whose connection has not ended, as far as is known
	Detached   int   // the number of places kept for waiters whose connection has ended
	LastTicket int64 // the highest ticket given so far while the row exists

	// Deleted asks the store to delete the row.
	Deleted bool
}

// Hold is one successful acquisition.
type Hold struct {
	ProcessID string
	Token     int64 // the fencing token: greater than that of every earlier hold of the resource
	LockedAt  time.Time
	ExpiresAt time.Time // zero: never

	QueuedAt   time.Time // when its request was queued; zero: it was granted at once
	Connection int64     // the request whose disconnect ends the hold, see [Disconnect]; 0: none

	RequestID string // the idempotency key, empty if neither the caller nor a wait gave one
	Reason    string // in the caller's words
	Metadata  string // a JSON object, empty if none was given

	RenewedAt time.Time // the last renewal; zero: none
	Renewals  int

	MinHoldUntil time.Time // the resource stays taken until then even if it is released before; zero: no minimum
	ReleasedAt   time.Time // its process has released it, and only MinHoldUntil keeps it; zero: not released
}

// Live reports whether the hold excludes others at the given time.
func (h Hold) Live(now time.Time) bool {
	return h.ExpiresAt.IsZero() || now.Before(h.ExpiresAt)
}

// Owned reports whether the hold is live and its process has not released it.
func (h Hold) Owned(now time.Time) bool {
	return h.ReleasedAt.IsZero() && h.Live(now)
}

// HoldRef identifies a hold.
type HoldRef struct {
	Resource string
	Token    int64
}

// Holder returns the live hold that excludes others at the given time.
func (r Resource) Holder(now time.Time) (Hold, bool) {
	i := slices.IndexFunc(r.Holds, func(h Hold) bool { return h.Live(now) })
	if i < 0 {
		return Hold{}, false
	}
	return r.Holds[i], true
}

// heldBy returns the live hold of a process. If there is none, its error says why, as far
// as the state shows.
func (r Resource) heldBy(now time.Time, process string, token int64) (Hold, error) {
	reason := ReasonUnknown
	for _, h := range r.Holds {
		matches := token == 0 || token == h.Token
		switch {
		case h.ProcessID != process:
		case h.Owned(now) && matches:
			return h, nil
		case h.Owned(now):
			reason = ReasonTokenMismatch
		case matches && h.ReleasedAt.IsZero(): // its end is not recorded yet
			reason = ReasonExpired
		case matches: // its minimum kept the resource taken
			reason = ReasonReleased
		}
	}
	return Hold{}, &NotHeldError{Resource: r.Name, ProcessID: process, Reason: reason}
}

// outdated reports whether a hold has expired whose end is not recorded, or the turn of a
// local waiter has come.
func (r Resource) outdated(now time.Time) bool {
	expired := slices.ContainsFunc(r.Holds, func(h Hold) bool { return !h.Live(now) })
	next := r.Next(now)
	return expired || next != nil && next.Local
}

// nextToken implements I2. Microseconds since 1970 stay below 2^53 until the year 2255,
// so that every JSON parser keeps them exactly.
func (r Resource) nextToken(now time.Time) int64 {
	return max(r.Token+1, now.UnixMicro())
}

// grant adds a hold.
func (r Resource) grant(h Hold) Resource {
	r.Holds = append(r.Holds[:len(r.Holds):len(r.Holds)], h)
	r.Token = h.Token
	r.Last, r.EndedAt = Hold{}, time.Time{}
	r.Deleted = false
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

// end removes a hold.
func (r Resource) end(h Hold, at time.Time) Resource {
	r.Holds = slices.DeleteFunc(slices.Clone(r.Holds), func(other Hold) bool { return other.Token == h.Token })
	r.Last, r.EndedAt = h, at
	return r
}

// endExpired removes every expired hold. Each ended when its time came, not when that was
// noticed. A hold that its process had released before has no event: its end is recorded.
func (r Resource) endExpired(now time.Time) (Resource, []Event) {
	var events []Event
	for _, h := range r.Holds {
		if h.Live(now) {
			continue
		}
		r = r.end(h, h.ExpiresAt)
		if h.ReleasedAt.IsZero() {
			events = append(events, holdEvent(EventExpired, r.Name, h, h.ExpiresAt))
		}
	}
	return r, events
}
