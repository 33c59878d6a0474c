package robust

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"resource-lock-manager/internal/wire"
)

// CheckInvariants judges a history, sorted by the times of the calls, guarantee by
// guarantee. It does not track the state of a resource and does not search for an order.
// Each rule compares what answers state about holds, and when they were given. A
// guarantee counts as kept if the history cannot decide it, because of a fault or a
// missing answer.
//
// It assumes that the clock of the service runs evenly. It cannot judge a history in
// which the database's clock was stepped.
func CheckInvariants(operations []Operation, faults []Fault) []Violation {
	byResource := map[string][]Operation{}
	for _, o := range operations {
		byResource[o.Resource] = append(byResource[o.Resource], o)
	}
	faults = append(slices.Clone(faults), gaps(operations)...)
	var violations []Violation
	for _, resource := range slices.Sorted(maps.Keys(byResource)) {
		r := newResourceHistory(resource, byResource[resource], faults)
		for _, rule := range []func(){
			r.oneHolderByServiceTime, r.oneHolderByRealTime, // G1
			r.nothingLost,                                                                                     // G2
			r.tokensGrow,                                                                                      // G3
			r.firstComeFirstServed,                                                                            // G4
			r.retriesGetTheSameHold, r.releasedHoldsStayReleased, r.noUpdateAfterTheEnd, r.endReasonsAreRight, // G5
			r.clientsKnowTheirHolds, r.supersededGetNothing, r.halfClosedAreAnswered, // G7, G9
		} {
			rule()
		}
		violations = append(violations, r.violations...)
	}
	return violations
}

const (
	// recovery is how long the effects of a fault may last after it: leases have to be
	// renewed, connections opened and places given up.
	recovery = 3 * time.Second
	// disconnectDelay is how long the server may take to notice a disconnect. A request
	// that is granted a hold until then may have been answered, although no client read
	// it.
	disconnectDelay = 250 * time.Millisecond
	// maxGap is how long a server may give no answer while its lease is definitely alive.
	maxGap = time.Second
)

// violated adds a violation.
func (r *resourceHistory) violated(guarantee, format string, args ...any) {
	r.violations = append(r.violations,
		Violation{Guarantee: guarantee, Resource: r.resource, What: fmt.Sprintf(format, args...)})
}

// oneHolderByServiceTime requires that no hold starts before the one with the next lower
// token had been released, had expired or was last renewed.
func (r *resourceHistory) oneHolderByServiceTime() {
	for i, next := range r.holds {
		if i == 0 {
			continue
		}
		h := r.holds[i-1]
		lived := h.LockedAt
		for _, o := range h.renewals {
			lived = later(lived, o.At)
		}
		for _, o := range h.releases {
			lived = later(lived, o.At)
		}
		certain := len(h.acquires) > 0 && !h.renewalUnknown && len(h.mayEnd) == 0
		switch end := h.end(); {
		case certain && end.IsZero():
			r.violated("G1", "%v was granted although no client has released %v", next.Hold, h.Hold)
		case next.LockedAt.Before(lived), certain && next.LockedAt.Before(end):
			r.violated("G1", "%v was granted before the end of %v, which lived until %s",
				next.Hold, h.Hold, clockTime(later(lived, end)))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// oneHolderByRealTime requires that no two holds existed at once, by the clock of the
// clients.
func (r *resourceHistory) oneHolderByRealTime() {
	holds := r.holdsByStart()
	var last *holdEvidence // the hold so far that definitely existed longest
	for _, h := range holds {
		existed := h.definitelyExisted
		if last != nil && existed.from < last.definitelyExisted.to && existed.from < existed.to {
			r.violated("G1", "two holds existed at once: %v (%v) and %v (%v)", last.Hold,
				last.definitelyExisted, h.Hold, existed)
		}
		if last == nil || existed.to > last.definitelyExisted.to {
			last = h
		}
	}
}

// holdsByStart returns the holds, sorted by when they definitely existed.
func (r *resourceHistory) holdsByStart() []*holdEvidence {
	return slices.SortedFunc(slices.Values(r.holds), func(g, h *holdEvidence) int {
		return cmp.Compare(g.definitelyExisted.from, h.definitelyExisted.from)
	})
}

// nothingLost requires that a call shows the hold that definitely existed meanwhile.
func (r *resourceHistory) nothingLost() {
	holds := r.holdsByStart()
	for _, o := range r.operations {
		i, _ := slices.BinarySearchFunc(holds, o.Called, func(h *holdEvidence, at time.Duration) int {
			return cmp.Compare(h.definitelyExisted.from, at)
		})
		if i == 0 {
			continue
		}
		h := holds[i-1]
		if o.Called < h.definitelyExisted.from || o.Returned > h.definitelyExisted.to {
			continue
		}
		unread := o.Code == wire.CodeSuperseded && o.Holder == (Hold{}) // the database could not be read
		reads := o.Kind == Status && o.Outcome == Done || o.Kind == Acquire && o.Outcome == Refused && !unread
		owned := o.Process == h.Process && (o.Token == 0 || o.Token == h.Token)
		denied := owned && (o.Kind == Renew || o.Kind == Release && o.Server != Balancer) && o.Outcome == Refused
		seemsFree := o.Kind == Status && o.Holder == (Hold{}) && h.maySeemFree(o)
		if denied || reads && o.Holder.Token != h.Token && !seemsFree {
			r.violated("G2", "%v (%v) is lost: %v", h.Hold, h.definitelyExisted, o)
		}
	}
}

// tokensGrow requires that tokens are within their bounds, belong to one hold each, and
// have the order of the grants by both clocks.
func (r *resourceHistory) tokensGrow() {
	for i, h := range r.holds {
		if h.Token <= 0 || h.Token >= 1<<53 {
			r.violated("G3", "the token of %v is out of bounds", h.Hold)
		}
		for _, o := range h.answers {
			if o.Holder.Process != h.Process || !o.Holder.LockedAt.Equal(h.LockedAt) {
				r.violated("G3", "two holds have one token: %v, and %v", h.Hold, o)
				break
			}
		}
		if i > 0 && h.LockedAt.Before(r.holds[i-1].LockedAt) {
			r.violated("G3", "%v has a higher token than %v", r.holds[i-1].Hold, h.Hold)
		}
	}
	returned := slices.Clone(r.operations)
	slices.SortStableFunc(returned, func(o, p Operation) int { return cmp.Compare(o.Returned, p.Returned) })
	var highest Operation // the highest token of the answers before the call
	for _, o := range r.operations {
		for len(returned) > 0 && returned[0].Returned < o.Called {
			if returned[0].Holder.Token > highest.Holder.Token {
				highest = returned[0]
			}
			returned = returned[1:]
		}
		switch lower := o.Holder.Token != 0 && o.Holder.Token < highest.Holder.Token; {
		case !lower:
		case o.Kind == Acquire && o.Outcome == Done:
			r.violated("G3", "%v was answered after %v", o, highest)
		default:
			r.violated("G5", "%v shows a hold that had ended before %v", o, highest)
		}
	}
}

// firstComeFirstServed compares the order of the grants with the times at which their
// requests were queued, and with what clients read of the queue. A process must not have
// two open requests at once.
func (r *resourceHistory) firstComeFirstServed() {
	var first *holdEvidence // of the undisturbed holds with higher tokens, the one that was queued first
	for _, h := range slices.Backward(r.holds) {
		if len(h.acquires) == 0 {
			continue
		}
		if first != nil && first.queuedAt().Before(h.queuedAt()) {
			r.violated("G4", "%v was overtaken by %v", first.acquires[0], h.acquires[0])
		}
		if r.waitedUndisturbed(h) && (first == nil || h.queuedAt().Before(first.queuedAt())) {
			first = h
		}
	}
	queueReads := map[string][]Operation{} // by process: the reads of the queue that show it
	for _, o := range r.operations {
		for _, process := range o.Queue {
			queueReads[process] = append(queueReads[process], o)
		}
	}
	var latest *holdEvidence // of the holds with lower tokens, the one that was requested last
	for _, h := range r.holds {
		if len(h.acquires) == 0 {
			continue
		}
		if latest != nil && r.waitedUndisturbed(h) {
			for _, read := range queueReads[h.Process] {
				if read.Called >= h.acquires[0].Called && read.Returned < r.requested(latest) {
					r.violated("G4", "%v was overtaken by %v, although it was in the queue before: %v",
						h.acquires[0], latest.acquires[0], read)
					break
				}
			}
		}
		if latest == nil || r.requested(h) > r.requested(latest) {
			latest = h
		}
	}
}

// retriesGetTheSameHold requires that while a hold exists, a retry of its request is
// answered with that hold.
func (r *resourceHistory) retriesGetTheSameHold() {
	for _, h := range r.holds {
		if len(h.acquires) == 0 || h.acquires[0].RequestID == "" {
			continue
		}
		for _, o := range r.acquires[h.Process] {
			within := o.Called >= h.definitelyExisted.from && o.Returned <= h.definitelyExisted.to
			other := o.Outcome == Done && o.Holder.Token != h.Token
			self := o.Outcome == Refused && o.Code == wire.CodeAlreadyLocked && o.Holder.Token == h.Token
			if o.RequestID == h.acquires[0].RequestID && (within && other || self) {
				r.violated("G5", "%v repeats %v, which has the hold", o, h.acquires[0])
			}
		}
	}
}

// releasedHoldsStayReleased requires that a released hold is neither shown nor released
// again.
func (r *resourceHistory) releasedHoldsStayReleased() {
	for _, h := range r.holds {
		for i, release := range h.releases {
			if i > 0 {
				r.violated("G5", "released twice: %v and %v", h.releases[0], release)
			}
			for _, o := range h.answers {
				if o.Called > release.Returned {
					r.violated("G5", "%v comes after %v", o, release)
					break
				}
			}
		}
	}
}

// noUpdateAfterTheEnd requires that no expired hold is renewed or released.
func (r *resourceHistory) noUpdateAfterTheEnd() {
	for _, h := range r.holds {
		if len(h.acquires) == 0 || h.renewalUnknown {
			continue
		}
		end := h.acquires[0].Holder.ExpiresAt
		for _, o := range slices.Concat(h.renewals, h.releases) {
			if !end.IsZero() && !o.At.Before(end) {
				r.violated("G5", "the hold had expired at %s: %v", clockTime(end), o)
			}
			if o.Kind == Renew {
				end = o.Holder.ExpiresAt
			}
		}
	}
}

// endReasonsAreRight requires that a call with the token of an ended hold states how that
// hold ended.
func (r *resourceHistory) endReasonsAreRight() {
	byToken := map[int64]*holdEvidence{}
	for _, h := range r.holds {
		byToken[h.Token] = h
	}
	for _, o := range r.operations {
		refused := o.Outcome == Refused && (o.Kind == Renew || o.Kind == Release)
		if !refused || o.Token == 0 || o.Code == wire.CodeNotHeld || o.Code == wire.CodeTokenMismatch {
			continue
		}
		h := byToken[o.Token]
		acquireUnknown := slices.ContainsFunc(r.acquires[o.Process],
			func(o Operation) bool { return o.Outcome == Unknown })
		switch {
		case o.Code == wire.CodeForceReleased:
			r.violated("G5", "no client force-releases a hold: %v", o)
		case acquireUnknown:
		case h == nil || h.Process != o.Process:
			r.violated("G5", "the process never had this hold: %v", o)
		case len(h.acquires) == 0:
		case o.Code == wire.CodeAlreadyReleased && len(h.mayEnd) == 0:
			r.violated("G5", "no client has released %v: %v", h.Hold, o)
		case o.Code == wire.CodeExpired && len(h.releases) > 0:
			r.violated("G5", "%v was released: %v", h.Hold, o)
		case o.Code == wire.CodeExpired && h.end().IsZero() && !h.renewalUnknown:
			r.violated("G5", "%v does not expire: %v", h.Hold, o)
		}
	}
}

// clientsKnowTheirHolds requires that a process does not hold the resource after all its
// requests were refused or answered with other tokens (G9), and that a request is not
// granted a hold after its client disconnected (G7). It does not judge a hold whose
// answer was lost, or whose server died before it could answer: the server cannot know of
// either.
func (r *resourceHistory) clientsKnowTheirHolds() {
	for _, h := range r.holds {
		if len(h.acquires) > 0 {
			continue
		}
		guarantee, excused, otherHold := "G9", false, false
		var lastReturn, grace time.Duration
		for _, o := range r.acquires[h.Process] {
			lastReturn = max(lastReturn, o.Returned)
			otherHold = otherHold || o.Outcome == Done
			if o.Outcome == Unknown {
				guarantee = "G7"
				// A request that does not wait and can be retried keeps its hold. The
				// server cannot know that an answer was lost.
				excused = excused || o.Wait == 0 && (!o.Disconnected || !o.Direct || o.RequestID != "")
			}
			if o.Wait > 0 || o.Disconnected { // the server has to undo a grant after the disconnect
				grace = recovery
				excused = excused || r.disturbed(o.Server, o.Called, o.Returned+recovery)
			}
		}
		switch {
		case excused, guarantee == "G7" && (otherHold || !r.grantedAfter(h, lastReturn+disconnectDelay)):
			continue
		case otherHold:
			lastReturn, grace = -1, 0
		}
		for _, o := range h.answers {
			if o.Called > lastReturn+grace {
				r.violated(guarantee, "no request of %q was answered with token %d, and none is open: %v",
					h.Process, h.Token, o)
				break
			}
		}
	}
}

// supersededGetNothing requires that of two requests of one process with one request_id,
// the one whose client reads nothing is not granted the resource after the other one was.
// Each such process makes no other request.
func (r *resourceHistory) supersededGetNothing() {
	for _, h := range r.holds {
		for _, o := range r.acquires[h.Process] {
			if !o.Frozen {
				continue
			}
			for _, repeat := range r.acquires[h.Process] {
				if repeat.Outcome == Done && repeat.Holder.Token < h.Token {
					r.violated("G7", "%v was granted although %v had superseded %v", h.Hold, repeat, o)
				}
			}
		}
	}
}

// halfClosedAreAnswered requires that a client that has finished sending, and reads, is
// answered, unless a fault disturbed the request.
func (r *resourceHistory) halfClosedAreAnswered() {
	for _, o := range r.operations {
		if o.HalfClosed && !o.Disconnected && o.Outcome == Unknown && o.Code == "" &&
			!r.disturbed(o.Server, o.Called, o.Returned) {
			r.violated("G9", "the answer is none of the documented ones: %v", o)
		}
	}
}
