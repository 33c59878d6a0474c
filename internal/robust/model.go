package robust

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// CheckModel uses porcupine to search for an order of the calls on each resource in which
// the lock rules explain every answer. The operations must be sorted by the time of their
// calls. The timeout is for all resources together. A resource that cannot be judged in
// time is reported as a violation of "nothing".
//
// The history is prepared first, so that the search hardly ever has to choose:
//
//   - A hold that any answer shows was granted to a request of its process at the time
//     that the answer states, whether or not that request was answered. If no request was
//     answered with the hold, it may end at any time: the server undoes a grant whose
//     client disconnected.
//   - A request with an unknown outcome whose hold no answer shows is left out. If it was
//     granted a hold, no client learnt of that hold. All other answers are as valid
//     without it. The one exception is a release by the same process, which may have
//     ended it.
//   - A release with an unknown outcome permits the hold to end from then on. A renewal
//     with an unknown outcome permits it to end earlier or later than stated. Which of
//     them happened is decided when the next answer needs one or the other, so that the
//     search does not have to try both.
//   - Grants, renewals and releases state when they were decided, and the clock of the
//     service does not go back. So they happened in the order of these times.
//   - Answers that only show a hold change nothing. The one that returned first and the
//     one that was called last stand for all that show the same hold. thinOut does more
//     of this.
//
// The model knows nothing of minimum holds and force-releases, which the workloads do not
// use, of the queue, and of how the service's clock relates to the clients' clock.
// [CheckInvariants] judges these.
func CheckModel(operations []Operation, timeout time.Duration) []Violation {
	deadline := time.Now().Add(timeout)
	byResource := map[string][]Operation{}
	for _, o := range operations {
		byResource[o.Resource] = append(byResource[o.Resource], o)
	}
	var violations []Violation
	for _, resource := range slices.Sorted(maps.Keys(byResource)) {
		m := newModel(byResource[resource])
		checked, history := m.porcupineModel(), m.porcupineHistory()
		left := max(time.Until(deadline), time.Nanosecond) // 0 would be no limit
		switch porcupine.CheckOperationsTimeout(checked, history, left) {
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(checked, history, left)
			violations = append(violations, m.explain(resource, longest(info)))
		case porcupine.Unknown:
			what := fmt.Sprintf("its %d calls could not be judged within %v", len(history), timeout)
			violations = append(violations, Violation{Guarantee: "nothing", Resource: resource, What: what})
		case porcupine.Ok:
		}
	}
	return violations
}

func (m *model) porcupineModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(before, input, _ any) (bool, any) {
			after, no := m.next(before.(state), *input.(*call))
			return no == reason{}, after
		},
		Hash: func(of any) uint64 {
			s := of.(state)
			return uint64(s.token)<<16 ^ uint64(s.frees)<<8 ^ uint64(s.shown)
		},
	}
}

func (m *model) porcupineHistory() []porcupine.Operation {
	slices.SortStableFunc(m.calls, func(c, d call) int { return cmp.Compare(c.from, d.from) })
	history := make([]porcupine.Operation, len(m.calls))
	for i := range m.calls {
		c := &m.calls[i]
		history[i] = porcupine.Operation{ClientId: c.op.Client, Input: c, Call: int64(c.from), Return: int64(c.to)}
	}
	return history
}

// longest returns the longest order that porcupine found.
func longest(info porcupine.LinearizationInfo) (placed []porcupine.Operation) {
	for _, resource := range info.PartialLinearizationsOperations() {
		for _, order := range resource {
			if len(order) > len(placed) {
				placed = order
			}
		}
	}
	return placed
}

// explain names the call that must come next and cannot. It adds another call that shows
// the hold at that point, if there is one.
func (m *model) explain(resource string, placed []porcupine.Operation) Violation {
	var s state
	done := map[*call]bool{}
	for _, o := range placed {
		c := o.Input.(*call)
		s, _ = m.next(s, *c)
		done[c] = true
	}
	var stuck, witness *call
	for i := range m.calls {
		c := &m.calls[i]
		if done[c] {
			continue
		}
		if stuck == nil || c.to < stuck.to {
			stuck = c
		}
		if witness == nil && c.hold == s.hold && c.kind == shows {
			witness = c
		}
	}
	_, no := m.next(s, *stuck)
	v := Violation{Guarantee: cmp.Or(no.guarantee, "G1"), Resource: resource}
	why := cmp.Or(no.why, "it was called before a call that it must come after")
	v.What = fmt.Sprintf("no order explains %v: %s", stuck.op, why)
	if s.hold != (holdID{}) {
		v.What += fmt.Sprintf("; before it, %q held the resource with token %d", s.hold.process, s.hold.token)
	}
	if witness != nil && witness != stuck {
		v.What += fmt.Sprintf("; still to come is %v", witness.op)
	}
	return v
}
