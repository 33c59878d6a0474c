package lock

import (
	"slices"
	"time"
)

// TimeOut ends the wait of a request that is still open. If the request was granted the
// resource in the meantime, it gets that hold: the timeout came too late. It is refused
// with [HeldError] if the request has lost its place, superseded or not.
type TimeOut struct {
	Of   Acquire       // the request, with its Connection
	Keep time.Duration // how long its place is kept for a retry with the same RequestID; 0: not at all
}

// Needs implements [Command].
func (c TimeOut) Needs() Needs { return needsOf(c.Of) }

// Decide implements [Command].
func (c TimeOut) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now, Resource: before[0]}
	holder, held := r.Holder(now)
	w := r.waiter(c.Of.place())
	switch {
	case held && c.Of.has(holder):
		out.Hold = holder
		return out, nil
	case w == nil || w.Connection != c.Of.Connection:
		if w != nil && w.DetachedUntil.IsZero() || held && c.Of.repeats(holder) {
			return Outcome{}, r.Refusal(now, Superseded)
		}
		return Outcome{}, r.Refusal(now, Held)
	case r.Next(now) == w: // its turn comes at this very time
		out.reconcile(r)
		out.Hold, out.Granted = out.Granted[0].Hold, nil
		return out, nil
	}
	out.leave(r, w, c.Keep, WaitTimeout)
	return out, nil
}

// Disconnect ends a request whose client does not get its answer: it removes the
// request's place, or ends the hold that the request was granted. It is refused with
// [ErrNotWaiting] if the request has neither.
type Disconnect struct {
	Of     Acquire       // the request, with its Connection
	Ticket int64         // its place, which is put back if the request was granted the resource; 0: none
	Keep   time.Duration // how long the place is kept for a retry with the same RequestID; 0: not at all
	Why    EndReason
}

// Needs implements [Command].
func (c Disconnect) Needs() Needs { return needsOf(c.Of) }

// Decide implements [Command].
func (c Disconnect) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now}
	if holder, held := r.Holder(now); held && c.Of.has(holder) {
		released := holdEvent(EventReleased, r.Name, holder, now)
		released.Reason = string(c.Why)
		out.Events = append(out.Events, released)
		r = r.end(holder, now)
		if c.Keep > 0 && c.Ticket > 0 && !holder.QueuedAt.IsZero() {
			back := &Waiter{Ticket: c.Ticket, Request: c.Of.Request, Since: holder.QueuedAt}
			r = r.enqueue(back.detached(now.Add(c.Keep)))
		}
		out.reconcile(r)
		return out, nil
	}
	w := r.waiter(c.Of.place())
	if w == nil || w.Connection != c.Of.Connection {
		return Outcome{}, ErrNotWaiting
	}
	out.leave(r, w, c.Keep, c.Why)
	return out, nil
}

// DropOrphan removes a place whose connection its server does not know. A hold that the
// connection was granted stays: the request may have been answered. It is refused with
// [ErrNotWaiting] if there is no such place.
type DropOrphan struct {
	Place      Place
	Connection int64
}

// Needs implements [Command].
func (c DropOrphan) Needs() Needs {
	return Needs{Resources: []string{c.Place.Resource}, Places: []Place{c.Place}, MayFree: true}
}

// Decide implements [Command].
func (c DropOrphan) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, out := before[0], Outcome{Now: now}
	w := r.waiter(c.Place)
	if w == nil || w.Connection != c.Connection || !w.DetachedUntil.IsZero() {
		return Outcome{}, ErrNotWaiting
	}
	out.leave(r, w, 0, ClientGone)
	return out, nil
}

// Abandon returns the command that ends a grant whose client disconnected before it got
// its answer. A request with a RequestID that had waited keeps its place for the given
// time. The command is not needed, and ok is false, if the hold stays: the client can
// retry the request, which never had a place, or a later request has got the same hold.
func (g Grant) Abandon(keep time.Duration) (c Disconnect, ok bool) {
	c = Disconnect{Of: g.To, Why: ClientGone}
	if g.To.Named {
		c.Ticket, c.Keep = g.Ticket, keep
	}
	return c, g.To.has(g.Hold) && (!g.To.Named || g.Ticket != 0)
}

// needsOf returns what a command needs that ends the wait of a request.
func needsOf(c Acquire) Needs {
	return Needs{Resources: []string{c.Resource}, Places: c.places(), MayFree: true}
}

// leave ends the wait of w. Its place is kept for the given time, or removed if that is
// 0.
func (o *Outcome) leave(r Resource, w *Waiter, keep time.Duration, why EndReason) {
	r = r.remove(w)
	if keep > 0 {
		r = r.enqueue(w.detached(o.Now.Add(keep)))
	} else {
		o.Events = append(o.Events, gaveUpEvent(r.Name, w, o.Now, why))
	}
	o.reconcile(r)
}

// RemoveAbandoned removes places whose waiters will not return: DetachedUntil has passed,
// or their server has been dead for longer than Keep. It is never refused.
type RemoveAbandoned struct {
	Places []Place
	Keep   time.Duration
}

// Needs implements [Command].
func (c RemoveAbandoned) Needs() Needs {
	var names []string
	for _, p := range c.Places {
		names = append(names, p.Resource)
	}
	slices.Sort(names)
	return Needs{Resources: slices.Compact(names), Places: c.Places, MayFree: true}
}

// Decide implements [Command].
func (c RemoveAbandoned) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		removed := false
		for _, p := range c.Places {
			if p.Resource != r.Name {
				continue
			}
			if w := r.waiter(p); w != nil && w.abandoned(now, c.Keep) {
				removed = true
				r = r.remove(w)
				out.Events = append(out.Events, gaveUpEvent(r.Name, w, now, DidNotComeBack))
			}
		}
		if removed {
			out.reconcile(r)
		}
	}
	return out, nil
}
