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

// CheckModel has porcupine look for an order of the calls on each resource in which the lock rules explain every answer. A
// resource that it could not judge within the timeout, which is for all of them together, is reported as such.
//
// What a run records is prepared first, so that the search hardly ever has to choose:
//
//   - A hold that any answer shows was granted to a request of its process, at the moment that the answer tells, whether or
//     not that request was answered. If no request was ever answered with it, it may end by itself at any time: the server
//     gives back what it granted to a client that has gone.
//   - A request whose outcome is not known and whose hold no answer shows is left out. If it was granted a hold, that hold
//     began and ended without anybody being told of it. Whatever else was answered is as true without it. Only its process may
//     have been told that it released something.
//   - A release whose outcome is not known only permits the hold to end from then on, and a renewal whose outcome is not known
//     also permits it to last longer.
//   - Grants, renewals and releases tell their moments, and the clock of the service does not go back, so they happened in
//     the order of their moments.
//   - Answers that only show something change nothing, so of those that show the same hold the one that returned first and the
//     one that was called last stand for all; and so on, see thinOut.
//
// The rules know nothing of minimum holds, of force-releases and of the queue: workloads leave the former alone, and
// [CheckInvariants] judges the latter.
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

// shown is a hold as it was between two renewals.
type shown struct {
	hold    holdID
	expires int64 // 0: never
}

// whenever stands for all ends of a hold whose renewals cannot be told apart.
const whenever = -1

type step int

const (
	grants  step = iota // a hold begins
	renews              // it gets a new end
	ends                // it is released
	shows               // it is told to be live
	isFree              // nobody is told to hold the resource
	notHeld             // a process is told that it does not hold it
	permits             // a hold may end, or last longer, from now on
)

// call is what the model knows of one or more operations.
type call struct {
	step     step
	hold     holdID // of grants, shows, permits
	expires  int64  // of grants, renews, shows
	process  string // of renews, ends, notHeld
	token    int64  // of renews, ends, notHeld; 0: any
	code     wire.Code
	moment   int64  // of grants, renews, ends
	mayEnd   bool   // of grants, permits
	mayLast  bool   // of permits
	unseen   bool   // of ends: the hold may be one that no answer shows
	turn     int    // of isFree: how many such calls must come before
	wrong    string // why no order can explain it
	op       Operation
	from, to time.Duration
}

// situation of one resource between two calls.
type situation struct {
	hold            holdID // zero: free
	expires         int64
	mayEnd, mayLast bool          // it may have ended, or been renewed, unseen
	seen            int           // calls so far that show it as it is
	acts            int           // renewals and releases of it so far
	token           int64         // the highest so far
	moments         int           // calls so far that tell a moment
	free            int           // calls so far that tell that nobody holds it
	placed          int           // calls so far but permits
	called          time.Duration // the last call so far
}

// flaw is why a call cannot come next.
type flaw struct{ guarantee, why string }

// account is all that is known of one resource.
type account struct {
	calls   []call
	asked   map[string][]Operation   // the acquires of a process that may have been granted
	granted map[holdID]time.Duration // since when one of these can have been granted a hold
	blurred map[holdID]bool          // the ends of its renewals cannot be told apart
	shows   map[shown]int
	acts    map[holdID]int
	moments []int64         // of all calls that tell one, sorted
	frees   []time.Duration // when the calls were made that tell that nobody holds it, in their turns
	toPlace int             // all calls but permits
}

func newAccount(operations []Operation) *account {
	a := &account{
		asked: map[string][]Operation{}, granted: map[holdID]time.Duration{},
		blurred: map[holdID]bool{}, shows: map[shown]int{}, acts: map[holdID]int{},
	}
	told := map[holdID][]Operation{} // what shows each hold
	holds := map[string][]holdID{}   // of each process
	for _, o := range operations {
		if o.Kind == Acquire && (o.Outcome == Done || o.Outcome == Unknown || o.Wait > 0) {
			// That a request has waited in vain is told when it holds nothing any more. It may have held something before,
			// if the database did not say that it had committed.
			a.asked[o.Process] = append(a.asked[o.Process], o)
		}
		if o.Holder != (Hold{}) {
			id := idOf(o.Holder)
			if told[id] == nil {
				holds[id.process] = append(holds[id.process], id)
			}
			told[id] = append(told[id], o)
		}
	}
	for id, answers := range told {
		a.grant(id, answers)
	}
	for _, o := range operations {
		a.take(o, holds[o.Process])
	}
	a.thinOut(holds)
	a.count(holds)
	return a
}

// grant adds the beginning of a hold. If nobody can have been granted it, nothing will explain what shows it.
func (a *account) grant(id holdID, answers []Operation) {
	c := call{step: grants, hold: id, moment: id.locked, mayEnd: true, from: -1, to: math.MaxInt64}
	for _, o := range answers {
		c.to = min(c.to, o.Returned)
	}
	for _, o := range a.asked[id.process] {
		its := o.Outcome == Done && idOf(o.Holder) == id
		// A request that waits may be granted something that it does not learn of, and then, as it asks again, another hold.
		if its || (o.Outcome == Unknown || o.Wait > 0) && o.Called < c.to {
			c.op = o
			if c.from < 0 {
				c.from = o.Called
			}
		}
	}
	if c.from < 0 {
		return
	}
	a.granted[id] = c.from
	known := false
	for _, o := range answers {
		if o.Kind != Acquire || o.Outcome != Done {
			continue
		}
		if c.mayEnd {
			c.op, c.mayEnd = o, false
		}
		if o.At.Equal(o.Holder.LockedAt) || o.Holder.ExpiresAt.IsZero() { // it has not been renewed
			c.expires, known = micros(o.Holder.ExpiresAt), true
		}
	}
	if ttl := c.op.TTL; ttl != 0 && !known {
		c.expires = id.locked + ttl.Round(time.Microsecond).Microseconds()
	}
	a.calls = append(a.calls, c)
}

// take adds what an operation tells.
func (a *account) take(o Operation, holds []holdID) {
	c := call{
		hold: idOf(o.Holder), expires: micros(o.Holder.ExpiresAt), process: o.Process, token: o.Token, code: o.Code,
		moment: micros(o.At), op: o, from: o.Called, to: o.Returned,
	}
	done, refused := o.Outcome == Done, o.Outcome == Refused
	// A balancer may send a release again whose answer it has not got.
	unknown := o.Outcome == Unknown || refused && o.Kind == Release && o.Server == Balancer
	switch {
	case unknown && (o.Kind == Release || o.Kind == Renew):
		c.step, c.mayEnd, c.mayLast, c.to = permits, true, o.Kind == Renew, math.MaxInt64
		for _, id := range holds {
			if o.Token == 0 || o.Token == id.token {
				c.hold = id
				a.blurred[id] = a.blurred[id] || c.mayLast
				a.calls = append(a.calls, c)
			}
		}
		return
	case done && o.Kind == Renew:
		c.step = renews
		left := time.Duration(c.expires-c.moment) * time.Microsecond
		if (left - o.TTL).Abs() > time.Microsecond {
			c.wrong = "the new end is not the ttl after the moment of the renewal"
		}
	case done && o.Kind == Release:
		c.step = ends
		c.unseen = o.Token == 0 && slices.ContainsFunc(a.asked[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
	case refused && (o.Kind == Renew || o.Kind == Release):
		c.step = notHeld
	case o.Holder != (Hold{}):
		c.step = shows
		switch {
		case o.Kind != Acquire:
		case done && o.Holder.Process != o.Process:
			c.wrong = "it was answered with the hold of somebody else"
		case refused && o.Code == wire.CodeAlreadyLocked && a.repeats(o):
			c.wrong = "it is the request that the hold was granted to"
		}
	case done && o.Kind == Status, refused && o.Kind == Acquire:
		c.step = isFree
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
func (a *account) thinOut(holds map[string][]holdID) {
	first, last := map[shown]int{}, map[shown]int{}
	permitted := map[shown]int{}
	released := map[int64]time.Duration{} // since when the hold of a token is surely over
	for i, c := range a.calls {
		switch key := keyOf(c); {
		case c.step == ends && c.token != 0:
			released[c.token] = c.to
		case c.step == permits:
			if j, found := permitted[key]; !found || c.from < a.calls[j].from {
				permitted[key] = i
			}
		case c.step == shows && c.wrong == "":
			if j, found := first[key]; !found || c.to < a.calls[j].to {
				first[key] = i
			}
			if j, found := last[key]; !found || c.from > a.calls[j].from {
				last[key] = i
			}
		}
	}
	var kept, frees []call
	for i, c := range a.calls {
		key := keyOf(c)
		switch {
		case c.step == isFree:
			frees = append(frees, c)
		case c.step == shows && c.wrong == "" && first[key] != i && last[key] != i:
		case c.step == permits && permitted[key] != i:
		case c.step == notHeld && !slices.ContainsFunc(holds[c.process], func(id holdID) bool {
			over, known := released[id.token]
			matters := c.token == 0 || c.token == id.token || c.code != wire.CodeAlreadyReleased
			return matters && a.granted[id] <= c.to && !(known && over < c.from)
		}):
		default:
			kept = append(kept, c)
		}
	}
	// Whoever was told that nobody holds it while another was told so as well learnt nothing more. The others were told so in the
	// order of their answers, or might as well have been.
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

// keyOf is what calls have in common of which only the first or the last matters.
func keyOf(c call) shown {
	if c.step == permits && c.mayLast {
		return shown{c.hold, whenever}
	}
	return shown{c.hold, c.expires}
}

// count notes what a hold must have had before it can end: a call that comes too early is refused then, rather than found out
// after many others.
func (a *account) count(holds map[string][]holdID) {
	setters := map[shown]int{}
	for _, c := range a.calls {
		switch c.step {
		case grants:
			setters[shown{c.hold, c.expires}]++
		case renews:
			setters[shown{idOf(c.op.Holder), c.expires}]++
		}
	}
	for key, n := range setters {
		a.blurred[key.hold] = a.blurred[key.hold] || n > 1
	}
	for _, c := range a.calls {
		if c.step != permits {
			a.toPlace++
		}
		switch c.step {
		case shows:
			a.shows[a.key(c.hold, c.expires)]++
		case renews:
			a.acts[c.hold]++
			a.moments = append(a.moments, c.moment)
		case ends:
			for _, id := range holds[c.process] {
				if c.token == id.token || c.token == 0 && len(holds[c.process]) == 1 && !c.unseen {
					a.acts[id]++
				}
			}
			a.moments = append(a.moments, c.moment)
		case grants:
			a.moments = append(a.moments, c.moment)
		}
	}
	slices.Sort(a.moments)
}

func (a *account) key(hold holdID, expires int64) shown {
	if a.blurred[hold] {
		expires = whenever
	}
	return shown{hold, expires}
}

// next applies a call, if it can come next.
func (a *account) next(s situation, c call) (situation, flaw) {
	if c.wrong != "" {
		return s, flaw{"G5", c.wrong}
	}
	if c.step == permits {
		switch {
		case s.hold == c.hold:
			s.mayEnd, s.mayLast = true, s.mayLast || c.mayLast
		case s.placed < a.toPlace: // not yet, or not any more
			return s, flaw{"", "the hold is not there"}
		}
		return s, flaw{}
	}
	called := s.called
	s.placed++
	s.called = max(s.called, c.from)
	if c.step == grants || c.step == renews || c.step == ends {
		if !a.reached(s, c.moment) {
			return s, flaw{"G6", "something that was decided before has not happened"}
		}
		if s.free < len(a.frees) && a.frees[s.free] <= called {
			if _, no := a.gone(s); no == (flaw{}) {
				return s, flaw{"", "somebody is told that it is free before"} // later does as well, but would be tried too
			}
		}
		s.moments++
	}
	switch c.step {
	case grants:
		return a.begin(s, c)
	case renews, ends:
		return a.act(s, c)
	case shows:
		switch {
		case s.hold == c.hold && (s.expires == c.expires || s.mayLast):
			s.seen++
			return s, flaw{}
		case s.hold == c.hold:
			return s, flaw{"G2", "the hold ends at another time"}
		case c.hold.token < s.token:
			return s, flaw{"G5", "a later hold has been granted"}
		}
		if _, known := a.granted[c.hold]; !known {
			return s, flaw{"G9", "nobody can have been granted this hold"}
		}
		return s, flaw{"G2", "this hold is not there"}
	case isFree:
		if c.turn != s.free {
			return s, flaw{"", "somebody else is told so before"}
		}
		s.free++
		return a.gone(s)
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
	if no := a.overBy(s, c.moment); no != (flaw{}) {
		return s, no
	}
	s.hold, s.expires, s.token = c.hold, c.expires, c.hold.token
	s.mayEnd, s.mayLast, s.seen, s.acts = c.mayEnd, false, 0, 0
	return s, flaw{}
}

// overBy tells whether the last hold was over at a moment that has been reached.
func (a *account) overBy(s situation, moment int64) flaw {
	switch {
	case s.hold == holdID{}:
	case !a.complete(s):
		return flaw{"G1", "later answers show that the hold before goes on"}
	case s.mayEnd || s.expires != 0 && s.expires <= moment:
	default:
		return flaw{"G1", "the hold before has not ended"}
	}
	return flaw{}
}

// act: a process renews or releases the live hold that it has.
func (a *account) act(s situation, c call) (situation, flaw) {
	switch {
	case c.unseen && s.hold.process != c.process:
		no := a.overBy(s, c.moment)
		s.hold = holdID{}
		return s, no
	case s.hold == holdID{} || s.hold.process != c.process || c.token != 0 && c.token != s.hold.token:
		return s, flaw{"G5", "the process does not hold it"}
	case !s.mayLast && s.expires != 0 && s.expires <= c.moment:
		return s, flaw{"G5", "the hold was over before"}
	}
	if c.step == renews {
		before, after := a.key(s.hold, s.expires), a.key(s.hold, c.expires)
		switch {
		case c.hold != s.hold:
			return s, flaw{"G5", "the answer tells another hold than there is"}
		case before != after && s.seen < a.shows[before]:
			return s, flaw{"G2", "later answers show that the end is as before"}
		case before != after:
			s.seen = 0
		}
		s.expires = c.expires
		s.acts++
		return s, flaw{}
	}
	s.acts++
	if !a.complete(s) {
		return s, flaw{"G5", "later answers show that the hold goes on"}
	}
	s.hold = holdID{}
	return s, flaw{}
}

// complete tells whether nothing is left that needs the hold.
func (a *account) complete(s situation) bool {
	return s.seen >= a.shows[a.key(s.hold, s.expires)] && s.acts >= a.acts[s.hold]
}

// gone: nobody holds the resource. Whoever looks after the end of a hold sees it gone, and nobody sees it again.
func (a *account) gone(s situation) (situation, flaw) {
	switch {
	case s.hold == holdID{}:
	case !a.complete(s):
		return s, flaw{"G2", "it is held, as later answers show"}
	case s.mayEnd || s.expires != 0 && a.reached(s, s.expires):
		s.hold = holdID{}
	default:
		return s, flaw{"G2", "it is held"}
	}
	return s, flaw{}
}

// refuse: the process does not hold the resource, or not by that token, as the code says.
func (a *account) refuse(s situation, c call) (situation, flaw) {
	if c.code == wire.CodeTokenMismatch {
		if s.hold.process != c.process || s.hold.token == c.token || c.token == 0 {
			return s, flaw{"G5", "the process does not hold it by another token"}
		}
		return s, flaw{}
	}
	other := c.token != 0 && c.token != s.hold.token && c.code != wire.CodeNotHeld
	if s.hold.process != c.process || other {
		return s, flaw{}
	}
	return a.gone(s)
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
			return uint64(s.token)<<8 ^ uint64(s.seen)
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
		switch {
		case done[c] || c.step == permits:
			continue
		case stuck == nil || c.to < stuck.to:
			stuck = c
		}
		if c.hold == s.hold && c.step == shows && witness == nil {
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
