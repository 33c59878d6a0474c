package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// TestHoldIsStoredWhole tests that every field of a hold is stored, and every kind of
// change.
func TestHoldIsStoredWhole(t *testing.T, db Database) {
	s := db.open(t)
	check := func(step string, want lock.Resource) {
		t.Helper()
		got, err := s.Find(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Resource, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-decided +stored):\n%s", step, diff)
		}
	}
	out := execute(t, s, lock.Acquire{Request: lock.Request{
		Resource: "r", ProcessID: "p", TTL: time.Hour, MinHold: time.Minute, RequestID: "id 'quoted'",
		Reason: "because \\ \"why\" 日本", Metadata: `{"z":1,"a":[12345678901234567890,"\u0000 \" é"]}`,
	}})
	check("acquired", out.Resource)
	out = execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: 2 * time.Hour, Token: out.Hold.Token})
	if out.Hold.Renewals != 1 {
		t.Errorf("got %d renewals, want 1", out.Hold.Renewals)
	}
	check("renewed", out.Resource)
	out = execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})
	if out.Hold.ReleasedAt.IsZero() {
		t.Error("a hold released before its minimum has no ReleasedAt")
	}
	check("released before its minimum", out.Resource)
	check("force-released", execute(t, s, lock.ForceRelease{Resource: "r", Reason: "why not", By: "me"}).Resource)

	check("acquired without options", acquire(t, s, "r", "q", 0).Resource)
}

// TestHistoryIsStored tests that the history returns every event that a command
// reported, newest first.
func TestHistoryIsStored(t *testing.T, db Database) {
	s := db.open(t)
	var want []lock.Event
	run := func(c lock.Command) {
		want = append(want, execute(t, s, c).Events...)
	}
	run(lock.Acquire{Request: lock.Request{Resource: "a", ProcessID: "p", Reason: "it's \"needed\""}})
	run(lock.Acquire{Request: lock.Request{Resource: "b", ProcessID: "q", TTL: time.Microsecond}})
	run(lock.Renew{Resource: "a", ProcessID: "p", TTL: time.Hour})
	run(lock.Release{Resource: "a", ProcessID: "p"})
	run(lock.Acquire{Request: lock.Request{Resource: "b", ProcessID: "p"}}) // records the expiry
	run(lock.ForceRelease{Resource: "b", Reason: "it hangs", By: "ops"})

	ids := cmpopts.IgnoreFields(lock.Event{}, "ID")
	filters := map[string]struct {
		filter service.HistoryFilter
		match  func(lock.Event) bool
	}{
		"all": {service.HistoryFilter{Limit: 100}, func(lock.Event) bool { return true }},
		"resource": {
			service.HistoryFilter{Resource: "b", Limit: 100},
			func(e lock.Event) bool { return e.Resource == "b" },
		},
		"process": {
			service.HistoryFilter{ProcessID: "p", Limit: 100},
			func(e lock.Event) bool { return e.ProcessID == "p" },
		},
		"resource and process": {
			service.HistoryFilter{Resource: "b", ProcessID: "p", Limit: 100},
			func(e lock.Event) bool { return e.Resource == "b" && e.ProcessID == "p" },
		},
	}
	for name, f := range filters {
		var matching []lock.Event
		for _, e := range slices.Backward(want) {
			if f.match(e) {
				matching = append(matching, e)
			}
		}
		got, err := s.History(t.Context(), f.filter)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(matching, got, ids); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(matching) == 0 {
			t.Errorf("%s: no event matches", name)
		}
	}

	var paged []lock.Event
	for before := int64(0); ; {
		page, err := s.History(t.Context(), service.HistoryFilter{BeforeID: before, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		before = page[len(page)-1].ID
	}
	slices.Reverse(paged)
	if diff := cmp.Diff(want, paged, ids); diff != "" {
		t.Errorf("read in pages of two (-want +got):\n%s", diff)
	}
}

// TestLastEnd tests that LastEnd finds how the last hold of a process ended, or that of
// a token.
func TestLastEnd(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "r", "q", time.Microsecond)
	token := acquire(t, s, "r", "p", 0).Hold.Token // records the expiry
	execute(t, s, lock.ForceRelease{Resource: "r", Reason: "it hangs", By: "ops"})
	for _, of := range []int64{0, token} {
		end, found, err := s.LastEnd(t.Context(), "r", "p", of)
		if err != nil || !found || end.Kind != lock.EventForceReleased || end.Token != token || end.By != "ops" {
			t.Errorf("token %d: got %+v, %t, %v, want the force-release of %d", of, end, found, err, token)
		}
	}
	if end, found, err := s.LastEnd(t.Context(), "r", "p", token+1); err != nil || found {
		t.Errorf("a token that never existed: got %+v, %t, %v, want none", end, found, err)
	}
	// A hold that its process has released does not count as force-released.
	execute(t, s, lock.Acquire{Request: lock.Request{Resource: "m", ProcessID: "p", MinHold: time.Hour}})
	release(t, s, "m", "p")
	execute(t, s, lock.ForceRelease{Resource: "m", Reason: "now"})
	if end, found, err := s.LastEnd(t.Context(), "m", "p", 0); err != nil || !found || end.Kind != lock.EventReleased {
		t.Errorf("released, then force-released: got %+v, %t, %v, want the release", end, found, err)
	}
	// If the end of the last hold is not recorded, the end of an earlier hold does not
	// count.
	acquire(t, s, "r", "p", time.Microsecond)
	if end, found, err := s.LastEnd(t.Context(), "r", "p", 0); err != nil || found {
		t.Errorf("an end that is not recorded: got %+v, %t, %v, want none", end, found, err)
	}
}

// TestRefusalsLeaveNoEvent tests that a refused command records no event.
func TestRefusalsLeaveNoEvent(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	for _, c := range []lock.Command{
		lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "q"}},
		lock.Release{Resource: "r", ProcessID: "q"},
		lock.Release{Resource: "r", ProcessID: "p", Token: 1},
		lock.Renew{Resource: "r", ProcessID: "q", TTL: time.Hour},
		lock.ForceRelease{Resource: "free", Reason: "why"},
	} {
		if _, err := s.Execute(t.Context(), c); err == nil {
			t.Errorf("%+v was not refused", c)
		}
	}
	if events, err := s.History(t.Context(), service.HistoryFilter{Limit: 100}); err != nil || len(events) != 1 {
		t.Errorf("got %d events, %v, want 1", len(events), err)
	}
}

// TestHistoryRetention tests that DeleteEvents deletes old events, a limited number at a
// time.
func TestHistoryRetention(t *testing.T, db Database) {
	s := db.open(t)
	for i := range 5 {
		acquire(t, s, fmt.Sprint("r", i), "p", 0)
	}
	if n, err := s.DeleteEvents(t.Context(), time.Hour, 100); err != nil || n != 0 {
		t.Errorf("deleted %d events although none is an hour old, %v", n, err)
	}
	for _, want := range []int{2, 2, 1, 0} {
		if n, err := s.DeleteEvents(t.Context(), 0, 2); err != nil || n != want {
			t.Errorf("deleted %d, want %d, %v", n, want, err)
		}
	}
	// The holds stay, and the ids of new events are greater than the deleted ones.
	if n := len(held(t, s, service.ListFilter{})); n != 5 {
		t.Errorf("%d resources are held, want 5", n)
	}
	execute(t, s, lock.Release{Resource: "r0", ProcessID: "p"})
	events, err := s.History(t.Context(), service.HistoryFilter{Limit: 10})
	if err != nil || len(events) != 1 || events[0].ID <= 5 {
		t.Errorf("after the deletion: got %+v, %v, want one event with a greater id", events, err)
	}
}

// TestListFilters tests that each filter of the list matches exactly, and its order is
// that of the contract.
func TestListFilters(t *testing.T, db Database) {
	names := []string{"a%1", "a_1", "a1", "A1", "ab", "ä1", "b", `a\1`, "a%2"}
	s := db.open(t)
	for i, name := range names {
		acquire(t, s, name, fmt.Sprint("p", i%2), 0)
	}
	acquire(t, s, "a released", "p0", 0)
	execute(t, s, lock.Release{Resource: "a released", ProcessID: "p0"})
	acquire(t, s, "a expired", "p0", time.Microsecond)

	for _, test := range []struct {
		filter service.ListFilter
		want   []string
	}{
		{service.ListFilter{}, names},
		{service.ListFilter{Prefix: "a"}, []string{"a%1", "a%2", "a1", `a\1`, "a_1", "ab"}},
		{service.ListFilter{Prefix: "A"}, []string{"A1"}},
		{service.ListFilter{Prefix: "a%"}, []string{"a%1", "a%2"}},
		{service.ListFilter{Prefix: "a_"}, []string{"a_1"}},
		{service.ListFilter{Prefix: `a\`}, []string{`a\1`}},
		{service.ListFilter{Prefix: "ä"}, []string{"ä1"}},
		{service.ListFilter{ProcessID: "p1"}, []string{"a_1", "A1", "ä1", `a\1`}},
		{service.ListFilter{Prefix: "a", ProcessID: "p1"}, []string{`a\1`, "a_1"}},
		{service.ListFilter{Limit: 2}, names[:2]},
		{service.ListFilter{Prefix: "a", Limit: 2}, []string{"a%1", "a%2"}},
		{service.ListFilter{Prefix: "a", After: "a%2", Limit: 2}, []string{"a1", `a\1`}},
	} {
		if diff := cmp.Diff(test.want, heldNames(t, s, test.filter)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.filter, diff)
		}
	}
	second := held(t, s, service.ListFilter{})[1]
	if rest := held(t, s, service.ListFilter{AfterID: second.ID}); len(rest) != len(names)-2 {
		t.Errorf("%d resources after the second, want %d", len(rest), len(names)-2)
	}
}

// TestHeldByPages tests that the names of HeldBy are ordered byte by byte, whatever the
// collation of the database.
func TestHeldByPages(t *testing.T, db Database) {
	names := []string{"B", "a", "_", "ä", "b", "A", "-", "日"}
	s := db.open(t)
	for _, name := range names {
		acquire(t, s, name, "p", 0)
	}
	acquire(t, s, "other", "q", 0)
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page, err := s.HeldBy(t.Context(), "p", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	want := slices.Sorted(slices.Values(names))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// TestListEndsEarly tests that an error of the callback ends the list and is returned.
// The store works afterwards.
func TestListEndsEarly(t *testing.T, db Database) {
	errEnough := errors.New("enough")
	s := db.open(t)
	for i := range 10 {
		acquire(t, s, fmt.Sprint(i), "p", 0)
	}
	seen := 0
	begin := func(int, time.Time) error { return nil }
	err := s.Held(t.Context(), service.ListFilter{}, begin, func(lock.Resource) error {
		if seen++; seen == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || seen != 3 {
		t.Errorf("got %v after %d resources, want %v after 3", err, seen, errEnough)
	}
	acquire(t, s, "next", "p", 0)
}

// TestOpenListsLeaveTheRestWorking tests that commits and short reads find a connection,
// however many clients read a list slowly.
func TestOpenListsLeaveTheRestWorking(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	reading, proceed := make(chan struct{}, 100), make(chan struct{})
	var lists sync.WaitGroup
	for range 20 {
		lists.Go(func() {
			begin := func(int, time.Time) error { return nil }
			err := s.Held(context.Background(), service.ListFilter{}, begin, func(lock.Resource) error {
				reading <- struct{}{}
				<-proceed
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	<-reading
	acquire(t, s, "other", "p", 0)
	for range 20 {
		if r, err := s.Find(t.Context(), "other"); err != nil || r.Resource.ID == 0 {
			t.Errorf("got %+v, %v, want a row", r, err)
		}
		if page := held(t, s, service.ListFilter{Limit: 5}); len(page) != 2 {
			t.Errorf("got %d held resources, want 2", len(page))
		}
	}
	close(proceed)
	lists.Wait()
}

// TestHistoryFilters tests that a filter by kind or time orders events by their times.
// The others order them by their ids.
func TestHistoryFilters(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "a", "p", 0)
	release(t, s, "a", "p")
	acquire(t, s, "b", "q", 0)
	all, err := s.History(t.Context(), service.HistoryFilter{Limit: 10})
	if err != nil || len(all) != 3 {
		t.Fatalf("got %d events, %v, want 3", len(all), err)
	}
	acquired, released := []lock.EventKind{lock.EventAcquired}, []lock.EventKind{lock.EventReleased}
	both := slices.Concat(released, acquired)
	for name, test := range map[string]struct {
		filter service.HistoryFilter
		want   []lock.Event
	}{
		"one kind":          {service.HistoryFilter{Kinds: released, Limit: 10}, all[1:2]},
		"two kinds":         {service.HistoryFilter{Kinds: both, Limit: 2}, all[:2]},
		"since":             {service.HistoryFilter{Since: all[1].At, Limit: 10}, all[:2]},
		"until":             {service.HistoryFilter{Until: all[0].At, Limit: 10}, all[1:]},
		"kind and resource": {service.HistoryFilter{Kinds: acquired, Resource: "b", Limit: 10}, all[:1]},
		"next page by time": {service.HistoryFilter{Until: all[0].At, BeforeID: all[1].ID, Limit: 10}, all[2:]},
		"next page by id":   {service.HistoryFilter{BeforeID: all[0].ID, Limit: 1}, all[1:2]},
	} {
		got, err := s.History(t.Context(), test.filter)
		if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%s, %v (-want +got):\n%s", name, err, diff)
		}
	}
}
