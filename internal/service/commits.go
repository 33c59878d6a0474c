package service

import (
	"time"

	"resource-lock-manager/internal/lock"
)

// committed reports the grants of a transaction to their requests, and sets the timers of
// the resources that have waiters.
func (q *waiters) committed(c Commit) {
	if len(c.Granted)+len(c.Superseded)+len(c.Contended) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	todo := newWork()
	for _, g := range c.Granted {
		switch request, found := q.requests[g.Hold.Connection]; {
		case !found:
			todo.ends = append(todo.ends, lock.Disconnect{Of: g.To, Why: lock.ClientGone})
		case c.Unknown:
			send(request.retry, struct{}{})
		default:
			send(request.granted, g)
		}
	}
	for _, connection := range c.Superseded {
		if request, found := q.requests[connection]; found {
			if c.Unknown {
				send(request.retry, struct{}{})
			} else {
				send(request.superseded, struct{}{})
			}
		}
	}
	for _, r := range c.Contended {
		// It may be a local waiter's turn already: the hold expired before its timer fired, or
		// a notification was lost.
		if next := r.Next(c.Now); c.Unknown || next != nil && next.Local {
			todo.names[r.Name] = struct{}{}
			continue
		}
		q.setTimer(r, c)
	}
	if len(todo.ends)+len(todo.names) > 0 {
		q.pending.add(todo)
		send(q.wake, struct{}{})
	}
}

// setTimer schedules the reconciliation of the resource for when its next waiter's turn
// may come without a command.
func (q *waiters) setTimer(r lock.Resource, c Commit) {
	timer, set := q.timers[r.Name]
	due := r.Due(c.Now)
	if due.IsZero() || r.Waiters == 0 {
		if set {
			timer.Stop()
			delete(q.timers, r.Name)
		}
		return
	}
	// Due is a time of the store's clock, which has advanced since ReadAt as much as this
	// process's clock.
	delay := due.Sub(c.Now) - time.Since(c.ReadAt)
	if set {
		timer.Reset(delay)
		return
	}
	name := r.Name
	q.timers[name] = time.AfterFunc(delay, func() {
		q.mu.Lock()
		delete(q.timers, name)
		q.mu.Unlock()
		q.scheduleReconcile(name)
	})
}
