package lock

import "time"

// Request is what a caller asks for: a hold of a resource.
type Request struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: never expires
	MinHold   time.Duration // the resource stays taken at least this long; 0: no minimum
	RequestID string        // the idempotency key; empty: none
	Reason    string
	Metadata  string        // a JSON object; empty: none
	Wait      time.Duration // how long the request may wait in the queue; 0: not at all
}

// place returns the key of the request's place.
func (r Request) place() Place {
	return Place{Resource: r.Resource, ProcessID: r.ProcessID, RequestID: r.RequestID}
}

// repeats reports whether the hold was granted to an earlier request with the same
// RequestID. A hold that was released no longer belongs to its process, even while its
// minimum keeps the resource taken.
func (r Request) repeats(h Hold) bool {
	return r.RequestID != "" && r.RequestID == h.RequestID && r.ProcessID == h.ProcessID && h.ReleasedAt.IsZero()
}

// hold returns the hold that the request is granted.
func (r Request) hold(now time.Time, connection int64, of Resource) Hold {
	h := Hold{
		ProcessID: r.ProcessID, Token: of.nextToken(now), LockedAt: now, Connection: connection,
		RequestID: r.RequestID, Reason: r.Reason, Metadata: r.Metadata,
	}
	if r.TTL > 0 {
		h.ExpiresAt = now.Add(r.TTL)
	}
	if r.MinHold > 0 {
		h.MinHoldUntil = now.Add(r.MinHold)
	}
	return h
}

// Acquire decides a [Request]. While another request holds the resource, the same process
// included, or a waiter is before it, it is refused with [HeldError] or, with Wait,
// queued.
//
// An idempotent retry with the same RequestID gets the hold or the place that the process
// has already, unchanged. A waiting request always has a RequestID and a Connection. Of
// two open requests with the same RequestID the later one has the place. The earlier one
// is superseded: it acquires nothing from then on.
type Acquire struct {
	Request
	Named      bool  // the caller chose RequestID, so that another request can have the same one
	Connection int64 // distinguishes this request from every other; 0: unknown
	Requeued   bool  // the request had a place before: it is refused if it has lost that place
	MayQueue   bool  // else a request that would have to wait is refused with [QueueFullError]
	QueueLimit int   // the maximum number of waiters of the resource, this one included
}

// Needs implements [Command].
func (c Acquire) Needs() Needs { return Needs{Resources: []string{c.Resource}, Places: c.places()} }

func (c Acquire) places() []Place {
	if c.RequestID == "" {
		return nil
	}
	return []Place{c.place()}
}

// Decide implements [Command].
func (c Acquire) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now}
	holder, held := r.Holder(now)
	if held && c.repeats(holder) {
		return c.repeat(now, r, holder)
	}
	place := r.waiter(c.place())
	if place != nil && !place.DetachedUntil.IsZero() && place.abandoned(now, 0) { // the retry is too late
		out.Events = append(out.Events, gaveUpEvent(r.Name, place, now, DidNotComeBack))
		r, place = r.remove(place), nil
	}
	mine := place != nil && place.Connection == c.Connection
	switch {
	case c.Requeued && !mine && place != nil:
		return Outcome{}, r.Refusal(now, Superseded)
	case c.Requeued && !mine && c.Named: // a later request may have taken the place and released the resource already
		return Outcome{}, &PlaceLostError{Resource: r.Name}
	case !mine && place != nil && place.DetachedUntil.IsZero():
		out.Superseded = []*Waiter{place}
	}
	if place != nil {
		out.Ticket = place.Ticket
	}
	first := r.First(now)
	switch {
	case !held && (first == nil || place != nil && place.Ticket <= first.Ticket):
		if place != nil {
			r = r.remove(place)
		}
		r, expired := r.endExpired(now)
		out.Hold = c.hold(now, c.Connection, r)
		if place != nil {
			out.Hold.QueuedAt = place.Since
		}
		out.Events = append(append(expired, out.Events...), grantEvent(r.Name, out.Hold))
		out.change(r.grant(out.Hold))
		return out, nil
	case c.Wait == 0:
		return Outcome{}, r.Refusal(now, Held)
	}
	if mine && !r.outdated(now) { // it has its place already
		out.Resource = r
		return out, nil
	}
	waiter, err := c.waiter(now, r, place)
	if err != nil {
		return Outcome{}, err
	}
	if place != nil {
		r = r.remove(place)
	} else {
		out.Events = append(out.Events, queuedEvent(r.Name, waiter, now))
	}
	out.Ticket = waiter.Ticket
	out.reconcile(r.enqueue(waiter))
	return out, nil
}

// repeat decides a retry of the request that has the hold.
func (c Acquire) repeat(now time.Time, r Resource, holder Hold) (Outcome, error) {
	out := Outcome{Now: now, Resource: r, Hold: holder}
	switch {
	case holder.Connection == c.Connection: // the request itself, which did not learn of its grant
	case c.Requeued:
		return Outcome{}, r.Refusal(now, Superseded)
	default:
		out.Repeated = true
		if holder.Connection != 0 { // two requests know of the hold: no disconnect ends it any more
			out.Hold.Connection = 0
			out.change(r.replace(out.Hold))
		}
	}
	return out, nil
}

// waiter returns the new waiter for the request. It keeps the ticket of the place that
// the request has already, if any.
func (c Acquire) waiter(now time.Time, r Resource, place *Waiter) (*Waiter, error) {
	w := &Waiter{
		Ticket: max(r.LastTicket+1, now.UnixMicro()), Request: c.Request, Connection: c.Connection,
		Since: now, Local: true,
	}
	switch {
	case !c.MayQueue || place == nil && r.Waiters+r.Detached >= c.QueueLimit:
		return nil, &QueueFullError{Resource: c.Resource, Waiters: r.Waiters}
	case place != nil:
		w.Ticket, w.Since = place.Ticket, place.Since
	}
	return w, nil
}

// has reports whether the hold was granted to this very request.
func (c Acquire) has(h Hold) bool {
	return c.Connection != 0 && c.Connection == h.Connection && c.RequestID == h.RequestID && c.ProcessID == h.ProcessID &&
		h.ReleasedAt.IsZero()
}
