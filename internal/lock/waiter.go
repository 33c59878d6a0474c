package lock

import (
	"cmp"
	"slices"
	"time"
)

// Waiter is a place in the queue of a resource. It is never changed, only replaced.
type Waiter struct {
	Ticket  int64   // its place: tickets grow in the order in which waiters came
	Request Acquire // what is granted when its turn comes
	Since   time.Time

	Here       bool      // it is connected to the server that decides
	AliveUntil time.Time // else: its server counts as alive until then
	AwayUntil  time.Time // its connection has ended, and its place is kept until then; zero: it has not
}

// Connected tells whether somebody is there to be granted the resource, as far as is known.
func (w *Waiter) Connected(now time.Time) bool {
	return w.AwayUntil.IsZero() && (w.Here || now.Before(w.AliveUntil))
}

// over tells whether the place is not kept any more: its time away has passed, or its server has been dead for so long.
func (w *Waiter) over(now time.Time, keep time.Duration) bool {
	if w.AwayUntil.IsZero() {
		return !w.Here && !now.Before(w.AliveUntil.Add(keep))
	}
	return !now.Before(w.AwayUntil)
}

// First returns the waiter that is the next to be granted the resource, nil when none is connected.
func (r Resource) First(now time.Time) *Waiter {
	if i := slices.IndexFunc(r.Queue, func(w *Waiter) bool { return w.Connected(now) }); i >= 0 {
		return r.Queue[i]
	}
	return nil
}

// next returns the waiter that a free resource is for; nil when it is not free or nobody waits.
func (r Resource) next(now time.Time) *Waiter {
	if _, held := r.Holder(now); held {
		return nil
	}
	return r.First(now)
}

// Due is the first moment after now at which a waiter's turn may come without any command: the holder's time is over, or
// the server of the waiter that a free resource is reserved for counts as dead. It is zero when there is none.
func (r Resource) Due(now time.Time) time.Time {
	if holder, held := r.Holder(now); held {
		return holder.ExpiresAt
	}
	if first := r.First(now); first != nil && !first.Here {
		return first.AliveUntil
	}
	return time.Time{}
}

// place returns the waiter that has a place, nil if there is none.
func (r Resource) place(process, request string) *Waiter {
	if request == "" {
		return nil
	}
	i := slices.IndexFunc(r.Queue, func(w *Waiter) bool { return w.Request.RequestID == request && w.Request.ProcessID == process })
	if i < 0 {
		return nil
	}
	return r.Queue[i]
}

// enqueue puts a waiter where its ticket belongs.
func (r Resource) enqueue(w *Waiter) Resource {
	i, _ := slices.BinarySearchFunc(r.Queue, w.Ticket, func(w *Waiter, ticket int64) int { return cmp.Compare(w.Ticket, ticket) })
	r.Queue = slices.Insert(slices.Clip(r.Queue), i, w)
	r.count(w, 1)
	r.LastTicket = max(r.LastTicket, w.Ticket)
	return r
}

// leave takes a waiter out of the queue.
func (r Resource) leave(gone *Waiter) Resource {
	r.Queue = slices.DeleteFunc(slices.Clone(r.Queue), func(w *Waiter) bool { return w == gone })
	r.count(gone, -1)
	return r
}

// count notes that n more waiters like this one have a place.
func (r *Resource) count(w *Waiter, n int) {
	if w.AwayUntil.IsZero() {
		r.Waiters += n
	} else {
		r.Away += n
	}
}

// Leave ends the waiting of one request. If the request has been granted the resource meanwhile, the hold stays, unless
// nobody is there to be told of it. It is refused with [HeldError] when the request neither waits nor holds: because its
// place was given up for it, or because a later request with the same RequestID has taken its place or its hold over.
type Leave struct {
	Request Acquire       // with the Connection that waits
	Ticket  int64         // its place, so that it can be put back; 0: unknown
	Keep    time.Duration // how long its place is kept for a request with the same RequestID; 0: not at all
	Gone    bool          // nobody is there any more
	Place   bool          // only a place in which nobody waits is given up: no hold, and none that is kept
	Why     EndReason     // for the history
}

func (c Leave) Resources() []string { return []string{c.Request.Resource} }

// Places implements [Placed].
func (c Leave) Places() []Place { return c.Request.Places() }

func (c Leave) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now}
	w := r.place(c.Request.ProcessID, c.Request.RequestID)
	holder, held := r.Holder(now)
	granted := held && c.Request.has(holder)
	switch {
	case granted && !c.Gone:
		out.Hold, out.Changed = holder, before
		return out, nil
	case granted && !c.Place:
		released := eventOf(Released, r.Name, holder, now)
		released.Reason = string(c.Why)
		out.Events = append(out.Events, released)
		r = r.end(holder, now)
		if c.Keep > 0 && c.Ticket > 0 && !holder.QueuedAt.IsZero() {
			back := c.Request
			back.Connection = 0
			r = r.enqueue(&Waiter{Ticket: c.Ticket, Request: back, Since: holder.QueuedAt, AwayUntil: now.Add(c.Keep)})
		}
	case w == nil || w.Request.Connection != c.Request.Connection || c.Place && !w.AwayUntil.IsZero():
		refusal := r.refusal(now)
		refusal.Superseded = !c.Gone && (w != nil && w.AwayUntil.IsZero() || held && c.Request.repeats(holder))
		return Outcome{}, refusal
	case !c.Gone && r.next(now) == w: // its turn has come at this moment
		out.settle(r)
		out.Hold, out.Granted = out.Granted[0].Hold, nil
		return out, nil
	case c.Keep > 0:
		kept := *w
		kept.Here, kept.AwayUntil, kept.Request.Connection = false, now.Add(c.Keep), 0
		r = r.leave(w).enqueue(&kept)
	default:
		r = r.leave(w)
		out.Events = append(out.Events, gaveUp(r.Name, w, now, c.Why))
	}
	out.settle(r)
	return out, nil
}

// has reports whether the hold was granted to this very request.
func (c Acquire) has(h Hold) bool {
	return c.Connection != 0 && c.Connection == h.Connection && c.RequestID == h.RequestID && c.ProcessID == h.ProcessID &&
		h.ReleasedAt.IsZero()
}

// superseded is the refusal of a request whose place, or hold, a later request has.
func (r Resource) superseded(now time.Time) *HeldError {
	e := r.refusal(now)
	e.Superseded = true
	return e
}

// refusal says why a resource cannot be acquired now.
func (r Resource) refusal(now time.Time) *HeldError {
	e := &HeldError{Resource: r.Name, Now: now, Waiters: r.Waiters}
	if holder, held := r.Holder(now); held {
		e.Holder = holder
	} else if first := r.First(now); first != nil {
		e.Next = first.Request.ProcessID
	}
	return e
}

// Vacate takes away places whose waiters are gone for good: their time away is over, or their server has been dead for
// longer than Keep. It is never refused.
type Vacate struct {
	Gone []Place
	Keep time.Duration
}

func (c Vacate) Resources() []string {
	var names []string
	for _, p := range c.Gone {
		names = append(names, p.Resource)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Places implements [Placed].
func (c Vacate) Places() []Place { return c.Gone }

func (c Vacate) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		vacated := false
		for _, p := range c.Gone {
			if p.Resource != r.Name {
				continue
			}
			if w := r.place(p.ProcessID, p.RequestID); w != nil && w.over(now, c.Keep) {
				vacated = true
				r = r.leave(w)
				out.Events = append(out.Events, gaveUp(r.Name, w, now, DidNotComeBack))
			}
		}
		if vacated {
			out.settle(r)
		}
	}
	return out, nil
}
