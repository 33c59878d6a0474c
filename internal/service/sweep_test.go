package service_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestSweepExpired(t *testing.T) {
	m := newMemory(
		named("a", heldBy("p", t0)), named("live", heldBy("p", after(1))), named("b", heldBy("p", t0)),
		named("c", heldBy("p", t0)), named("forever", heldBy("p", time.Time{})),
	)
	for _, want := range []int{2, 1, 0} {
		got, err := newService(m).SweepExpired(t.Context(), 2)
		if err != nil || got != want {
			t.Fatalf("got %d, %v, want %d", got, err, want)
		}
	}
	wantEqual(t, "commands", []lock.Command{ // none for an empty sweep: it would cost a transaction
		lock.ExpireAndGrant{Names: []string{"a", "b"}}, lock.ExpireAndGrant{Names: []string{"c"}},
	}, m.executed)
	for _, r := range m.sorted() {
		if want := r.Name == "live" || r.Name == "forever"; (len(r.Holds) > 0) != want {
			t.Errorf("%q is held: %t, want %t", r.Name, !want, want)
		}
	}
}

func TestSweepIdle(t *testing.T) {
	m := newMemory(named("a", freed(1)), named("held", heldBy("p", time.Time{})), named("b", freed(2)),
		named("busy", freed(3)), named("c", freed(4)))
	m.now = after(time.Minute + time.Hour + 1) // the freed ones have been idle for just over an hour
	m.beforeExecute = func() {
		// Another process uses "busy" between the read that found it idle and the
		// command.
		if slices.Contains(m.executed[len(m.executed)-1].Needs().Resources, "busy") {
			busy := m.resources["busy"]
			busy.EndedAt = m.now
			m.resources["busy"] = busy
		}
	}
	type sweep struct {
		Deleted int
		Next    int64
	}
	var got []sweep
	for next := int64(0); len(got) == 0 || next != 0; {
		deleted, following, err := newService(m).SweepIdle(t.Context(), next, 2, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, sweep{deleted, following})
		next = following
	}
	wantEqual(t, "sweeps", []sweep{{1, 2}, {1, 4}, {1, 0}}, got)
	wantEqual(t, "remaining", []string{"busy", "held"}, slices.Sorted(maps.Keys(m.resources)))

	m.executed = nil
	deleted, next, err := newService(m).SweepIdle(t.Context(), 0, 1, time.Hour)
	if deleted != 0 || next != 2 || err != nil {
		t.Errorf("a window without idle rows: got %d, %d, %v, want 0 and to continue after 2", deleted, next, err)
	}
	if m.executed != nil {
		t.Errorf("executed %v without an idle row", m.executed)
	}
}

func TestSweepEvents(t *testing.T) {
	m := newMemory()
	for i := range 6 { // one each minute, the newest now
		e := endEvent(lock.EventExpired, int64(i))
		e.At = after(time.Duration(i-5) * time.Minute)
		m.events = append(m.events, e)
	}
	for _, want := range []int{2, 1, 0} {
		got, err := newService(m).SweepEvents(t.Context(), 2*time.Minute, 2)
		if err != nil || got != want {
			t.Fatalf("got %d, %v, want %d", got, err, want)
		}
	}
	arguments := deletion{2 * time.Minute, 2}
	wantEqual(t, "arguments", []any{arguments, arguments, arguments}, m.arguments)
	if len(m.events) != 3 || m.executed != nil {
		t.Errorf("%d events remain and %v was executed, want 3 and nothing", len(m.events), m.executed)
	}
}
