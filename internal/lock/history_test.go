package lock_test

import (
	"slices"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// chapter is what the history tells of one hold.
type chapter struct {
	begin lock.Event
	ends  []lock.Event
}

// chapters reads a resource's holds out of the history, and nothing else.
func (m *machine) chapters(t *rapid.T, name string) []chapter {
	var told []chapter
	for _, e := range m.history {
		if e.Resource != name {
			continue
		}
		if e.Kind == lock.EventAcquired {
			if !e.Since.Equal(e.At) || e.Renewals != 0 {
				t.Fatalf("a hold that is not new is acquired: %+v", e)
			}
			told = append(told, chapter{begin: e})
			continue
		}
		i := slices.IndexFunc(told, func(c chapter) bool { return c.begin.Token == e.Token })
		if i < 0 {
			t.Fatalf("the end of a hold that has not begun: %+v", e)
		}
		if b := told[i].begin; e.ProcessID != b.ProcessID || !e.Since.Equal(b.At) {
			t.Fatalf("a hold begins as %+v and ends as %+v", b, e)
		}
		told[i].ends = append(told[i].ends, e)
	}
	return told
}

// checkHistory reconstructs from the events alone who held what, and compares it with the states.
func (m *machine) checkHistory(t *rapid.T) {
	for _, name := range someNames {
		told := m.chapters(t, name)
		for i, c := range told {
			m.checkChapter(t, c)
			if i == 0 {
				continue
			}
			earlier := told[i-1]
			if c.begin.Token <= earlier.begin.Token { // I2, which also makes every hold's beginning the only one
				t.Fatalf("%+v was acquired after %+v", c.begin, earlier.begin)
			}
			// I1. While the clock only goes forward the moments show it too.
			if len(earlier.ends) == 0 || earlier.ends[0].ID > c.begin.ID || m.steady && earlier.ends[0].At.After(c.begin.At) {
				t.Fatalf("%+v began before the hold before it ended: %+v", c.begin, earlier)
			}
		}
		var want, got []lock.Event // who holds it, whether or not its time is over: nobody has noticed that yet
		if last := len(told) - 1; last >= 0 && len(told[last].ends) == 0 {
			begin := told[last].begin
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

// checkChapter: a hold ends once (I7). Only a resource that its minimum kept after the release may still be broken free, and
// the history must not keep quiet about who did that.
func (m *machine) checkChapter(t *rapid.T, c chapter) {
	var kinds []lock.EventKind
	for _, e := range c.ends {
		kinds = append(kinds, e.Kind)
		if m.steady && e.At.Before(c.begin.At) {
			t.Fatalf("%+v ended before it began: %+v", c.begin, e)
		}
	}
	if len(kinds) > 1 && !slices.Equal(kinds, []lock.EventKind{lock.EventReleased, lock.EventForceReleased}) {
		t.Fatalf("%+v ended more than once: %+v", c.begin, c.ends)
	}
}
