package lock

import (
	"cmp"
	"slices"
	"time"
)

// Waiter is a place in the queue of a resource. It is immutable: a change replaces it.
type Waiter struct {
	Ticket     int64   // tickets grow in the order in which the requests were queued
	Request    Request // what is granted when its turn comes
	Connection int64   // the open request; 0 if detached
	Since      time.Time

	Local         bool      // it is connected to the server that decides
	AliveUntil    time.Time // if it is not local: when the lease of its server ends
	DetachedUntil time.Time // its connection has ended, and its place is kept until then; zero: it has not
}

// Connected reports whether the waiter can be granted the resource: its connection has
// not ended, as far as is known, and its server is alive.
func (w *Waiter) Connected(now time.Time) bool {
	return w.DetachedUntil.IsZero() && (w.Local || now.Before(w.AliveUntil))
}

// abandoned reports whether the place is not kept any more: DetachedUntil has passed, or
// the waiter's server has been dead for the time keep.
func (w *Waiter) abandoned(now time.Time, keep time.Duration) bool {
	if w.DetachedUntil.IsZero() {
		return !w.Local && !now.Before(w.AliveUntil.Add(keep))
	}
	return !now.Before(w.DetachedUntil)
}

// detached returns the waiter without its connection. Its place is kept until the given
// time.
func (w *Waiter) detached(until time.Time) *Waiter {
	d := *w
	d.Local, d.Connection, d.DetachedUntil = false, 0, until
	return &d
}

// hold returns the hold that the waiter is granted.
func (w *Waiter) hold(now time.Time, of Resource) Hold {
	h := w.Request.hold(now, w.Connection, of)
	h.QueuedAt = w.Since
	return h
}

// acquire returns the command of the waiter's request.
func (w *Waiter) acquire() Acquire { return Acquire{Request: w.Request, Connection: w.Connection} }

// First returns the first connected waiter, nil if there is none.
func (r Resource) First(now time.Time) *Waiter {
	if i := slices.IndexFunc(r.Queue, func(w *Waiter) bool { return w.Connected(now) }); i >= 0 {
		return r.Queue[i]
	}
	return nil
}

// Next returns the waiter that a free resource goes to. It returns nil if the resource is
// held or no waiter is connected.
func (r Resource) Next(now time.Time) *Waiter {
	if _, held := r.Holder(now); held {
		return nil
	}
	return r.First(now)
}

// Due returns the first time after now at which a waiter's turn may come without a
// command: when the hold expires, or when the lease of the server ends that the next
// waiter of a free resource is connected to. It is zero if there is none.
func (r Resource) Due(now time.Time) time.Time {
	if holder, held := r.Holder(now); held {
		return holder.ExpiresAt
	}
	if first := r.First(now); first != nil && !first.Local {
		return first.AliveUntil
	}
	return time.Time{}
}

// waiter returns the waiter that has the place, nil if there is none.
func (r Resource) waiter(p Place) *Waiter {
	if p.RequestID == "" {
		return nil
	}
	i := slices.IndexFunc(r.Queue, func(w *Waiter) bool {
		return w.Request.RequestID == p.RequestID && w.Request.ProcessID == p.ProcessID
	})
	if i < 0 {
		return nil
	}
	return r.Queue[i]
}

// enqueue inserts a waiter in the order of tickets.
func (r Resource) enqueue(w *Waiter) Resource {
	i, _ := slices.BinarySearchFunc(r.Queue, w.Ticket, func(w *Waiter, ticket int64) int {
		return cmp.Compare(w.Ticket, ticket)
	})
	r.Queue = slices.Insert(slices.Clip(r.Queue), i, w)
	r.count(w, 1)
	r.LastTicket = max(r.LastTicket, w.Ticket)
	return r
}

// remove takes a waiter out of the queue.
func (r Resource) remove(gone *Waiter) Resource {
	r.Queue = slices.DeleteFunc(slices.Clone(r.Queue), func(w *Waiter) bool { return w == gone })
	r.count(gone, -1)
	return r
}

// count adds n to the number of places of the waiter's kind.
func (r *Resource) count(w *Waiter, n int) {
	if w.DetachedUntil.IsZero() {
		r.Waiters += n
	} else {
		r.Detached += n
	}
}
