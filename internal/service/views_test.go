package service_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// collect returns what List passes to its callbacks.
func collect(t *testing.T, m *memory, f service.ListFilter) (total int, now time.Time, listed []lock.Resource) {
	t.Helper()
	begun := 0
	err := newService(m).List(t.Context(), f, func(n int, at time.Time) error {
		begun++
		total, now = n, at
		return nil
	}, func(r lock.Resource) error {
		if begun != 1 {
			t.Errorf("each was called with %q after %d calls of begin", r.Name, begun)
		}
		listed = append(listed, r)
		return nil
	})
	if err != nil || begun != 1 {
		t.Fatalf("begin was called %d times, %v", begun, err)
	}
	return total, now, listed
}

func TestStatusAndOwner(t *testing.T) {
	released := heldBy("p1", after(1))
	released.Holds[0].ReleasedAt = after(-1)
	tests := []struct {
		name        string
		stored      lock.Resource
		held, owned bool
	}{
		{"held without a TTL", heldBy("p1", time.Time{}), true, true},
		{"held with a TTL", heldBy("p1", after(1)), true, true},
		{"released before its minimum", released, true, false},
		{"expires now", heldBy("p1", t0), false, false},
		{"released", freed(100), false, false},
		{"never held", named("other", heldBy("p1", time.Time{})), false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := newService(newMemory(test.stored)).Status(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			var want lock.Hold
			if test.held {
				want = test.stored.Holds[0]
			}
			holder, held := found.Resource.Holder(found.At)
			owner, owned := found.Owner()
			if held != test.held || owned != test.owned {
				t.Errorf("held %t, owned %t, want %t and %t", held, owned, test.held, test.owned)
			}
			wantEqual(t, "holder", want, holder)
			if owned {
				wantEqual(t, "owner", want, owner)
			}
			wantEqual(t, "time of the snapshot", t0, found.At)
		})
	}
}

func TestListHidesExpiredHolds(t *testing.T) {
	z, a := named("z", heldBy("p1", time.Time{})), named("a", heldBy("p3", after(1)))
	m := newMemory(z, named("expired", heldBy("p2", t0)), freed(100), a)
	z.ID, a.ID = 1, 4
	total, now, listed := collect(t, m, service.ListFilter{})
	wantEqual(t, "time of the snapshot", t0, now)
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

// The API sends a list while it is read, so an error of a callback, such as a
// disconnected client, ends the read.
func TestCallbackErrorEndsAList(t *testing.T) {
	m := newMemory(named("a", heldBy("p", time.Time{})), named("b", heldBy("p", time.Time{})))
	errGone := errors.New("the client disconnected")
	var seen []string
	each := func(r lock.Resource) error {
		seen = append(seen, r.Name)
		return errGone
	}
	err := newService(m).List(t.Context(), service.ListFilter{}, func(int, time.Time) error { return errGone }, each)
	if !errors.Is(err, errGone) || seen != nil {
		t.Errorf("begin: got %v after %q, want %v after none", err, seen, errGone)
	}
	err = newService(m).List(t.Context(), service.ListFilter{}, func(int, time.Time) error { return nil }, each)
	if !errors.Is(err, errGone) || !slices.Equal(seen, []string{"a"}) {
		t.Errorf("each: got %v after %q, want %v after a", err, seen, errGone)
	}
}
