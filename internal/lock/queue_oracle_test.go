package lock_test

import (
	"fmt"
	"time"

	"resource-lock-manager/internal/lock"
)

// person is one who waits, or whose place is kept, as the oracle of the queue knows it.
type person struct {
	process, request string
	ticket           int64
	since            time.Time
	ask              lock.Acquire
	server           int       // that it is connected to
	back             time.Time // it is not connected, and has to be back before; zero: it is
}

// taking is a hold as the oracle of the queue knows it.
type taking struct {
	process, request   string
	token              int64
	connection         int64
	since              time.Time // when it began to wait; zero: it did not
	end, least         time.Time // end, least: zero where there is none
	released, finished bool      // finished: its end has been told
}

func (h *taking) live(now time.Time) bool {
	return h != nil && !h.finished && (h.end.IsZero() || h.end.After(now))
}

// line is the oracle's account of one resource and those who wait for it.
type line struct {
	name   string
	holder *taking // the newest
	people []*person
	token  int64
	ticket int64

	queued, granted, gaveUp map[string]int // how often, by process; put back counts as queued
	told                    []string       // what the last command should tell
	handed                  []string       // whom it should hand over to
}

func newLine(name string) *line {
	return &line{name: name, queued: map[string]int{}, granted: map[string]int{}, gaveUp: map[string]int{}}
}

func (l *line) person(process, request string) *person {
	for _, p := range l.people {
		if p.process == process && p.request == request && request != "" {
			return p
		}
	}
	return nil
}

// strike takes somebody off the list.
func (l *line) strike(gone *person) {
	var left []*person
	for _, p := range l.people {
		if p != gone {
			left = append(left, p)
		}
	}
	l.people = left
}

// there tells whether somebody can be granted anything, as the server knows that decides.
func (m *queueMachine) there(p *person) bool {
	return p.back.IsZero() && (p.server == m.at || m.alive[p.server].After(m.now))
}

// turn is the first who is there.
func (m *queueMachine) turn(l *line) *person {
	var first *person
	for _, p := range l.people {
		if m.there(p) && (first == nil || p.ticket < first.ticket) {
			first = p
		}
	}
	return first
}

func (l *line) tell(kind lock.EventKind, process string) {
	l.told = append(l.told, fmt.Sprintf("%s %s %s", l.name, kind, process))
}

func (l *line) giveUp(p *person) {
	l.strike(p)
	l.gaveUp[p.process]++
	l.tell(lock.EventGaveUp, p.process)
}

// finish tells of the end of a hold whose time is over.
func (m *queueMachine) finish(l *line) bool {
	if h := l.holder; h != nil && !h.finished && !h.live(m.now) {
		h.finished = true
		if !h.released {
			l.tell(lock.EventExpired, h.process)
			n := len(l.told) - 1 // it came before all that the command did
			l.told = append(l.told[n:], l.told[:n]...)
		}
		return true
	}
	return false
}

// take begins a hold.
func (m *queueMachine) take(l *line, ask lock.Acquire, since time.Time) {
	l.token = max(l.token+1, m.now.UnixMicro())
	h := &taking{process: ask.ProcessID, request: ask.RequestID, token: l.token, connection: ask.Connection, since: since}
	if ask.TTL > 0 {
		h.end = m.now.Add(ask.TTL)
	}
	if ask.MinHold > 0 {
		h.least = m.now.Add(ask.MinHold)
	}
	l.holder = h
	if since.IsZero() {
		l.tell(lock.EventAcquired, h.process)
	} else {
		l.granted[h.process]++
		l.tell(lock.EventGranted, h.process)
	}
}

// handOver is what follows from anything that may have made the resource free.
func (m *queueMachine) handOver(l *line) {
	m.finish(l)
	if p := m.turn(l); !l.holder.live(m.now) && p != nil && p.server == m.at {
		l.strike(p)
		m.take(l, p.ask, p.since)
		l.handed = append(l.handed, p.process)
	}
}

// ends is the hold given back by its process, or taken.
func (m *queueMachine) ends(l *line, kind lock.EventKind) {
	h := l.holder
	l.tell(kind, h.process)
	if kind == lock.EventReleased && h.least.After(m.now) {
		h.released, h.end = true, h.least
	} else {
		h.finished = true
	}
	m.handOver(l)
}
