package lock

import "time"

// Acquire asks for a hold. While anyone, the asking process included, holds the resource, or anyone who waits is before
// it, it is refused with [HeldError], or waits if it may: it gets a place in the queue, and a hold when its turn comes.
//
// It can be repeated under the same RequestID: the same process gets the hold that it has, unchanged, or the place that
// it has. A waiting request always has a RequestID and a Connection. Of two with the same RequestID the later one has the
// place: the earlier one is superseded, and acquires nothing from then on.
type Acquire struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: never expires
	MinHold   time.Duration // the resource stays taken at least this long; 0: no minimum
	RequestID string        // the name of this acquisition, so that it can be repeated; empty: none
	Named     bool          // the caller chose RequestID, so that another request can have the same one
	Reason    string
	Metadata  string // a JSON object; empty: none

	Wait       time.Duration // how long it may wait; 0: not at all
	Connection int64         // distinguishes this request from every other; 0: unknown
	Again      bool          // it has had a place: it is refused when it has lost that
	Patient    bool          // it is likely to have to wait, and is in no hurry to begin with that
	QueueLimit int           // it is refused with [QueueFullError] rather than be one more than so many waiters
}

func (c Acquire) Resources() []string { return []string{c.Resource} }

// Places implements [Placed].
func (c Acquire) Places() []Place {
	if c.RequestID == "" {
		return nil
	}
	return []Place{{Resource: c.Resource, ProcessID: c.ProcessID, RequestID: c.RequestID}}
}

func (c Acquire) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now}
	holder, held := r.Holder(now)
	if held && c.repeats(holder) {
		if holder.Connection != c.Connection {
			if c.Again {
				return Outcome{}, r.superseded(now)
			}
			holder.Connection = 0 // two requests know of it: no hang-up takes it away any more
			out.Repeated = true
		}
		out.Hold = holder
		out.settle(r.replace(holder))
		return out, nil
	}
	place := r.place(c.ProcessID, c.RequestID)
	if place != nil && !place.AwayUntil.IsZero() && place.over(now, 0) { // it comes too late
		out.Events = append(out.Events, gaveUp(r.Name, place, now, DidNotComeBack))
		r, place = r.leave(place), nil
	}
	switch mine := place != nil && place.Request.Connection == c.Connection; {
	case c.Again && !mine && place != nil:
		return Outcome{}, r.superseded(now)
	case c.Again && !mine && c.Named: // perhaps a later request took the place, and has already released the resource
		return Outcome{}, &PlaceLostError{Resource: r.Name}
	case !mine && place != nil && place.AwayUntil.IsZero():
		out.Superseded = []*Waiter{place}
	}
	if place != nil {
		out.Ticket = place.Ticket
	}
	first := r.First(now)
	switch {
	case !held && (first == nil || place != nil && place.Ticket <= first.Ticket):
		if place != nil {
			r = r.leave(place)
		}
		r, expired := r.endExpired(now)
		hold := c.hold(now, r)
		if place != nil {
			hold.QueuedAt = place.Since
		}
		out.Hold = hold
		out.Changed = []Resource{r.grant(hold)}
		out.Events = append(append(expired, out.Events...), beginning(r.Name, hold))
		return out, nil
	case c.Wait == 0:
		return Outcome{}, r.refusal(now)
	}
	waiter, err := c.queue(now, r, place)
	if err != nil {
		return Outcome{}, err
	}
	if place != nil {
		r = r.leave(place)
	} else {
		out.Events = append(out.Events, queued(r.Name, waiter, now))
	}
	out.Ticket = waiter.Ticket
	out.settle(r.enqueue(waiter))
	return out, nil
}

// repeats reports whether the command is the one that the hold was granted to. A hold that was released is over for its
// process, even while its minimum keeps the resource taken.
func (c Acquire) repeats(h Hold) bool {
	return c.RequestID != "" && c.RequestID == h.RequestID && c.ProcessID == h.ProcessID && h.ReleasedAt.IsZero()
}

// queue returns the waiter for the request: a new one, or the one that has the place already.
func (c Acquire) queue(now time.Time, r Resource, place *Waiter) (*Waiter, error) {
	w := &Waiter{Ticket: max(r.LastTicket+1, now.UnixMicro()), Request: c, Since: now, Here: true}
	switch {
	case c.QueueLimit == 0 || place == nil && r.Waiters+r.Away >= c.QueueLimit:
		return nil, &QueueFullError{Resource: c.Resource, Waiters: r.Waiters}
	case place != nil:
		w.Ticket, w.Since = place.Ticket, place.Since
	}
	return w, nil
}

// hold is what the request is granted.
func (c Acquire) hold(now time.Time, r Resource) Hold {
	h := Hold{
		ProcessID: c.ProcessID, Token: r.nextToken(now), LockedAt: now, Connection: c.Connection,
		RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		h.ExpiresAt = now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		h.MinHoldUntil = now.Add(c.MinHold)
	}
	return h
}

// beginning tells that a hold has begun.
func beginning(resource string, h Hold) Event {
	e := eventOf(Acquired, resource, h, h.LockedAt)
	e.Reason = h.Reason
	if !h.QueuedAt.IsZero() {
		e.Kind, e.Since = Granted, h.QueuedAt
	}
	return e
}
