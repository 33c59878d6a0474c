package robust_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// simulation is a correct lock service and its clients, which record their calls. It
// decides one call after the other, at some time between the call and its answer. Some
// answers get lost, and some clients disconnect.
type simulation struct {
	choose   func(n int) int // returns a number from 0 to n-1
	resource string
	maxDelay int // of a request or an answer, in microseconds

	now        int // microseconds
	attempts   int
	token      int64
	held       *request // nil: free
	last       *request // its hold ended last, and its client knows that it had it
	lastEnd    wire.Code
	queue      []*request
	operations []robust.Operation
}

// request is a request for the lock, and what it was granted.
type request struct {
	robust.Operation
	queued, until int  // the period in the queue
	answered      int  // when its client knows that it has the hold
	lost          bool // its client does not know whether it has the hold
}

func (s *simulation) run(steps int) []robust.Operation {
	s.now = s.maxDelay
	for range steps {
		s.step()
	}
	for s.held != nil || len(s.queue) > 0 {
		s.advance()
		s.actAsHolder()
	}
	slices.SortStableFunc(s.operations, func(o, p robust.Operation) int { return cmp.Compare(o.Called, p.Called) })
	return s.operations
}

func (s *simulation) step() {
	s.advance()
	switch n := s.choose(20); {
	case n < 8:
		s.acquire()
	case n < 10:
		o := s.call(robust.Status, "", s.now-s.delay())
		s.showHolder(&o)
		s.record(o, robust.Done)
	case n < 11:
		o := s.call(robust.Queue, "", s.now-s.delay())
		for _, waiter := range s.queue {
			o.Queue = append(o.Queue, waiter.Process)
		}
		s.record(o, robust.Done)
	case n < 12 && s.last != nil:
		o := s.call([]robust.Kind{robust.Release, robust.Renew}[s.choose(2)], s.last.Process,
			max(s.last.answered, s.now-s.delay()))
		o.Token, o.Code = s.last.Holder.Token, s.lastEnd
		s.record(o, robust.Refused)
	case n < 12:
		o := s.call(robust.Release, "nobody", s.now-s.delay())
		o.Code = wire.CodeNotHeld
		s.record(o, robust.Refused)
	case n < 13 && len(s.queue) > 0:
		i := s.choose(len(s.queue))
		gone := s.queue[i]
		s.queue = slices.Delete(s.queue, i, i+1)
		gone.Disconnected = true
		s.record(gone.Operation, robust.Unknown)
	default:
		s.actAsHolder()
	}
}

// advance advances the time, and ends what ends meanwhile.
func (s *simulation) advance() {
	s.now += 1 + s.choose(2000)
	s.queue = slices.DeleteFunc(s.queue, func(t *request) bool {
		if t.until <= s.now {
			t.Code = wire.CodeWaitTimeout
			s.showHolder(&t.Operation)
			s.record(t.Operation, robust.Refused)
		}
		return t.until <= s.now
	})
	if s.held != nil && !s.held.Holder.ExpiresAt.IsZero() && !s.time().Before(s.held.Holder.ExpiresAt) {
		s.endHold(wire.CodeExpired)
	}
}

func (s *simulation) time() time.Time { return time.UnixMicro(1e15 + int64(s.now)) }

func (s *simulation) delay() int { return s.choose(s.maxDelay) }

// call returns an operation that was called at the given time.
func (s *simulation) call(kind robust.Kind, process string, called int) robust.Operation {
	return robust.Operation{
		Kind: kind, Resource: s.resource, Process: process, Client: s.attempts % 16,
		Called: time.Duration(called) * time.Microsecond,
	}
}

// record ends an operation that is decided now. It returns when its client gets the
// answer.
func (s *simulation) record(o robust.Operation, outcome robust.Outcome) int {
	returned := s.now + s.delay()
	o.Returned, o.Outcome = time.Duration(returned)*time.Microsecond, outcome
	s.operations = append(s.operations, o)
	return returned
}

// showHolder adds the current holder to an answer.
func (s *simulation) showHolder(o *robust.Operation) {
	if s.held == nil {
		return
	}
	o.Holder, o.At = s.held.Holder, time.Time{}
	if !o.Holder.ExpiresAt.IsZero() {
		o.At = s.time()
	}
}

func (s *simulation) acquire() {
	s.attempts++
	t := &request{queued: s.now}
	t.Operation = s.call(robust.Acquire, fmt.Sprint("p", s.attempts), s.now-s.delay())
	if s.choose(2) == 0 {
		t.RequestID = t.Process
	}
	if s.choose(2) == 0 {
		t.TTL = time.Duration(2000+s.choose(20000)) * time.Microsecond
	}
	if s.choose(3) > 0 {
		t.Wait = time.Duration(1+s.choose(50000)) * time.Microsecond
	}
	t.until = s.now + int(t.Wait.Microseconds())
	switch {
	case s.held == nil:
		s.grant(t)
	case t.Wait > 0:
		s.queue = append(s.queue, t)
	default:
		t.Code = wire.CodeAlreadyLocked
		s.showHolder(&t.Operation)
		s.record(t.Operation, robust.Refused)
	}
}

func (s *simulation) grant(t *request) {
	s.token = max(s.token+1, 1e15+int64(s.now))
	t.Holder = robust.Hold{Process: t.Process, Token: s.token, LockedAt: s.time()}
	if t.TTL != 0 {
		t.Holder.ExpiresAt, t.At = s.time().Add(t.TTL), s.time()
	}
	t.Waited = time.Duration(s.now-t.queued) * time.Microsecond
	s.held = t
	if t.lost = s.choose(8) == 0; t.lost {
		o := t.Operation
		o.Holder, o.At, o.Waited = robust.Hold{}, time.Time{}, 0
		t.answered = s.record(o, robust.Unknown)
	} else {
		t.answered = s.record(t.Operation, robust.Done)
	}
}

func (s *simulation) endHold(end wire.Code) {
	if s.last, s.lastEnd = s.held, end; s.held.lost || s.held.answered > s.now {
		s.last = nil
	}
	s.held = nil
	if len(s.queue) > 0 {
		next := s.queue[0]
		s.queue = s.queue[1:]
		s.grant(next)
	}
}

// actAsHolder makes a call of the holder, if its client knows by now that it has the
// hold.
func (s *simulation) actAsHolder() {
	t := s.held
	if t == nil || t.answered > s.now {
		return
	}
	called := max(t.answered, s.now-s.delay())
	lost := s.choose(8) == 0
	switch n := s.choose(6); {
	case n == 0 && t.lost: // the server has noticed the disconnect
		s.endHold(wire.CodeAlreadyReleased)
	case n == 1 && t.TTL != 0 && !t.lost:
		o := s.call(robust.Renew, t.Process, called)
		o.Token, o.TTL = t.Holder.Token, time.Duration(2000+s.choose(20000))*time.Microsecond
		if lost {
			s.record(o, robust.Unknown)
			if s.choose(2) == 0 {
				return
			}
		}
		decided := s.time()
		s.commit()
		t.Holder.ExpiresAt = decided.Add(o.TTL)
		if !lost {
			o.Holder, o.At = t.Holder, decided
			s.record(o, robust.Done)
		}
	case n == 2 && t.RequestID != "":
		t.lost = false
		o := s.call(robust.Acquire, t.Process, called)
		o.RequestID, o.TTL, o.Waited = t.RequestID, t.TTL, t.Waited
		s.showHolder(&o)
		s.record(o, robust.Done)
	default:
		o := s.call(robust.Release, t.Process, called)
		if !t.lost {
			o.Token = t.Holder.Token * int64(s.choose(2))
		}
		if lost {
			s.record(o, robust.Unknown)
			if s.choose(2) == 0 {
				return
			}
		} else {
			o.At = s.time()
			s.record(o, robust.Done)
		}
		s.endHold(wire.CodeAlreadyReleased)
	}
}

// commit advances the time while a renewal is being committed. A status reads meanwhile
// what was committed before, at its own time.
func (s *simulation) commit() {
	for range s.choose(4) {
		s.now += 1 + s.choose(10000)
		o := s.call(robust.Status, "", s.now-s.delay())
		if end := s.held.Holder.ExpiresAt; end.IsZero() || s.time().Before(end) {
			s.showHolder(&o)
		}
		s.record(o, robust.Done)
	}
}
