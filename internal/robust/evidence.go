package robust

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// resourceHistory is what the history states about one resource.
type resourceHistory struct {
	resource   string
	operations []Operation
	faults     []Fault
	acquires   map[string][]Operation // by process
	holds      []*holdEvidence        // by token
	violations []Violation
}

// holdEvidence is everything that the history states about the hold with one token.
type holdEvidence struct {
	Hold                          // as the first answer shows it
	answers           []Operation // that show it
	acquires          []Operation // those of them that grant it
	renewals          []Operation // those of them that renew it, by the times of their decisions
	releases          []Operation // that were answered with 200
	mayEnd            []Operation // the releases, and those with an unknown outcome
	renewalUnknown    bool        // the outcome of a renewal is unknown
	versions          []Operation // the acquire, and the renewals that changed its end or may have
	definitelyExisted span
}

// span is a period of the run.
type span struct{ from, to time.Duration }

func (s span) String() string {
	if s.to == forever {
		return fmt.Sprintf("from %.6f s on", s.from.Seconds())
	}
	return fmt.Sprintf("from %.6f to %.6f s", s.from.Seconds(), s.to.Seconds())
}

func newResourceHistory(resource string, operations []Operation, faults []Fault) *resourceHistory {
	r := &resourceHistory{
		resource: resource, operations: operations, faults: faults,
		acquires: map[string][]Operation{},
	}
	byToken := map[int64]*holdEvidence{}
	byProcess := map[string][]*holdEvidence{}
	for _, o := range operations {
		if o.Kind == Acquire {
			r.acquires[o.Process] = append(r.acquires[o.Process], o)
		}
		if o.Holder == (Hold{}) {
			continue
		}
		h := byToken[o.Holder.Token]
		if h == nil {
			h = &holdEvidence{Hold: o.Holder}
			byToken[h.Token] = h
			byProcess[h.Process] = append(byProcess[h.Process], h)
			r.holds = append(r.holds, h)
		}
		h.answers = append(h.answers, o)
		switch {
		case o.Outcome != Done:
		case o.Kind == Acquire:
			h.acquires = append(h.acquires, o)
		case o.Kind == Renew:
			h.renewals = append(h.renewals, o)
		}
	}
	for _, o := range operations {
		holds := byProcess[o.Process]
		onlyOne := len(holds) == 1 &&
			!slices.ContainsFunc(r.acquires[o.Process], func(o Operation) bool { return o.Outcome == Unknown })
		for _, h := range holds {
			if o.Token == 0 || o.Token == h.Token {
				h.add(o, onlyOne)
			}
		}
	}
	slices.SortFunc(r.holds, func(g, h *holdEvidence) int { return cmp.Compare(g.Token, h.Token) })
	for _, h := range r.holds {
		slices.SortStableFunc(h.renewals, func(o, p Operation) int { return o.At.Compare(p.At) })
		first := Operation{Outcome: Done, Holder: h.Hold}
		if len(h.acquires) > 0 {
			first = h.acquires[0]
		}
		h.versions = slices.Insert(h.versions, 0, first)
		h.definitelyExisted = h.span()
	}
	return r
}

// add notes a release or renewal that may be about the hold. A release without a token is
// definitely about the hold if it is the only one that its process can have had. A
// balancer may send a release again if it did not get the answer.
func (h *holdEvidence) add(o Operation, onlyOne bool) {
	unknown := o.Outcome == Unknown || o.Outcome == Refused && o.Server == Balancer
	if o.Kind == Renew && (o.Outcome == Done || o.Outcome == Unknown) {
		h.versions = append(h.versions, o)
	}
	switch {
	case o.Kind == Renew && o.Outcome == Unknown:
		h.renewalUnknown = true
	case o.Kind != Release:
	case o.Outcome == Done && (o.Token != 0 || onlyOne):
		h.releases = append(h.releases, o)
		h.mayEnd = append(h.mayEnd, o)
	case o.Outcome == Done || unknown:
		h.mayEnd = append(h.mayEnd, o)
	}
}

// end returns when the hold expires according to the last answer; zero: never.
func (h *holdEvidence) end() time.Time {
	if n := len(h.renewals); n > 0 {
		return h.renewals[n-1].Holder.ExpiresAt
	}
	if len(h.acquires) > 0 {
		return h.acquires[0].Holder.ExpiresAt
	}
	return h.ExpiresAt
}

// span returns when the hold definitely existed: from the first answer that shows it to
// the call of the last request that shows it. If its client knows of it, the span
// continues until the hold might have been released or might have expired.
func (h *holdEvidence) span() span {
	s := span{from: forever}
	end := h.end()
	lasts := h.endsAfter(end)
	for _, o := range h.answers {
		s.from, s.to = min(s.from, o.Returned), max(s.to, o.Called)
	}
	if end.IsZero() {
		lasts = forever
	}
	if len(h.acquires) == 0 || h.renewalUnknown { // the grant may be undone, or the end have changed
		lasts = 0
	}
	for _, o := range h.mayEnd {
		lasts = min(lasts, o.Called)
	}
	s.to = max(s.to, lasts)
	return s
}

// endsAfter returns a time of the run at which an end of the hold has not come. It
// follows from the times at which answers were decided, because a call is decided after
// it was called.
func (h *holdEvidence) endsAfter(end time.Time) (at time.Duration) {
	for _, o := range h.answers {
		if !o.At.IsZero() {
			at = max(at, o.Called+atLeast(end.Sub(o.At)))
		}
	}
	return at
}

// maySeemFree reports whether a status can state that no process holds the resource
// although the hold continues. A renewal is decided before the old end, and committed
// after it. A status in between reads the old end, which is all that is committed, and
// that end has passed.
func (h *holdEvidence) maySeemFree(status Operation) bool {
	var committed []Operation // versions that were definitely committed before the status was called
	for _, o := range h.answers {
		if v := h.version(o.Holder.ExpiresAt); v >= 0 && o.Returned < status.Called {
			committed = append(committed, h.versions[v])
		}
	}
	for i, old := range h.versions {
		ended := h.endsAfter(old.Holder.ExpiresAt)
		switch {
		case old.Outcome == Unknown:
			ended = old.Called + atLeast(old.TTL)
		case old.Holder.ExpiresAt.IsZero():
			ended = forever
		}
		replaced := slices.ContainsFunc(committed, func(o Operation) bool { return follows(o, old) })
		if replaced || ended > status.Returned {
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

// follows reports whether a version of a hold definitely came after another one.
func follows(o, old Operation) bool {
	if o.Kind == Renew && old.Kind == Renew {
		return o.Outcome == Done && old.Outcome == Done && o.At.After(old.At)
	}
	return o.Kind == Renew // after the acquire
}

// version returns the index of the version that has an end: the first one that was
// answered with that end, otherwise the first one that was not answered. It returns -1 if
// there is none.
func (h *holdEvidence) version(end time.Time) int {
	i := slices.IndexFunc(h.versions,
		func(o Operation) bool { return o.Outcome == Done && o.Holder.ExpiresAt.Equal(end) })
	if i < 0 {
		i = slices.IndexFunc(h.versions, func(o Operation) bool { return o.Outcome == Unknown })
	}
	return i
}

// queuedAt returns when the request that was granted the hold was queued.
func (h *holdEvidence) queuedAt() time.Time {
	return h.LockedAt.Add(-h.acquires[0].Waited)
}

// requested returns when the request that was granted the hold was called first.
func (r *resourceHistory) requested(h *holdEvidence) time.Duration {
	granted := h.acquires[0]
	for _, o := range r.acquires[h.Process] {
		if o.RequestID != "" && o.RequestID == granted.RequestID {
			return o.Called
		}
	}
	return granted.Called
}

// waitedUndisturbed reports whether the request that was granted the hold was connected
// from its place in the queue to its grant. A place is kept for a request that was cut
// off and retries, but other waiters pass it meanwhile.
func (r *resourceHistory) waitedUndisturbed(h *holdEvidence) bool {
	o := h.acquires[0]
	return r.requested(h) == o.Called && !r.disturbed(o.Server, o.Called, o.Returned)
}

// disturbed reports whether a fault may have affected a request in a period of the run.
func (r *resourceHistory) disturbed(server int, from, to time.Duration) bool {
	return slices.ContainsFunc(r.faults, func(f Fault) bool {
		affected := f.Server == AllServers || server == Balancer || f.Server == server
		return affected && f.From <= to && f.To+recovery >= from
	})
}

// grantedAfter reports whether a hold was definitely granted after a time of the run.
// Either a call that was called after that time was decided before the grant, or nothing
// could be committed from the first request for the hold until that time.
func (r *resourceHistory) grantedAfter(h *holdEvidence, at time.Duration) bool {
	first := forever
	for _, o := range r.acquires[h.Process] {
		first = min(first, o.Called)
	}
	if slices.ContainsFunc(r.faults, func(f Fault) bool { return f.Kind == Stalled && f.From <= first && at <= f.To }) {
		return true
	}
	return slices.ContainsFunc(r.operations, func(o Operation) bool {
		return o.Called > at && !o.At.IsZero() && o.At.Before(h.LockedAt)
	})
}

// gaps returns the periods in which one of several servers gave no answer. Its waiters
// may have been passed meanwhile.
func gaps(operations []Operation) (faults []Fault) {
	answers := map[int][]time.Duration{}
	for _, o := range operations {
		if o.Outcome != Unknown {
			answers[o.Server] = append(answers[o.Server], o.Returned)
		}
	}
	if len(answers) == 1 && answers[Balancer] == nil { // the only server does not pass its own waiters
		return nil
	}
	for server, times := range answers {
		slices.Sort(times)
		for i := range times[1:] {
			if times[i+1]-times[i] > maxGap {
				faults = append(faults, Fault{Kind: "no answers", Server: server, From: times[i], To: times[i+1]})
			}
		}
	}
	return faults
}
