package robust

import (
	"slices"
	"sort"
	"time"

	"resource-lock-manager/internal/wire"
)

// state is the state of one resource between two calls.
type state struct {
	hold      holdID // zero: free
	expires   int64
	shown     int           // the number of calls so far that show this version of the hold
	updates   int           // the number of renewals and releases of the hold so far
	token     int64         // the highest so far
	decisions int           // the number of decisions so far
	frees     int           // the number of isFree calls so far
	now       time.Duration // the current time is not before this one
}

// reason is why a call cannot come next. It is zero if the call can.
type reason struct{ guarantee, why string }

// next applies a call if it can come next.
func (m *model) next(s state, c call) (state, reason) {
	if c.impossible != "" {
		return s, reason{"G5", c.impossible}
	}
	if c.to < s.now {
		return s, reason{"G5", "it was answered before the hold could end without an answer"}
	}
	if c.isDecision() {
		if !m.reached(s, c.decided) {
			return s, reason{"G6", "a call that was decided before has not happened"}
		}
		if s.frees < len(m.frees) && m.frees[s.frees] <= s.now {
			if _, no := m.free(s, c); no == (reason{}) { // this call may as well be later, which need not be tried
				return s, reason{"", "an answer that the resource is free comes before"}
			}
		}
		s.decisions++
	}
	s.now = max(s.now, c.from)
	switch c.kind {
	case grants:
		return m.grant(s, c)
	case renews:
		return m.renew(s, c)
	case ends:
		return m.release(s, c)
	case shows:
		return m.show(s, c)
	case isFree:
		if c.turn != s.frees {
			return s, reason{"", "another answer that the resource is free comes before"}
		}
		s.frees++
		if m.maySeemFree(s, c) {
			return s, reason{}
		}
		return m.free(s, c)
	default:
		return m.refuse(s, c)
	}
}

// reached reports whether every decision before the given time has happened.
func (m *model) reached(s state, decided int64) bool {
	return s.decisions >= sort.Search(len(m.decisions), func(i int) bool { return m.decisions[i] >= decided })
}

// grant requires that the hold before has ended and that the new token is higher.
func (m *model) grant(s state, c call) (state, reason) {
	if c.hold.token <= s.token {
		return s, reason{"G3", "the token is not higher than every earlier one"}
	}
	s, no := m.end(s, c)
	s.hold, s.expires, s.token, s.shown, s.updates = c.hold, c.expires, c.hold.token, 0, 0
	return s, no
}

// end requires that the last hold had ended when a call was decided.
func (m *model) end(s state, c call) (state, reason) {
	switch {
	case s.hold == holdID{}:
	case !m.complete(s):
		return s, reason{"G1", "later answers show that the hold before continues"}
	case s.expires != 0 && s.expires <= c.decided:
	case !m.endsUnseen(&s, c):
		return s, reason{"G1", "the hold before has not ended"}
	}
	s.hold = holdID{}
	return s, reason{}
}

// free requires that no process holds the resource. No later call shows the last hold.
func (m *model) free(s state, c call) (state, reason) {
	switch {
	case s.hold == holdID{}:
	case !m.complete(s):
		return s, reason{"G2", "the resource is held, as later answers show"}
	case s.expires != 0 && m.reached(s, s.expires):
	case !m.endsUnseen(&s, c):
		return s, reason{"G2", "the resource is held"}
	}
	s.hold = holdID{}
	return s, reason{}
}

// maySeemFree reports whether a status can state that no process holds the resource
// although the hold continues. A renewal is decided before the old end, and committed
// after it. A status in between reads the old end, which is all that is committed, and
// that end has passed.
func (m *model) maySeemFree(s state, c call) bool {
	if c.op.Kind != Status || s.hold == (holdID{}) || m.complete(s) {
		return false
	}
	passed := func(from, left time.Duration) bool { return from+atLeast(left) <= c.to }
	ended := s.expires != 0 && !slices.ContainsFunc(m.answers[s.hold], func(answer call) bool {
		left := time.Duration(s.expires-micros(answer.op.At)) * time.Microsecond
		return !answer.op.At.IsZero() && !passed(answer.op.Called, left)
	})
	lost := slices.DeleteFunc(slices.Clone(m.holds[s.hold].lostRenewals),
		func(o Operation) bool { return o.Called > c.to })
	if len(lost) > 0 { // the end may also be the one that such a renewal gave the hold
		return ended || slices.ContainsFunc(lost, func(o Operation) bool { return passed(o.Called, o.TTL) })
	}
	return ended && slices.ContainsFunc(m.answers[s.hold], func(renewal call) bool {
		next := s.decisions < len(m.decisions) && m.decisions[s.decisions] == renewal.decided
		return renewal.kind == renews && next && renewal.from <= c.to && renewal.decided < s.expires
	})
}

// complete reports whether no later call needs the hold.
func (m *model) complete(s state) bool {
	return s.shown >= m.shown[m.version(s.hold, s.expires)] && s.updates >= m.holds[s.hold].updates
}

// endsUnseen reports whether the hold may have ended before a call without an answer that
// says so.
func (m *model) endsUnseen(s *state, c call) bool {
	h := m.holds[s.hold]
	if h.unseenGrant {
		return true
	}
	s.now = max(s.now, min(h.mayEndFrom, c.to))
	return h.mayEndFrom <= c.to
}

// movesUnseen reports whether the end of the hold may have changed before a call without
// an answer that says so.
func (m *model) movesUnseen(s *state, c call) bool {
	h := m.holds[s.hold]
	s.now = max(s.now, min(h.mayMoveFrom, c.to))
	return h.mayMoveFrom <= c.to
}

// update requires that a process has the live hold that it renews or releases.
func (m *model) update(s state, c call) (state, reason) {
	switch {
	case s.hold == holdID{} || s.hold.process != c.process || c.token != 0 && c.token != s.hold.token:
		return s, reason{"G5", "the process does not hold the resource"}
	case s.expires != 0 && s.expires <= c.decided && !m.movesUnseen(&s, c):
		return s, reason{"G5", "the hold had expired before"}
	}
	s.updates++
	return s, reason{}
}

func (m *model) renew(s state, c call) (state, reason) {
	s, no := m.update(s, c)
	before, after := m.version(s.hold, s.expires), m.version(s.hold, c.expires)
	switch {
	case no != reason{}:
		return s, no
	case c.hold != s.hold:
		return s, reason{"G5", "the answer shows another hold than the current one"}
	case before != after && s.shown < m.shown[before]:
		return s, reason{"G2", "later answers show the old end"}
	case before != after:
		s.shown = 0
	}
	s.expires = c.expires
	return s, reason{}
}

func (m *model) release(s state, c call) (state, reason) {
	if c.unseen && s.hold.process != c.process {
		return m.end(s, c)
	}
	s, no := m.update(s, c)
	if no == (reason{}) && !m.complete(s) {
		no = reason{"G5", "later answers show that the hold continues"}
	}
	s.hold = holdID{}
	return s, no
}

func (m *model) show(s state, c call) (state, reason) {
	switch {
	case s.hold == c.hold && (s.expires == c.expires || m.movesUnseen(&s, c)):
		s.shown++
		return s, reason{}
	case s.hold == c.hold:
		return s, reason{"G2", "the hold ends at another time"}
	case c.hold.token < s.token:
		return s, reason{"G5", "a later hold has been granted"}
	case m.holds[c.hold].from == forever:
		return s, reason{"G9", "no request can have been granted this hold"}
	}
	return s, reason{"G2", "this hold does not exist"}
}

// refuse requires that the process does not hold the resource, or not with that token, as
// the code states.
func (m *model) refuse(s state, c call) (state, reason) {
	switch own := s.hold.process == c.process; {
	case c.code == wire.CodeTokenMismatch && (!own || c.token == 0 || c.token == s.hold.token):
		return s, reason{"G5", "the process does not hold the resource with another token"}
	case c.code == wire.CodeTokenMismatch, !own:
		return s, reason{}
	case c.code != wire.CodeNotHeld && c.token != 0 && c.token != s.hold.token: // the code is about another hold
		return s, reason{}
	}
	after, no := m.free(s, c)
	if no == (reason{}) {
		no = m.endedAsStated(s, c)
	}
	return after, no
}

// endedAsStated requires that the last hold has ended as the code of a refusal states.
func (m *model) endedAsStated(s state, c call) reason {
	expired := s.expires != 0 && m.reached(s, s.expires) || m.movesUnseen(&s, c) || m.holds[s.hold].unseenGrant
	switch {
	case c.code == wire.CodeExpired && !expired:
		return reason{"G5", "the hold has not expired"}
	case c.code == wire.CodeAlreadyReleased && !m.endsUnseen(&s, c):
		return reason{"G5", "no client has released the hold"}
	}
	return reason{}
}
