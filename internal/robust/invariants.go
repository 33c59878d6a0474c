package robust

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"resource-lock-manager/internal/wire"
)

// CheckInvariants judges a history, in the order of the calls, guarantee by guarantee. It keeps no state of a resource and
// looks for no order: each rule compares what answers tell about holds, and when they were given. Wherever it cannot be told
// whether a guarantee was kept - because a fault was at work, or an answer is missing - it counts as kept.
//
// It takes the clock of the service for one that goes on evenly: a history in which the database's clock was stepped cannot
// be judged by it.
func CheckInvariants(operations []Operation, faults []Fault) []Violation {
	byResource := map[string][]Operation{}
	for _, o := range operations {
		byResource[o.Resource] = append(byResource[o.Resource], o)
	}
	faults = append(slices.Clone(faults), silences(operations)...)
	var violations []Violation
	for _, resource := range slices.Sorted(maps.Keys(byResource)) {
		c := newChronicle(resource, byResource[resource], faults)
		for _, rule := range []func(){
			c.oneHolderByServiceTime, c.oneHolderByRealTime, // G1
			c.nothingLost,                                                                   // G2
			c.tokensGrow,                                                                    // G3
			c.firstComeFirstServed,                                                          // G4
			c.repeatedRequestsGetTheSame, c.noneComesBack, c.renewalsOnlyLast, c.endsAsTold, // G5
			c.nobodyHoldsUnknowingly, c.supersededAcquireNothing, c.halfClosedAreAnswered, // G7, G9
		} {
			rule()
		}
		violations = append(violations, c.violations...)
	}
	return violations
}

const (
	// aftermath is how long what a fault has done may last: leases are renewed, connections made, places given up.
	aftermath = 3 * time.Second
	// crossing is how long a hang-up may be on its way to the server. What is granted until then may have been answered, and
	// nobody can tell that nobody read it.
	crossing = 250 * time.Millisecond
	// silence of a server for so long may mean that its lease has ended.
	silence = time.Second
	// forever is a time that does not come.
	forever = time.Duration(math.MaxInt64)
)

// silences are times in which a server gave no answer, where there are several: its waiters may be passed over.
func silences(operations []Operation) (faults []Fault) {
	answers := map[int][]time.Duration{}
	for _, o := range operations {
		if o.Outcome != Unknown {
			answers[o.Server] = append(answers[o.Server], o.Returned)
		}
	}
	if len(answers) == 1 && answers[Balancer] == nil { // who is connected to the server that decides is there
		return nil
	}
	for server, times := range answers {
		slices.Sort(times)
		for i := range times[1:] {
			if times[i+1]-times[i] > silence {
				faults = append(faults, Fault{Kind: "silence", Server: server, From: times[i], To: times[i+1]})
			}
		}
	}
	return faults
}

// chronicle is what is told of one resource.
type chronicle struct {
	resource   string
	operations []Operation
	faults     []Fault
	asked      map[string][]Operation // acquires by process
	claims     []*claim               // by token
	violations []Violation
}

// claim is all that is told of the hold with one token.
type claim struct {
	Hold                  // as it was told first
	told      []Operation // answers that show it
	acquires  []Operation // of them those that grant it
	renewals  []Operation // of them those that renew it, by their moments
	releases  []Operation // that were answered with 200
	mayEnd    []Operation // the former, and those whose outcome is not known
	vague     bool        // the outcome of a renewal is not known
	versions  []Operation // the acquire, and the renewals that gave it another end or may have
	surelyHad span
}

// span is a time of the run.
type span struct{ from, to time.Duration }

func newChronicle(resource string, operations []Operation, faults []Fault) *chronicle {
	c := &chronicle{resource: resource, operations: operations, faults: faults, asked: map[string][]Operation{}}
	byToken := map[int64]*claim{}
	byProcess := map[string][]*claim{}
	for _, o := range operations {
		if o.Kind == Acquire {
			c.asked[o.Process] = append(c.asked[o.Process], o)
		}
		if o.Holder == (Hold{}) {
			continue
		}
		h := byToken[o.Holder.Token]
		if h == nil {
			h = &claim{Hold: o.Holder}
			byToken[h.Token] = h
			byProcess[h.Process] = append(byProcess[h.Process], h)
			c.claims = append(c.claims, h)
		}
		h.told = append(h.told, o)
		switch {
		case o.Outcome != Done:
		case o.Kind == Acquire:
			h.acquires = append(h.acquires, o)
		case o.Kind == Renew:
			h.renewals = append(h.renewals, o)
		}
	}
	for _, o := range operations {
		its := byProcess[o.Process]
		onlyOne := len(its) == 1 && !slices.ContainsFunc(c.asked[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
		for _, h := range its {
			if o.Token == 0 || o.Token == h.Token {
				h.add(o, onlyOne)
			}
		}
	}
	slices.SortFunc(c.claims, func(g, h *claim) int { return cmp.Compare(g.Token, h.Token) })
	for _, h := range c.claims {
		slices.SortStableFunc(h.renewals, func(o, p Operation) int { return o.At.Compare(p.At) })
		first := Operation{Outcome: Done, Holder: h.Hold}
		if len(h.acquires) > 0 {
			first = h.acquires[0]
		}
		h.versions = slices.Insert(h.versions, 0, first)
		h.surelyHad = h.span()
	}
	return c
}

// add takes note of a release or a renewal by the holder of a token that it may be about. A balancer may send a release again
// whose answer it has not got. A release without a token is surely of a hold that is the only one that its process can have had.
func (h *claim) add(o Operation, onlyOne bool) {
	unknown := o.Outcome == Unknown || o.Outcome == Refused && o.Server == Balancer
	if o.Kind == Renew && (o.Outcome == Done || o.Outcome == Unknown) {
		h.versions = append(h.versions, o)
	}
	switch {
	case o.Kind == Renew && o.Outcome == Unknown:
		h.vague = true
	case o.Kind != Release:
	case o.Outcome == Done && (o.Token != 0 || onlyOne):
		h.releases = append(h.releases, o)
		h.mayEnd = append(h.mayEnd, o)
	case o.Outcome == Done || unknown:
		h.mayEnd = append(h.mayEnd, o)
	}
}

// end is when the hold ends by itself, as was told last; zero: never.
func (h *claim) end() time.Time {
	if n := len(h.renewals); n > 0 {
		return h.renewals[n-1].Holder.ExpiresAt
	}
	if len(h.acquires) > 0 {
		return h.acquires[0].Holder.ExpiresAt
	}
	return h.ExpiresAt
}

// span is when the hold was there without any doubt: since an answer told of it, until the call of the last request that
// shows it, and if its client knows of it, until it might have been released or its time was over.
func (h *claim) span() span {
	s := span{from: forever}
	end := h.end()
	lasts := h.endsAfter(end)
	for _, o := range h.told {
		s.from, s.to = min(s.from, o.Returned), max(s.to, o.Called)
	}
	if end.IsZero() {
		lasts = forever
	}
	if len(h.acquires) == 0 || h.vague { // it may be given back, or have got another end
		lasts = 0
	}
	for _, o := range h.mayEnd {
		lasts = min(lasts, o.Called)
	}
	s.to = max(s.to, lasts)
	return s
}

// endsAfter returns a time of the run before which an end of the hold has not come, as far as
// answers say when they were decided: that was after they were asked for.
func (h *claim) endsAfter(end time.Time) (at time.Duration) {
	for _, o := range h.told {
		if !o.At.IsZero() {
			at = max(at, o.Called+atLeast(end.Sub(o.At)))
		}
	}
	return at
}

// atLeast is how much of a duration of the service's clock must pass on this machine's clock.
// The two need not be quite even.
func atLeast(d time.Duration) time.Duration { return d - d/1000 - time.Millisecond }

// maySeemFree reports whether a status can say that nobody holds the resource although the
// hold goes on. A renewal is decided before the old end, and committed after it. A status in
// between reads the old end, which is all that is committed, and that end has passed.
func (h *claim) maySeemFree(status Operation) bool {
	var committed []Operation // versions that were surely committed before the status was asked for
	for _, o := range h.told {
		if v := h.version(o.Holder.ExpiresAt); v >= 0 && o.Returned < status.Called {
			committed = append(committed, h.versions[v])
		}
	}
	for i, old := range h.versions {
		over := h.endsAfter(old.Holder.ExpiresAt)
		switch {
		case old.Outcome == Unknown:
			over = old.Called + atLeast(old.TTL)
		case old.Holder.ExpiresAt.IsZero():
			over = forever
		}
		replaced := slices.ContainsFunc(committed, func(o Operation) bool { return follows(o, old) })
		if replaced || over > status.Returned {
			continue
		}
		for j, o := range h.versions {
			if i != j && o.Kind == Renew && o.Called <= status.Returned && !follows(old, o) {
				return true
			}
		}
	}
	return false
}

// follows reports whether a version of a hold surely came after another one.
func follows(o, old Operation) bool {
	if o.Kind == Renew && old.Kind == Renew {
		return o.Outcome == Done && old.Outcome == Done && o.At.After(old.At)
	}
	return o.Kind == Renew // after the acquire
}

// version returns which version of the hold has an end: the first one that was answered with
// it, otherwise the first one that was not answered. It returns -1 if there is none.
func (h *claim) version(end time.Time) int {
	i := slices.IndexFunc(h.versions, func(o Operation) bool { return o.Outcome == Done && o.Holder.ExpiresAt.Equal(end) })
	if i < 0 {
		i = slices.IndexFunc(h.versions, func(o Operation) bool { return o.Outcome == Unknown })
	}
	return i
}

func (c *chronicle) broken(guarantee, format string, args ...any) {
	c.violations = append(c.violations, Violation{Guarantee: guarantee, Resource: c.resource, What: fmt.Sprintf(format, args...)})
}

// troubled tells whether a fault may have had to do with a request between two times.
func (c *chronicle) troubled(server int, from, to time.Duration) bool {
	return slices.ContainsFunc(c.faults, func(f Fault) bool {
		concerned := f.Server == Everyone || server == Balancer || f.Server == server
		return concerned && f.From <= to && f.To+aftermath >= from
	})
}

// oneHolderByServiceTime: no hold begins before the one with the next lower token was released or over, or was last renewed.
func (c *chronicle) oneHolderByServiceTime() {
	for i, next := range c.claims {
		if i == 0 {
			continue
		}
		h := c.claims[i-1]
		lived := h.LockedAt
		for _, o := range h.renewals {
			lived = later(lived, o.At)
		}
		for _, o := range h.releases {
			lived = later(lived, o.At)
		}
		known := len(h.acquires) > 0 && !h.vague && len(h.mayEnd) == 0
		switch end := h.end(); {
		case known && end.IsZero():
			c.broken("G1", "%v was granted although nobody has released %v", next.Hold, h.Hold)
		case next.LockedAt.Before(lived), known && next.LockedAt.Before(end):
			c.broken("G1", "%v was granted before the end of %v, which was had until %s", next.Hold, h.Hold, clockTime(later(lived, end)))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// oneHolderByRealTime does not believe the service's clock.
func (c *chronicle) oneHolderByRealTime() {
	claims := slices.Clone(c.claims)
	slices.SortFunc(claims, func(g, h *claim) int { return cmp.Compare(g.surelyHad.from, h.surelyHad.from) })
	var last *claim // of those so far the one that was had longest
	for _, h := range claims {
		if last != nil && h.surelyHad.from < last.surelyHad.to && h.surelyHad.from < h.surelyHad.to {
			c.broken("G1", "two had it at once: %v (%v) and %v (%v)", last.Hold, last.surelyHad, h.Hold, h.surelyHad)
		}
		if last == nil || h.surelyHad.to > last.surelyHad.to {
			last = h
		}
	}
}

func (s span) String() string {
	if s.to == forever {
		return fmt.Sprintf("from %.6f s on", s.from.Seconds())
	}
	return fmt.Sprintf("from %.6f to %.6f s", s.from.Seconds(), s.to.Seconds())
}

// nothingLost: whoever reads a resource while it is held is shown that hold.
func (c *chronicle) nothingLost() {
	claims := slices.Clone(c.claims)
	slices.SortFunc(claims, func(g, h *claim) int { return cmp.Compare(g.surelyHad.from, h.surelyHad.from) })
	for _, o := range c.operations {
		i, _ := slices.BinarySearchFunc(claims, o.Called, func(h *claim, at time.Duration) int { return cmp.Compare(h.surelyHad.from, at) })
		if i == 0 {
			continue
		}
		h := claims[i-1]
		if o.Called < h.surelyHad.from || o.Returned > h.surelyHad.to {
			continue
		}
		unread := o.Code == wire.CodeSuperseded && o.Holder == (Hold{}) // the database could not be read
		looks := o.Kind == Status && o.Outcome == Done || o.Kind == Acquire && o.Outcome == Refused && !unread
		holds := o.Process == h.Process && (o.Token == 0 || o.Token == h.Token)
		denied := holds && (o.Kind == Renew || o.Kind == Release && o.Server != Balancer) && o.Outcome == Refused
		seems := o.Kind == Status && o.Holder == (Hold{}) && h.maySeemFree(o)
		if denied || looks && o.Holder.Token != h.Token && !seems {
			c.broken("G2", "%v (%v) is lost: %v", h.Hold, h.surelyHad, o)
		}
	}
}

// tokensGrow: tokens are in bounds, of one hold each, and in the order of the grants by both clocks.
func (c *chronicle) tokensGrow() {
	for i, h := range c.claims {
		if h.Token <= 0 || h.Token >= 1<<53 {
			c.broken("G3", "the token of %v is out of bounds", h.Hold)
		}
		for _, o := range h.told {
			if o.Holder.Process != h.Process || !o.Holder.LockedAt.Equal(h.LockedAt) {
				c.broken("G3", "two holds have one token: %v, and %v", h.Hold, o)
				break
			}
		}
		if i > 0 && h.LockedAt.Before(c.claims[i-1].LockedAt) {
			c.broken("G3", "%v has a higher token than %v", c.claims[i-1].Hold, h.Hold)
		}
	}
	// In the order of the calls: of the answers before a call, the highest token.
	returned := slices.Clone(c.operations)
	slices.SortStableFunc(returned, func(o, p Operation) int { return cmp.Compare(o.Returned, p.Returned) })
	var highest Operation
	for _, o := range c.operations {
		for len(returned) > 0 && returned[0].Returned < o.Called {
			if returned[0].Holder.Token > highest.Holder.Token {
				highest = returned[0]
			}
			returned = returned[1:]
		}
		switch lower := o.Holder.Token != 0 && o.Holder.Token < highest.Holder.Token; {
		case !lower:
		case o.Kind == Acquire && o.Outcome == Done:
			c.broken("G3", "%v was answered after %v", o, highest)
		default:
			c.broken("G5", "%v shows a hold that was over after %v", o, highest)
		}
	}
}

// firstComeFirstServed: by the moments at which those who were granted the resource began to wait, and by what those who
// looked at the queue have seen. A process must not have two requests under way at once.
func (c *chronicle) firstComeFirstServed() {
	var first *claim // of those with higher tokens who waited without trouble: who began first
	var came *claim  // of those with lower tokens: who was called last
	for _, h := range slices.Backward(c.claims) {
		if len(h.acquires) == 0 {
			continue
		}
		if first != nil && first.queuedAt().Before(h.queuedAt()) {
			c.broken("G4", "%v was overtaken by %v", first.acquires[0], h.acquires[0])
		}
		if c.waitedUndisturbed(h) && (first == nil || h.queuedAt().Before(first.queuedAt())) {
			first = h
		}
	}
	looks := map[string][]Operation{}
	for _, o := range c.operations {
		for _, process := range o.Queue {
			looks[process] = append(looks[process], o)
		}
	}
	for _, h := range c.claims {
		if len(h.acquires) == 0 {
			continue
		}
		if came != nil && c.waitedUndisturbed(h) {
			for _, look := range looks[h.Process] {
				if look.Called >= h.acquires[0].Called && look.Returned < c.requested(came) {
					c.broken("G4", "%v was overtaken by %v, though it was seen in the queue before: %v", h.acquires[0], came.acquires[0], look)
					break
				}
			}
		}
		if came == nil || c.requested(h) > c.requested(came) {
			came = h
		}
	}
}

// queuedAt is when a hold that was granted began to be waited for.
func (h *claim) queuedAt() time.Time {
	return h.LockedAt.Add(-h.acquires[0].Waited)
}

// waitedUndisturbed tells whether the request that got a hold was connected from its place in the queue to its grant. A place
// is kept for a request that was cut and comes again, but others pass it meanwhile.
func (c *chronicle) waitedUndisturbed(h *claim) bool {
	o := h.acquires[0]
	return c.requested(h) == o.Called && !c.troubled(o.Server, o.Called, o.Returned)
}

// requested is when the request that got a hold was called first.
func (c *chronicle) requested(h *claim) time.Duration {
	granted := h.acquires[0]
	for _, o := range c.asked[h.Process] {
		if o.RequestID != "" && o.RequestID == granted.RequestID {
			return o.Called
		}
	}
	return granted.Called
}

// repeatedRequestsGetTheSame: while a hold is there, its request is answered with it.
func (c *chronicle) repeatedRequestsGetTheSame() {
	for _, h := range c.claims {
		if len(h.acquires) == 0 || h.acquires[0].RequestID == "" {
			continue
		}
		for _, o := range c.asked[h.Process] {
			within := o.Called >= h.surelyHad.from && o.Returned <= h.surelyHad.to
			other := o.Outcome == Done && o.Holder.Token != h.Token
			self := o.Outcome == Refused && o.Code == wire.CodeAlreadyLocked && o.Holder.Token == h.Token
			if o.RequestID == h.acquires[0].RequestID && (within && other || self) {
				c.broken("G5", "%v repeats %v, which has the hold", o, h.acquires[0])
			}
		}
	}
}

// noneComesBack: a hold that was released is neither shown nor released again.
func (c *chronicle) noneComesBack() {
	for _, h := range c.claims {
		for i, release := range h.releases {
			if i > 0 {
				c.broken("G5", "released twice: %v and %v", h.releases[0], release)
			}
			for _, o := range h.told {
				if o.Called > release.Returned {
					c.broken("G5", "%v comes after %v", o, release)
					break
				}
			}
		}
	}
}

// renewalsOnlyLast: nothing is renewed or released that is over.
func (c *chronicle) renewalsOnlyLast() {
	for _, h := range c.claims {
		if len(h.acquires) == 0 || h.vague {
			continue
		}
		end := h.acquires[0].Holder.ExpiresAt
		for _, o := range slices.Concat(h.renewals, h.releases) {
			if !end.IsZero() && !o.At.Before(end) {
				c.broken("G5", "the hold was over at %s: %v", clockTime(end), o)
			}
			if o.Kind == Renew {
				end = o.Holder.ExpiresAt
			}
		}
	}
}

// endsAsTold: who asks for a hold by its token, and has it no more, is told how it ended.
func (c *chronicle) endsAsTold() {
	byToken := map[int64]*claim{}
	for _, h := range c.claims {
		byToken[h.Token] = h
	}
	for _, o := range c.operations {
		refused := o.Outcome == Refused && (o.Kind == Renew || o.Kind == Release)
		if !refused || o.Token == 0 || o.Code == wire.CodeNotHeld || o.Code == wire.CodeTokenMismatch {
			continue
		}
		h := byToken[o.Token]
		vague := slices.ContainsFunc(c.asked[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
		switch {
		case o.Code == wire.CodeForceReleased:
			c.broken("G5", "nobody breaks a hold: %v", o)
		case vague:
		case h == nil || h.Process != o.Process:
			c.broken("G5", "the process never had this hold: %v", o)
		case len(h.acquires) == 0:
		case o.Code == wire.CodeAlreadyReleased && len(h.mayEnd) == 0:
			c.broken("G5", "nobody has released %v: %v", h.Hold, o)
		case o.Code == wire.CodeExpired && len(h.releases) > 0:
			c.broken("G5", "%v was released: %v", h.Hold, o)
		case o.Code == wire.CodeExpired && h.end().IsZero() && !h.vague:
			c.broken("G5", "%v does not expire: %v", h.Hold, o)
		}
	}
}

// nobodyHoldsUnknowingly: who was told that it has not got the resource, or got it with another token, does not hold it (G9),
// and who has gone is not granted it (G7). That an answer was lost, or a server has died before it could answer, is not promised to be noticed.
func (c *chronicle) nobodyHoldsUnknowingly() {
	for _, h := range c.claims {
		if len(h.acquires) > 0 {
			continue
		}
		guarantee, excused, elsewhere := "G9", false, false
		var gone, grace time.Duration
		for _, o := range c.asked[h.Process] {
			gone = max(gone, o.Returned)
			elsewhere = elsewhere || o.Outcome == Done
			if o.Outcome == Unknown {
				guarantee = "G7"
				// One that does not wait and can be repeated keeps its hold, and of an answer that was lost nobody can know.
				excused = excused || o.Wait == 0 && (!o.HungUp || !o.Direct || o.RequestID != "")
			}
			if o.Wait > 0 || o.HungUp { // what it gets when nobody is there any more has to be given back
				grace = aftermath
				excused = excused || c.troubled(o.Server, o.Called, o.Returned+aftermath)
			}
		}
		switch {
		case excused, guarantee == "G7" && (elsewhere || !c.grantedAfter(h, gone+crossing)):
			continue
		case elsewhere:
			gone, grace = -1, 0
		}
		for _, o := range h.told {
			if o.Called > gone+grace {
				c.broken(guarantee, "no request of %q was answered with token %d, and none is under way: %v", h.Process, h.Token, o)
				break
			}
		}
	}
}

// supersededAcquireNothing: of two requests of one process with one request_id, the one whose client reads nothing is not
// granted the resource after the other one was. (Each process makes no other request.)
func (c *chronicle) supersededAcquireNothing() {
	for _, h := range c.claims {
		for _, o := range c.asked[h.Process] {
			if !o.Frozen {
				continue
			}
			for _, repeat := range c.asked[h.Process] {
				if repeat.Outcome == Done && repeat.Holder.Token < h.Token {
					c.broken("G7", "%v was granted although %v had superseded %v", h.Hold, repeat, o)
				}
			}
		}
	}
}

// halfClosedAreAnswered: whoever has finished sending and reads is answered, unless something was broken meanwhile.
func (c *chronicle) halfClosedAreAnswered() {
	for _, o := range c.operations {
		if o.HalfClosed && !o.HungUp && o.Outcome == Unknown && o.Code == "" && !c.troubled(o.Server, o.Called, o.Returned) {
			c.broken("G9", "there is no answer that any document names: %v", o)
		}
	}
}

// grantedAfter reports whether a hold was surely granted after a time of the run: something was decided before it that was
// called later, or nothing could be committed from the first request for it until that time.
func (c *chronicle) grantedAfter(h *claim, at time.Duration) bool {
	first := forever
	for _, o := range c.asked[h.Process] {
		first = min(first, o.Called)
	}
	if slices.ContainsFunc(c.faults, func(f Fault) bool { return f.Kind == Stalled && f.From <= first && at <= f.To }) {
		return true
	}
	return slices.ContainsFunc(c.operations, func(o Operation) bool {
		return o.Called > at && !o.At.IsZero() && o.At.Before(h.LockedAt)
	})
}
