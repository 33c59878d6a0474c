package robust

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"

	"resource-lock-manager/internal/wire"
)

// CheckModel has porcupine look for an order of the calls on each resource in which the lock rules explain every answer. The
// operations must be in the order of their calls. What could not be judged within the timeout, which is for all resources
// together, is reported as a violation of "nothing".
//
// What a run has recorded is prepared first, so that the search hardly ever has to choose:
//
//   - A hold that any answer shows was granted to a request of its process, at the moment that the answer tells, whether or
//     not that request was answered. If no request was ever answered with it, it may end by itself at any time: the server
//     gives back what it granted to a client that has gone.
//   - A request whose outcome is not known and whose hold no answer shows is left out. If it was granted a hold, that hold
//     began and ended without anybody being told of it. Whatever else was answered is as true without it. Only its process may
//     have been told that it released something.
//   - A release whose outcome is not known permits the hold to end from then on, and a renewal whose outcome is not known
//     permits it to end earlier or later than was told. Whether they did is decided where the next answer needs one or the
//     other, so both are considered without trying both.
//   - Grants, renewals and releases tell their moments, and the clock of the service does not go back, so they happened in
//     the order of their moments.
//   - Answers that only show something change nothing, so of those that show the same hold the one that returned first and the
//     one that was called last stand for all; and so on, see thinOut.
//
// The rules know nothing of minimum holds and force-releases, which workloads leave alone, nor of the queue, nor how the
// service's clock compares with the clients': [CheckInvariants] judges these.
func CheckModel(operations []Operation, timeout time.Duration) []Violation {
	deadline := time.Now().Add(timeout)
	byResource := map[string][]Operation{}
	for _, o := range operations {
		byResource[o.Resource] = append(byResource[o.Resource], o)
	}
	var violations []Violation
	for _, resource := range slices.Sorted(maps.Keys(byResource)) {
		account := newAccount(byResource[resource])
		model, history := account.model(), account.history()
		left := max(time.Until(deadline), time.Nanosecond) // 0 would be no limit
		switch porcupine.CheckOperationsTimeout(model, history, left) {
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(model, history, left)
			violations = append(violations, account.explain(resource, longest(info)))
		case porcupine.Unknown:
			what := fmt.Sprintf("its %d calls could not be judged within %v", len(history), timeout)
			violations = append(violations, Violation{Guarantee: "nothing", Resource: resource, What: what})
		case porcupine.Ok:
		}
	}
	return violations
}

// micros is a moment in microseconds, which is what answers tell; 0 is none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// holdID is what answers about the same hold must agree on.
type holdID struct {
	token   int64
	process string
	locked  int64
}

func idOf(h Hold) holdID { return holdID{h.Token, h.Process, micros(h.LockedAt)} }

// version is a hold as it was between two renewals.
type version struct {
	hold    holdID
	expires int64 // 0: never
}

// whenever stands for all ends of a hold whose versions cannot be told apart.
const whenever = -1

// known is what the whole history tells of a hold.
type known struct {
	from    time.Duration // since when it can have been granted; forever: never
	ghost   bool          // no request was answered with it
	mayEnd  time.Duration // since when it may have ended unseen; forever: never
	mayLast time.Duration // since when it may have got another end unseen; forever: never
	blurred bool          // its versions cannot be told apart
	lost    []Operation   // the renewals of it that were not answered
	acts    int           // renewals and releases of it
}

// verb is what a call tells.
type verb int

const (
	grants  verb = iota // a hold begins
	renews              // it gets a new end
	ends                // it is released
	shows               // it is there
	isFree              // nobody holds the resource
	notHeld             // a process does not hold it
)

// call is what the model knows of one or more operations.
type call struct {
	verb     verb
	hold     holdID // of grants, renews, shows
	expires  int64  // of grants, renews, shows
	process  string // of renews, ends, notHeld
	token    int64  // of renews, ends, notHeld; 0: any
	code     wire.Code
	moment   int64  // of grants, renews, ends
	unseen   bool   // of ends: the hold may be one that no answer shows
	turn     int    // of isFree: how many such calls must come before
	wrong    string // why no order can explain it
	op       Operation
	from, to time.Duration
}

// situation of one resource between two calls.
type situation struct {
	hold    holdID // zero: free
	expires int64
	seen    int           // calls so far that show this version of it
	acts    int           // renewals and releases of it so far
	token   int64         // the highest so far
	moments int           // calls so far that tell a moment
	free    int           // calls so far that tell that nobody holds it
	now     time.Duration // it is not earlier
}

// flaw is why a call cannot come next.
type flaw struct{ guarantee, why string }

// account is all that is known of one resource.
type account struct {
	calls   []call
	asked   map[string][]Operation // the acquires of a process that may have been granted
	of      map[string][]holdID    // the holds of a process
	holds   map[holdID]*known
	shows   map[version]int   // how many calls show it
	moments []int64           // of all calls that tell one, sorted
	answers map[holdID][]call // those that grant, renew or show a hold
	frees   []time.Duration   // when the calls were made that tell that nobody holds it, in their turns
}

func newAccount(operations []Operation) *account {
	a := &account{
		asked: map[string][]Operation{}, of: map[string][]holdID{}, holds: map[holdID]*known{}, shows: map[version]int{},
		answers: map[holdID][]call{},
	}
	answers := map[holdID][]Operation{}
	for _, o := range operations {
		if o.Kind == Acquire && (o.Outcome == Done || o.Outcome == Unknown || o.Wait > 0) {
			// That a request has waited in vain is told when it holds nothing any more. It may have held something before,
			// if the database did not say that it had committed.
			a.asked[o.Process] = append(a.asked[o.Process], o)
		}
		if o.Holder != (Hold{}) {
			id := idOf(o.Holder)
			if answers[id] == nil {
				a.of[id.process] = append(a.of[id.process], id)
			}
			answers[id] = append(answers[id], o)
		}
	}
	for id, told := range answers {
		a.grant(id, told)
	}
	for _, o := range operations {
		a.take(o)
	}
	a.thinOut()
	a.count()
	return a
}

// grant adds the beginning of a hold. If nobody can have been granted it, nothing will explain what shows it.
func (a *account) grant(id holdID, told []Operation) {
	h := &known{from: forever, ghost: true, mayEnd: forever, mayLast: forever}
	a.holds[id] = h
	c := call{verb: grants, hold: id, moment: id.locked, to: math.MaxInt64}
	for _, o := range told {
		c.to = min(c.to, o.Returned)
	}
	for _, o := range a.asked[id.process] {
		its := o.Outcome == Done && idOf(o.Holder) == id
		// A request that waits may be granted something that it does not learn of, and then, as it asks again, another hold.
		if its || (o.Outcome == Unknown || o.Wait > 0) && o.Called < c.to {
			c.op = o
			h.from = min(h.from, o.Called)
		}
	}
	if h.from == forever {
		return
	}
	c.from = h.from
	original := false
	for _, o := range told {
		if o.Kind != Acquire || o.Outcome != Done {
			continue
		}
		if h.ghost {
			c.op, h.ghost = o, false
		}
		if o.At.Equal(o.Holder.LockedAt) || o.Holder.ExpiresAt.IsZero() { // it had not been renewed
			c.expires, original = micros(o.Holder.ExpiresAt), true
		}
	}
	if ttl := c.op.TTL; ttl != 0 && !original {
		c.expires = id.locked + ttl.Round(time.Microsecond).Microseconds()
	}
	a.calls = append(a.calls, c)
}

// take adds what an operation tells.
func (a *account) take(o Operation) {
	c := call{
		hold: idOf(o.Holder), expires: micros(o.Holder.ExpiresAt), process: o.Process, token: o.Token, code: o.Code,
		moment: micros(o.At), op: o, from: o.Called, to: o.Returned,
	}
	done, refused := o.Outcome == Done, o.Outcome == Refused
	// The process may have had a hold that no answer shows.
	unseen := slices.ContainsFunc(a.asked[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
	// A balancer may send a release again whose answer it has not got.
	unknown := o.Outcome == Unknown || refused && o.Kind == Release && o.Server == Balancer
	switch {
	case unknown && (o.Kind == Release || o.Kind == Renew):
		for _, id := range a.of[o.Process] {
			if h := a.holds[id]; o.Token == 0 || o.Token == id.token {
				h.mayEnd = min(h.mayEnd, o.Called)
				if o.Kind == Renew {
					h.mayLast, h.blurred, h.lost = min(h.mayLast, o.Called), true, append(h.lost, o)
				}
			}
		}
		return
	case done && o.Kind == Renew:
		c.verb = renews
		left := time.Duration(c.expires-c.moment) * time.Microsecond
		if (left - o.TTL).Abs() > time.Microsecond {
			c.wrong = "the new end is not the ttl after the moment of the renewal"
		}
	case done && o.Kind == Release:
		c.verb = ends
		c.unseen = o.Token == 0 && unseen
	case refused && o.Code == wire.CodeTokenMismatch && unseen:
		return
	case refused && (o.Kind == Renew || o.Kind == Release):
		c.verb = notHeld
		if o.Code == wire.CodeForceReleased {
			c.wrong = "nobody breaks a hold"
		}
	case o.Holder != (Hold{}):
		c.verb = shows
		switch {
		case o.Kind != Acquire:
		case done && o.Holder.Process != o.Process:
			c.wrong = "it was answered with the hold of somebody else"
		case refused && o.Code == wire.CodeAlreadyLocked && a.repeats(o):
			c.wrong = "it is the request that the hold was granted to"
		}
	case done && o.Kind == Status, refused && o.Kind == Acquire && o.Code != wire.CodeSuperseded: // which need not be able to read
		c.verb = isFree
	default:
		return
	}
	a.calls = append(a.calls, c)
}

// repeats tells whether the hold in the way of an acquire was granted to that very request.
func (a *account) repeats(o Operation) bool {
	return o.RequestID != "" && o.Process == o.Holder.Process && slices.ContainsFunc(a.asked[o.Process], func(other Operation) bool {
		return other.Outcome == Done && other.RequestID == o.RequestID && idOf(other.Holder) == idOf(o.Holder)
	})
}

// thinOut leaves away the calls that are explained whenever others are: the search need not try them in every order.
func (a *account) thinOut() {
	first, last := map[version]int{}, map[version]int{}
	over := map[int64]time.Duration{} // since when the hold of a token is surely over
	for i, c := range a.calls {
		switch v := (version{c.hold, c.expires}); {
		case c.verb == ends && c.token != 0:
			over[c.token] = c.to
		case c.verb == shows && c.wrong == "":
			if j, found := first[v]; !found || c.to < a.calls[j].to {
				first[v] = i
			}
			if j, found := last[v]; !found || c.from > a.calls[j].from {
				last[v] = i
			}
		}
	}
	var kept, frees []call
	for i, c := range a.calls {
		v := version{c.hold, c.expires}
		switch {
		case c.verb == isFree:
			frees = append(frees, c)
		case c.verb == shows && c.wrong == "" && first[v] != i && last[v] != i:
		case c.verb == notHeld && c.code != wire.CodeTokenMismatch && !slices.ContainsFunc(a.of[c.process], func(id holdID) bool {
			end, released := over[id.token]
			return a.holds[id].from <= c.to && (!released || end >= c.from)
		}):
		default:
			kept = append(kept, c)
		}
	}
	// Whoever was told that nobody holds it, and was asking all the time that another one was who was told the same, learnt
	// nothing more. The others were told in the order of their answers, or might as well have been.
	slices.SortStableFunc(frees, func(c, d call) int { return cmp.Or(cmp.Compare(c.to, d.to), cmp.Compare(d.from, c.from)) })
	for _, c := range frees {
		if n := len(a.frees); n == 0 || c.from > a.frees[n-1] {
			c.turn = n
			a.frees = append(a.frees, c.from)
			kept = append(kept, c)
		}
	}
	a.calls = kept
}

// count notes what a hold must have had before it can end: a call that comes too early is refused then, rather than found out
// after many others.
func (a *account) count() {
	begun := map[version]bool{}
	for _, c := range a.calls {
		if v := (version{c.hold, c.expires}); c.verb == grants || c.verb == renews {
			if h := a.holds[c.hold]; begun[v] {
				h.blurred = true
			}
			begun[v] = true
		}
	}
	for _, c := range a.calls {
		a.answers[c.hold] = append(a.answers[c.hold], c)
		switch c.verb {
		case shows:
			a.shows[a.version(c.hold, c.expires)]++
		case renews:
			a.holds[c.hold].acts++
		case ends:
			for _, id := range a.of[c.process] {
				if c.token == id.token || c.token == 0 && len(a.of[c.process]) == 1 && !c.unseen {
					a.holds[id].acts++
				}
			}
		default:
		}
		if c.tellsMoment() {
			a.moments = append(a.moments, c.moment)
		}
	}
	slices.Sort(a.moments)
}

func (c call) tellsMoment() bool { return c.verb == grants || c.verb == renews || c.verb == ends }

func (a *account) version(hold holdID, expires int64) version {
	if h := a.holds[hold]; h != nil && h.blurred {
		expires = whenever
	}
	return version{hold, expires}
}

// next applies a call, if it can come next.
func (a *account) next(s situation, c call) (situation, flaw) {
	if c.wrong != "" {
		return s, flaw{"G5", c.wrong}
	}
	if c.to < s.now {
		return s, flaw{"G5", "it was answered before the hold could end unseen"}
	}
	if c.tellsMoment() {
		if !a.reached(s, c.moment) {
			return s, flaw{"G6", "something that was decided before has not happened"}
		}
		if s.free < len(a.frees) && a.frees[s.free] <= s.now {
			if _, no := a.gone(s, c); no == (flaw{}) {
				return s, flaw{"", "somebody is told that it is free before"} // it might as well be later, which need not be tried
			}
		}
		s.moments++
	}
	s.now = max(s.now, c.from)
	switch c.verb {
	case grants:
		return a.begin(s, c)
	case renews:
		return a.renew(s, c)
	case ends:
		return a.end(s, c)
	case shows:
		return a.show(s, c)
	case isFree:
		if c.turn != s.free {
			return s, flaw{"", "somebody else is told so before"}
		}
		s.free++
		if a.maySeemFree(s, c) {
			return s, flaw{}
		}
		return a.gone(s, c)
	default:
		return a.refuse(s, c)
	}
}

// reached tells whether everything decided before a moment has happened.
func (a *account) reached(s situation, moment int64) bool {
	return s.moments >= sort.Search(len(a.moments), func(i int) bool { return a.moments[i] >= moment })
}

// begin: a hold is granted when the one before is over, with a higher token.
func (a *account) begin(s situation, c call) (situation, flaw) {
	if c.hold.token <= s.token {
		return s, flaw{"G3", "the token is not higher than every earlier one"}
	}
	s, no := a.over(s, c)
	s.hold, s.expires, s.token, s.seen, s.acts = c.hold, c.expires, c.hold.token, 0, 0
	return s, no
}

// over: the last hold is over at the moment of a call.
func (a *account) over(s situation, c call) (situation, flaw) {
	switch {
	case s.hold == holdID{}:
	case !a.complete(s):
		return s, flaw{"G1", "later answers show that the hold before goes on"}
	case s.expires != 0 && s.expires <= c.moment:
	case !a.endsUnseen(&s, c):
		return s, flaw{"G1", "the hold before has not ended"}
	}
	s.hold = holdID{}
	return s, flaw{}
}

// gone: nobody holds the resource, and no earlier than now. Nobody sees the last hold again.
func (a *account) gone(s situation, c call) (situation, flaw) {
	switch {
	case s.hold == holdID{}:
	case !a.complete(s):
		return s, flaw{"G2", "it is held, as later answers show"}
	case s.expires != 0 && a.reached(s, s.expires):
	case !a.endsUnseen(&s, c):
		return s, flaw{"G2", "it is held"}
	}
	s.hold = holdID{}
	return s, flaw{}
}

// maySeemFree reports whether a status can say that nobody holds the resource although the
// hold goes on. A renewal is decided before the old end, and committed after it. A status in
// between reads the old end, which is all that is committed, and that end has passed.
func (a *account) maySeemFree(s situation, c call) bool {
	if c.op.Kind != Status || s.hold == (holdID{}) || a.complete(s) {
		return false
	}
	passed := func(from, left time.Duration) bool { return from+atLeast(left) <= c.to }
	over := s.expires != 0 && !slices.ContainsFunc(a.answers[s.hold], func(answer call) bool {
		left := time.Duration(s.expires-micros(answer.op.At)) * time.Microsecond
		return !answer.op.At.IsZero() && !passed(answer.op.Called, left)
	})
	lost := slices.DeleteFunc(slices.Clone(a.holds[s.hold].lost), func(o Operation) bool { return o.Called > c.to })
	if len(lost) > 0 { // the end may also be the one that such a renewal gave the hold
		return over || slices.ContainsFunc(lost, func(o Operation) bool { return passed(o.Called, o.TTL) })
	}
	return over && slices.ContainsFunc(a.answers[s.hold], func(renewal call) bool {
		next := s.moments < len(a.moments) && a.moments[s.moments] == renewal.moment
		return renewal.verb == renews && next && renewal.from <= c.to && renewal.moment < s.expires
	})
}

// complete tells whether nothing is left that needs the hold.
func (a *account) complete(s situation) bool {
	return s.seen >= a.shows[a.version(s.hold, s.expires)] && s.acts >= a.holds[s.hold].acts
}

// endsUnseen tells whether the hold may have ended before a call without an answer that says so.
func (a *account) endsUnseen(s *situation, c call) bool {
	h := a.holds[s.hold]
	if h.ghost {
		return true
	}
	s.now = max(s.now, min(h.mayEnd, c.to))
	return h.mayEnd <= c.to
}

// lastsUnseen tells whether the hold may have got another end before a call without an answer that says so.
func (a *account) lastsUnseen(s *situation, c call) bool {
	h := a.holds[s.hold]
	s.now = max(s.now, min(h.mayLast, c.to))
	return h.mayLast <= c.to
}

// owned: a process has the live hold that it renews or releases.
func (a *account) owned(s situation, c call) (situation, flaw) {
	switch {
	case s.hold == holdID{} || s.hold.process != c.process || c.token != 0 && c.token != s.hold.token:
		return s, flaw{"G5", "the process does not hold it"}
	case s.expires != 0 && s.expires <= c.moment && !a.lastsUnseen(&s, c):
		return s, flaw{"G5", "the hold was over before"}
	}
	s.acts++
	return s, flaw{}
}

func (a *account) renew(s situation, c call) (situation, flaw) {
	s, no := a.owned(s, c)
	before, after := a.version(s.hold, s.expires), a.version(s.hold, c.expires)
	switch {
	case no != flaw{}:
		return s, no
	case c.hold != s.hold:
		return s, flaw{"G5", "the answer tells another hold than there is"}
	case before != after && s.seen < a.shows[before]:
		return s, flaw{"G2", "later answers show that the end is as before"}
	case before != after:
		s.seen = 0
	}
	s.expires = c.expires
	return s, flaw{}
}

func (a *account) end(s situation, c call) (situation, flaw) {
	if c.unseen && s.hold.process != c.process {
		return a.over(s, c)
	}
	s, no := a.owned(s, c)
	if no == (flaw{}) && !a.complete(s) {
		no = flaw{"G5", "later answers show that the hold goes on"}
	}
	s.hold = holdID{}
	return s, no
}

func (a *account) show(s situation, c call) (situation, flaw) {
	switch {
	case s.hold == c.hold && (s.expires == c.expires || a.lastsUnseen(&s, c)):
		s.seen++
		return s, flaw{}
	case s.hold == c.hold:
		return s, flaw{"G2", "the hold ends at another time"}
	case c.hold.token < s.token:
		return s, flaw{"G5", "a later hold has been granted"}
	case a.holds[c.hold].from == forever:
		return s, flaw{"G9", "nobody can have been granted this hold"}
	}
	return s, flaw{"G2", "this hold is not there"}
}

// refuse: the process does not hold the resource, or not by that token, as the code says.
func (a *account) refuse(s situation, c call) (situation, flaw) {
	switch its := s.hold.process == c.process; {
	case c.code == wire.CodeTokenMismatch && (!its || c.token == 0 || c.token == s.hold.token):
		return s, flaw{"G5", "the process does not hold it by another token"}
	case c.code == wire.CodeTokenMismatch, !its:
		return s, flaw{}
	case c.code != wire.CodeNotHeld && c.token != 0 && c.token != s.hold.token: // it tells how that other hold ended
		return s, flaw{}
	}
	after, no := a.gone(s, c)
	if no == (flaw{}) {
		no = a.endedAsTold(s, c)
	}
	return after, no
}

// endedAsTold: the hold that is gone has ended in the way that a refusal tells.
func (a *account) endedAsTold(s situation, c call) flaw {
	expired := s.expires != 0 && a.reached(s, s.expires) || a.lastsUnseen(&s, c) || a.holds[s.hold].ghost
	switch {
	case c.code == wire.CodeExpired && !expired:
		return flaw{"G5", "the hold has not expired"}
	case c.code == wire.CodeAlreadyReleased && !a.endsUnseen(&s, c):
		return flaw{"G5", "nobody has released the hold"}
	}
	return flaw{}
}

func (a *account) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return situation{} },
		Step: func(state, input, _ any) (bool, any) {
			after, no := a.next(state.(situation), *input.(*call))
			return no == flaw{}, after
		},
		Hash: func(state any) uint64 {
			s := state.(situation)
			return uint64(s.token)<<16 ^ uint64(s.free)<<8 ^ uint64(s.seen)
		},
	}
}

func (a *account) history() []porcupine.Operation {
	slices.SortStableFunc(a.calls, func(c, d call) int { return cmp.Compare(c.from, d.from) })
	history := make([]porcupine.Operation, len(a.calls))
	for i := range a.calls {
		c := &a.calls[i]
		history[i] = porcupine.Operation{ClientId: c.op.Client, Input: c, Call: int64(c.from), Return: int64(c.to)}
	}
	return history
}

// longest is how far porcupine got.
func longest(info porcupine.LinearizationInfo) (placed []porcupine.Operation) {
	for _, resource := range info.PartialLinearizationsOperations() {
		for _, some := range resource {
			if len(some) > len(placed) {
				placed = some
			}
		}
	}
	return placed
}

// explain names the call that has to come next and cannot, and what else speaks of the hold that it meets.
func (a *account) explain(resource string, placed []porcupine.Operation) Violation {
	var s situation
	done := map[*call]bool{}
	for _, o := range placed {
		c := o.Input.(*call)
		s, _ = a.next(s, *c)
		done[c] = true
	}
	var stuck, witness *call
	for i := range a.calls {
		c := &a.calls[i]
		if done[c] {
			continue
		}
		if stuck == nil || c.to < stuck.to {
			stuck = c
		}
		if witness == nil && c.hold == s.hold && c.verb == shows {
			witness = c
		}
	}
	_, no := a.next(s, *stuck)
	v := Violation{Guarantee: cmp.Or(no.guarantee, "G1"), Resource: resource}
	v.What = fmt.Sprintf("no order explains %v: %s", stuck.op, cmp.Or(no.why, "it was called before something that it comes after"))
	if s.hold != (holdID{}) {
		v.What += fmt.Sprintf("; before it, %q held it with token %d", s.hold.process, s.hold.token)
	}
	if witness != nil && witness != stuck {
		v.What += fmt.Sprintf("; still to come is %v", witness.op)
	}
	return v
}
