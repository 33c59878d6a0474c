package service_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// collect gathers a list's answer.
func collect(t *testing.T, m *memory, f service.ListFilter) (total int, now time.Time, listed []lock.Resource) {
	t.Helper()
	begun := 0
	err := newService(m).List(t.Context(), f, func(n int, at time.Time) error {
		begun++
		total, now = n, at
		return nil
	}, func(r lock.Resource) error {
		if begun != 1 {
			t.Errorf("%q came after begin was called %d times", r.Name, begun)
		}
		listed = append(listed, r)
		return nil
	})
	if err != nil || begun != 1 {
		t.Fatalf("begin was called %d times, %v", begun, err)
	}
	return total, now, listed
}

func TestListHidesExpiredHolds(t *testing.T) {
	z, gone, a := named("z", heldBy("p1", time.Time{})), named("gone", heldBy("p2", t0)), named("a", heldBy("p3", after(1)))
	m := newMemory(z, gone, freed(100), a)
	z.ID, a.ID = 1, 4
	total, now, listed := collect(t, m, service.ListFilter{})
	wantEqual(t, "moment", t0, now)
	wantEqual(t, "total", 2, total)
	wantEqual(t, "listed", []lock.Resource{z, a}, listed) // by id, not by name

	m.resources = nil
	if total, _, listed = collect(t, m, service.ListFilter{}); total != 0 || len(listed) != 0 {
		t.Errorf("got %d and %v, want an empty list", total, listed)
	}
}

func TestFiltersReachTheStore(t *testing.T) {
	lists := []service.ListFilter{
		{}, {Prefix: "deploy/", ProcessID: "p", AfterID: 7, Limit: 100}, {Prefix: `%_\`}, {AfterID: 1 << 62},
	}
	histories := []service.HistoryFilter{
		{}, {Resource: "r", ProcessID: "p", BeforeID: 7, Limit: 100}, {ProcessID: "p"}, {Limit: 1},
	}
	m := newMemory(heldBy("p", time.Time{}))
	m.events = []lock.Event{endEvent(lock.EventReleased, 1), endEvent(lock.EventExpired, 2)}
	var want []any
	for _, f := range lists {
		collect(t, m, f)
		want = append(want, f)
	}
	for _, f := range histories {
		got, err := newService(m).History(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "events, newest first", []lock.Event{m.events[1], m.events[0]}, got)
		want = append(want, f)
	}
	wantEqual(t, "filters", want, m.arguments)
}

// A list goes out while it is read; when the client is gone there is no reason to read on.
func TestCallerEndsAList(t *testing.T) {
	m := newMemory(named("a", heldBy("p", time.Time{})), named("b", heldBy("p", time.Time{})))
	errGone := errors.New("gone")
	err := newService(m).List(t.Context(), service.ListFilter{}, func(int, time.Time) error { return errGone },
		func(r lock.Resource) error {
			t.Errorf("%q came after begin had ended the list", r.Name)
			return nil
		})
	if !errors.Is(err, errGone) {
		t.Errorf("begin: got %v, want %v", err, errGone)
	}
	var seen []string
	err = newService(m).List(t.Context(), service.ListFilter{}, func(int, time.Time) error { return nil }, func(r lock.Resource) error {
		seen = append(seen, r.Name)
		return errGone
	})
	if !errors.Is(err, errGone) || !slices.Equal(seen, []string{"a"}) {
		t.Errorf("each: got %v after %v, want %v after a", err, seen, errGone)
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
	asked := deletion{2 * time.Minute, 2}
	wantEqual(t, "asked", []any{asked, asked, asked}, m.arguments)
	if len(m.events) != 3 || m.executed != nil {
		t.Errorf("%d events are left and %v was executed, want 3 and nothing", len(m.events), m.executed)
	}
}
