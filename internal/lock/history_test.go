package lock_test

import (
	"slices"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// holdEvents are the events of one hold.
type holdEvents struct {
	begin lock.Event
	ends  []lock.Event
}

// holdsOf reads the holds of a resource from the history alone.
func (m *machine) holdsOf(t *rapid.T, name string) []holdEvents {
	var holds []holdEvents
	for _, e := range m.history {
		if e.Resource != name {
			continue
		}
		if e.Kind == lock.EventAcquired {
			if !e.Since.Equal(e.At) || e.Renewals != 0 {
				t.Fatalf("the event of the beginning of a hold is not that of a new hold: %+v", e)
			}
			holds = append(holds, holdEvents{begin: e})
			continue
		}
		i := slices.IndexFunc(holds, func(h holdEvents) bool { return h.begin.Token == e.Token })
		if i < 0 {
			t.Fatalf("the end of a hold that has no beginning: %+v", e)
		}
		if b := holds[i].begin; e.ProcessID != b.ProcessID || !e.Since.Equal(b.At) {
			t.Fatalf("a hold begins with %+v and ends with %+v", b, e)
		}
		holds[i].ends = append(holds[i].ends, e)
	}
	return holds
}

// checkHistory reads from the events alone which process held what, and compares that
// with the states.
func (m *machine) checkHistory(t *rapid.T) {
	for _, name := range someNames {
		holds := m.holdsOf(t, name)
		for i, h := range holds {
			m.checkHold(t, h)
			if i == 0 {
				continue
			}
			earlier := holds[i-1]
			if h.begin.Token <= earlier.begin.Token { // I2; it also follows that no hold begins twice
				t.Fatalf("%+v was acquired after %+v", h.begin, earlier.begin)
			}
			// I1. If the clock is never set back, the times show it too.
			if len(earlier.ends) == 0 || earlier.ends[0].ID > h.begin.ID ||
				m.steady && earlier.ends[0].At.After(h.begin.At) {
				t.Fatalf("%+v began before the previous hold ended: %+v", h.begin, earlier)
			}
		}
		var want, got []lock.Event // the current hold, which may have expired without a record of that
		if last := len(holds) - 1; last >= 0 && len(holds[last].ends) == 0 {
			begin := holds[last].begin
			begin.ID = 0
			want = append(want, begin)
		}
		for _, h := range m.states[name].Holds {
			if h.ReleasedAt.IsZero() {
				got = append(got, lock.Event{
					Kind: lock.EventAcquired, At: h.LockedAt, Resource: name, ProcessID: h.ProcessID, Token: h.Token,
					Since: h.LockedAt, Reason: h.Reason,
				})
			}
		}
		if diff := differ(want, got); diff != "" {
			t.Fatalf("holds of %q (-history +states):\n%s", name, diff)
		}
	}
}

// checkHold checks that a hold ends at most once (I7). Only a hold that was released and
// kept by its minimum can be force-released in addition, and the history has both events.
func (m *machine) checkHold(t *rapid.T, h holdEvents) {
	var kinds []lock.EventKind
	for _, e := range h.ends {
		kinds = append(kinds, e.Kind)
		if m.steady && e.At.Before(h.begin.At) {
			t.Fatalf("%+v ended before it began: %+v", h.begin, e)
		}
	}
	if len(kinds) > 1 && !slices.Equal(kinds, []lock.EventKind{lock.EventReleased, lock.EventForceReleased}) {
		t.Fatalf("%+v ended more than once: %+v", h.begin, h.ends)
	}
}
