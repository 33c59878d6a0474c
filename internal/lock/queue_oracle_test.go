package lock_test

import (
	"fmt"
	"time"

	"resource-lock-manager/internal/lock"
)

// modelPlace is a place in a queue as the oracle knows it.
type modelPlace struct {
	acquire       lock.Acquire // the open request, or the one whose connection has ended
	ticket        int64
	since         time.Time
	server        int       // to which it is connected
	detachedUntil time.Time // zero: it is connected
}

func (p *modelPlace) process() string { return p.acquire.ProcessID }

// queuedHold is a hold as the oracle of the queues knows it.
type queuedHold struct {
	process, request string
	token            int64
	connection       int64
	queuedAt         time.Time // zero: it was granted at once
	expires, minimum time.Time // zero: none
	released, ended  bool      // ended: its end is recorded
}

func (h *queuedHold) live(now time.Time) bool {
	return h != nil && !h.ended && (h.expires.IsZero() || h.expires.After(now))
}

// owned reports whether the hold is live and not released.
func (h *queuedHold) owned(now time.Time) bool { return h.live(now) && !h.released }

// of reports whether the hold was granted to a request with this process and RequestID.
func (h *queuedHold) of(process, request string) bool {
	return request != "" && h.process == process && h.request == request
}

// queueModel is the oracle's model of one resource and its queue.
type queueModel struct {
	name   string
	newest *queuedHold
	places []*modelPlace // in any order
	token  int64
	ticket int64

	queued, granted, gaveUp map[string]int // counts by process; a place that is put back counts as queued
	events                  []string       // that the current command should record
	grantedTo               []string       // the processes to which it should grant the resource
}

func newQueueModel(name string) *queueModel {
	return &queueModel{name: name, queued: map[string]int{}, granted: map[string]int{}, gaveUp: map[string]int{}}
}

// place returns the place of a request, nil if there is none.
func (q *queueModel) place(process, request string) *modelPlace {
	for _, p := range q.places {
		if p.process() == process && p.acquire.RequestID == request && request != "" {
			return p
		}
	}
	return nil
}

func (q *queueModel) remove(removed *modelPlace) {
	var places []*modelPlace
	for _, p := range q.places {
		if p != removed {
			places = append(places, p)
		}
	}
	q.places = places
}

func (q *queueModel) record(kind lock.EventKind, process string) {
	q.events = append(q.events, fmt.Sprintf("%s %s %s", q.name, kind, process))
}

// giveUp ends the wait of a place without a hold.
func (q *queueModel) giveUp(p *modelPlace) {
	q.remove(p)
	q.gaveUp[p.process()]++
	q.record(lock.EventGaveUp, p.process())
}

// connected reports whether a place can be granted the resource, as far as the server
// knows that decides.
func (m *queueMachine) connected(p *modelPlace) bool {
	return p.detachedUntil.IsZero() && (p.server == m.at || m.alive[p.server].After(m.now))
}

// first returns the first connected place, nil if there is none.
func (m *queueMachine) first(q *queueModel) *modelPlace {
	var first *modelPlace
	for _, p := range q.places {
		if m.connected(p) && (first == nil || p.ticket < first.ticket) {
			first = p
		}
	}
	return first
}

// expire records the end of an expired hold.
func (m *queueMachine) expire(q *queueModel) {
	h := q.newest
	if h == nil || h.ended || h.live(m.now) {
		return
	}
	h.ended = true
	if !h.released {
		q.record(lock.EventExpired, h.process)
		last := len(q.events) - 1 // the expiry came before the effects of the command
		q.events = append(q.events[last:], q.events[:last]...)
	}
}

// grant grants the resource. A zero since means that the request did not wait.
func (m *queueMachine) grant(q *queueModel, c lock.Acquire, since time.Time) {
	q.token = max(q.token+1, m.now.UnixMicro())
	h := &queuedHold{
		process: c.ProcessID, request: c.RequestID, token: q.token, connection: c.Connection, queuedAt: since,
	}
	if c.TTL > 0 {
		h.expires = m.now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		h.minimum = m.now.Add(c.MinHold)
	}
	q.newest = h
	if since.IsZero() {
		q.record(lock.EventAcquired, h.process)
	} else {
		q.granted[h.process]++
		q.record(lock.EventGranted, h.process)
	}
}

// grantNext does what follows every change that may have made the resource free.
func (m *queueMachine) grantNext(q *queueModel) {
	m.expire(q)
	if p := m.first(q); !q.newest.live(m.now) && p != nil && p.server == m.at {
		q.remove(p)
		m.grant(q, p.acquire, p.since)
		q.grantedTo = append(q.grantedTo, p.process())
	}
}

// end releases or force-releases the newest hold.
func (m *queueMachine) end(q *queueModel, kind lock.EventKind) {
	h := q.newest
	q.record(kind, h.process)
	if kind == lock.EventReleased && h.minimum.After(m.now) {
		h.released, h.expires = true, h.minimum
	} else {
		h.ended = true
	}
	m.grantNext(q)
}

// leave removes or keeps a place whose wait has ended.
func (m *queueMachine) leave(q *queueModel, p *modelPlace, keep time.Duration) {
	if keep > 0 {
		p.detachedUntil = m.now.Add(keep)
	} else {
		q.giveUp(p)
	}
	m.grantNext(q)
}
