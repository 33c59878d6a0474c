package robust

import (
	"cmp"
	"math"
	"slices"
	"time"

	"resource-lock-manager/internal/wire"
)

// micros returns a time in microseconds, the unit of the answers. It returns 0 for the
// zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// holdID is what all answers about the same hold must agree on.
type holdID struct {
	token   int64
	process string
	locked  int64
}

func idOf(h Hold) holdID { return holdID{h.Token, h.Process, micros(h.LockedAt)} }

// version is a hold between two renewals.
type version struct {
	hold    holdID
	expires int64 // 0: never
}

// anyEnd stands for all ends of a hold whose versions cannot be distinguished.
const anyEnd = -1

// holdFacts is what the whole history states about a hold.
type holdFacts struct {
	from         time.Duration // the earliest time at which it can have been granted; forever: never
	unseenGrant  bool          // no request was answered with it
	mayEndFrom   time.Duration // from then on it may have ended without an answer; forever: never
	mayMoveFrom  time.Duration // from then on its end may have changed without an answer; forever: never
	ambiguous    bool          // its versions cannot be distinguished
	lostRenewals []Operation   // renewals of it that were not answered
	updates      int           // the number of its renewals and releases
}

// callKind is what a call states.
type callKind int

const (
	grants  callKind = iota // a hold starts
	renews                  // a hold gets a new end
	ends                    // a hold is released
	shows                   // a hold exists
	isFree                  // no process holds the resource
	notHeld                 // a process does not hold the resource
)

// call is one step of the model. It stands for one or more operations.
type call struct {
	kind       callKind
	hold       holdID // of grants, renews, shows
	expires    int64  // of grants, renews, shows
	process    string // of renews, ends, notHeld
	token      int64  // of renews, ends, notHeld; 0: any
	code       wire.Code
	decided    int64  // the time of the decision, of grants, renews, ends
	unseen     bool   // of ends: the hold may be one that no answer shows
	turn       int    // of isFree: the number of such calls that must come before
	impossible string // why no order can explain the call
	op         Operation
	from, to   time.Duration
}

// model is what is known of one resource.
type model struct {
	calls     []call
	acquires  map[string][]Operation // by process: the acquires that may have been granted
	holdsOf   map[string][]holdID    // by process
	holds     map[holdID]*holdFacts
	shown     map[version]int   // the number of calls that show the version
	decisions []int64           // the times of all decisions, sorted
	answers   map[holdID][]call // the calls that grant, renew or show the hold
	frees     []time.Duration   // when the isFree calls were called, in their turns
}

func newModel(operations []Operation) *model {
	m := &model{
		acquires: map[string][]Operation{}, holdsOf: map[string][]holdID{}, holds: map[holdID]*holdFacts{},
		shown: map[version]int{}, answers: map[holdID][]call{},
	}
	answers := map[holdID][]Operation{}
	for _, o := range operations {
		if o.Kind == Acquire && (o.Outcome == Done || o.Outcome == Unknown || o.Wait > 0) {
			// A request that timed out holds nothing when it is answered. It may have
			// held the resource before, if the database did not report that it had
			// committed the grant.
			m.acquires[o.Process] = append(m.acquires[o.Process], o)
		}
		if o.Holder != (Hold{}) {
			id := idOf(o.Holder)
			if answers[id] == nil {
				m.holdsOf[id.process] = append(m.holdsOf[id.process], id)
			}
			answers[id] = append(answers[id], o)
		}
	}
	for id, shown := range answers {
		m.addGrant(id, shown)
	}
	for _, o := range operations {
		m.add(o)
	}
	m.thinOut()
	m.count()
	return m
}

// addGrant adds the start of a hold, which the answers show. If no request can have been
// granted the hold, it adds nothing, and nothing will explain these answers.
func (m *model) addGrant(id holdID, answers []Operation) {
	h := &holdFacts{from: forever, unseenGrant: true, mayEndFrom: forever, mayMoveFrom: forever}
	m.holds[id] = h
	c := call{kind: grants, hold: id, decided: id.locked, to: math.MaxInt64}
	for _, o := range answers {
		c.to = min(c.to, o.Returned)
	}
	for _, o := range m.acquires[id.process] {
		answered := o.Outcome == Done && idOf(o.Holder) == id
		// A waiting request may be granted a hold that it does not learn of, and another
		// one when it executes its acquire again.
		if answered || (o.Outcome == Unknown || o.Wait > 0) && o.Called < c.to {
			c.op = o
			h.from = min(h.from, o.Called)
		}
	}
	if h.from == forever {
		return
	}
	c.from = h.from
	original := false
	for _, o := range answers {
		if o.Kind != Acquire || o.Outcome != Done {
			continue
		}
		if h.unseenGrant {
			c.op, h.unseenGrant = o, false
		}
		if o.At.Equal(o.Holder.LockedAt) || o.Holder.ExpiresAt.IsZero() { // it had not been renewed
			c.expires, original = micros(o.Holder.ExpiresAt), true
		}
	}
	if ttl := c.op.TTL; ttl != 0 && !original {
		c.expires = id.locked + ttl.Round(time.Microsecond).Microseconds()
	}
	m.calls = append(m.calls, c)
}

// add adds what an operation states.
func (m *model) add(o Operation) {
	c := call{
		hold: idOf(o.Holder), expires: micros(o.Holder.ExpiresAt), process: o.Process, token: o.Token, code: o.Code,
		decided: micros(o.At), op: o, from: o.Called, to: o.Returned,
	}
	done, refused := o.Outcome == Done, o.Outcome == Refused
	// The process may have had a hold that no answer shows.
	unseen := slices.ContainsFunc(m.acquires[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
	// A balancer may send a release again if it did not get the answer.
	unknown := o.Outcome == Unknown || refused && o.Kind == Release && o.Server == Balancer
	switch {
	case unknown && (o.Kind == Release || o.Kind == Renew):
		m.addUnknown(o)
		return
	case done && o.Kind == Renew:
		c.kind = renews
		left := time.Duration(c.expires-c.decided) * time.Microsecond
		if (left - o.TTL).Abs() > time.Microsecond {
			c.impossible = "the new end is not the time of the renewal plus the ttl"
		}
	case done && o.Kind == Release:
		c.kind = ends
		c.unseen = o.Token == 0 && unseen
	case refused && o.Code == wire.CodeTokenMismatch && unseen:
		return
	case refused && (o.Kind == Renew || o.Kind == Release):
		c.kind = notHeld
		if o.Code == wire.CodeForceReleased {
			c.impossible = "no client force-releases a hold"
		}
	case o.Holder != (Hold{}):
		c.kind = shows
		switch {
		case o.Kind != Acquire:
		case done && o.Holder.Process != o.Process:
			c.impossible = "it was answered with the hold of another process"
		case refused && o.Code == wire.CodeAlreadyLocked && m.repeats(o):
			c.impossible = "it is the request that the hold was granted to"
		}
	// A superseded request need not have read the holder.
	case done && o.Kind == Status, refused && o.Kind == Acquire && o.Code != wire.CodeSuperseded:
		c.kind = isFree
	default:
		return
	}
	m.calls = append(m.calls, c)
}

// addUnknown notes what a release or renewal with an unknown outcome may have changed.
func (m *model) addUnknown(o Operation) {
	for _, id := range m.holdsOf[o.Process] {
		if h := m.holds[id]; o.Token == 0 || o.Token == id.token {
			h.mayEndFrom = min(h.mayEndFrom, o.Called)
			if o.Kind == Renew {
				h.mayMoveFrom, h.ambiguous = min(h.mayMoveFrom, o.Called), true
				h.lostRenewals = append(h.lostRenewals, o)
			}
		}
	}
}

// repeats reports whether the hold that an acquire was refused for was granted to that
// very request.
func (m *model) repeats(o Operation) bool {
	return o.RequestID != "" && o.Process == o.Holder.Process &&
		slices.ContainsFunc(m.acquires[o.Process], func(other Operation) bool {
			return other.Outcome == Done && other.RequestID == o.RequestID && idOf(other.Holder) == idOf(o.Holder)
		})
}

// thinOut removes the calls that are explained whenever others are, so that the search
// need not try them in every order.
func (m *model) thinOut() {
	first, last := map[version]int{}, map[version]int{}
	endedBy := map[int64]time.Duration{} // by token: when the hold had definitely ended
	for i, c := range m.calls {
		switch v := (version{c.hold, c.expires}); {
		case c.kind == ends && c.token != 0:
			endedBy[c.token] = c.to
		case c.kind == shows && c.impossible == "":
			if j, found := first[v]; !found || c.to < m.calls[j].to {
				first[v] = i
			}
			if j, found := last[v]; !found || c.from > m.calls[j].from {
				last[v] = i
			}
		}
	}
	var kept, frees []call
	for i, c := range m.calls {
		v := version{c.hold, c.expires}
		switch {
		case c.kind == isFree:
			frees = append(frees, c)
		case c.kind == shows && c.impossible == "" && first[v] != i && last[v] != i:
		case c.kind == notHeld && c.code != wire.CodeTokenMismatch &&
			!slices.ContainsFunc(m.holdsOf[c.process], func(id holdID) bool {
				end, released := endedBy[id.token]
				return m.holds[id].from <= c.to && (!released || end >= c.from)
			}):
		default:
			kept = append(kept, c)
		}
	}
	// An isFree call that encloses another one states nothing more. The others happened
	// in the order of their answers, or may as well have.
	slices.SortStableFunc(frees,
		func(c, d call) int { return cmp.Or(cmp.Compare(c.to, d.to), cmp.Compare(d.from, c.from)) })
	for _, c := range frees {
		if n := len(m.frees); n == 0 || c.from > m.frees[n-1] {
			c.turn = n
			m.frees = append(m.frees, c.from)
			kept = append(kept, c)
		}
	}
	m.calls = kept
}

// count counts the calls that must come before a hold can end. With these numbers the
// model refuses a call that comes too early at once, rather than after many others.
func (m *model) count() {
	started := map[version]bool{}
	for _, c := range m.calls {
		if v := (version{c.hold, c.expires}); c.kind == grants || c.kind == renews {
			if h := m.holds[c.hold]; started[v] {
				h.ambiguous = true
			}
			started[v] = true
		}
	}
	for _, c := range m.calls {
		m.answers[c.hold] = append(m.answers[c.hold], c)
		switch c.kind {
		case shows:
			m.shown[m.version(c.hold, c.expires)]++
		case renews:
			m.holds[c.hold].updates++
		case ends:
			for _, id := range m.holdsOf[c.process] {
				if c.token == id.token || c.token == 0 && len(m.holdsOf[c.process]) == 1 && !c.unseen {
					m.holds[id].updates++
				}
			}
		default:
		}
		if c.isDecision() {
			m.decisions = append(m.decisions, c.decided)
		}
	}
	slices.Sort(m.decisions)
}

func (c call) isDecision() bool { return c.kind == grants || c.kind == renews || c.kind == ends }

func (m *model) version(hold holdID, expires int64) version {
	if h := m.holds[hold]; h != nil && h.ambiguous {
		expires = anyEnd
	}
	return version{hold, expires}
}
