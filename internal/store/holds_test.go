package store_test

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
	"resource-lock-manager/internal/store"
)

// A hold is stored completely, through every kind of change.
func TestHoldIsStoredWhole(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		check := func(step string, want lock.Resource) {
			t.Helper()
			got, _ := find(t, s, "r")
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
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
			t.Errorf("renewals: %d", out.Hold.Renewals)
		}
		check("renewed", out.Resource)
		out = execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})
		if out.Hold.ReleasedAt.IsZero() {
			t.Error("released before its minimum, but not kept")
		}
		check("released before its minimum", out.Resource)
		check("force-released", execute(t, s, lock.ForceRelease{Resource: "r", Reason: "why not", By: "me"}).Resource)

		plain := execute(t, s, acquire("r", "q"))
		check("acquired plainly", plain.Resource)
	})
}

func TestHistoryIsStored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		var want []lock.Event
		run := func(c lock.Command) {
			want = append(want, execute(t, s, c).Events...)
		}
		run(lock.Acquire{Request: lock.Request{Resource: "a", ProcessID: "p", Reason: "it's \"needed\""}})
		run(acquireFor("b", "q", time.Microsecond))
		run(lock.Renew{Resource: "a", ProcessID: "p", TTL: time.Hour})
		run(lock.Release{Resource: "a", ProcessID: "p"})
		run(acquire("b", "p")) // finds the expired hold
		run(lock.ForceRelease{Resource: "b", Reason: "stuck", By: "ops"})

		ids := cmpopts.IgnoreFields(lock.Event{}, "ID")
		filters := map[string]struct {
			filter service.HistoryFilter
			keep   func(lock.Event) bool
		}{
			"all": {service.HistoryFilter{Limit: 100}, func(lock.Event) bool { return true }},
			"of b": {
				service.HistoryFilter{Resource: "b", Limit: 100},
				func(e lock.Event) bool { return e.Resource == "b" },
			},
			"of p": {
				service.HistoryFilter{ProcessID: "p", Limit: 100},
				func(e lock.Event) bool { return e.ProcessID == "p" },
			},
			"of p's in b": {
				service.HistoryFilter{Resource: "b", ProcessID: "p", Limit: 100},
				func(e lock.Event) bool { return e.Resource == "b" && e.ProcessID == "p" },
			},
		}
		for name, f := range filters {
			var kept []lock.Event
			for _, e := range slices.Backward(want) {
				if f.keep(e) {
					kept = append(kept, e)
				}
			}
			got, err := s.History(t.Context(), f.filter)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(kept, got, ids); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			if len(kept) == 0 {
				t.Errorf("%s: nothing to compare", name)
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
			t.Errorf("by pages of two (-want +got):\n%s", diff)
		}

		end, found, err := s.LastEnd(t.Context(), "b", "p", 0)
		if err != nil || !found || end.Kind != lock.EventForceReleased || end.By != "ops" {
			t.Errorf("last end of p's hold of b: %+v, %v, %v", end, found, err)
		}
		if _, found, err := s.LastEnd(t.Context(), "b", "p", end.Token+1); err != nil || found {
			t.Errorf("the end of a token that never was: %v, %v", found, err)
		}
		// A hold that its process had released cannot be force-released for that process
		// any more.
		execute(t, s, lock.Acquire{Request: lock.Request{Resource: "m", ProcessID: "p", MinHold: time.Hour}})
		execute(t, s, lock.Release{Resource: "m", ProcessID: "p"})
		execute(t, s, lock.ForceRelease{Resource: "m", Reason: "now"})
		if end, found, err := s.LastEnd(t.Context(), "m", "p", 0); err != nil || !found || end.Kind != lock.EventReleased {
			t.Errorf("the end of a hold that was released and then force-released: %+v, %v, %v", end, found, err)
		}
		// The end of an earlier hold is not that of a later hold whose end is not
		// recorded.
		execute(t, s, acquireFor("b", "p", time.Microsecond))
		if late, found, err := s.LastEnd(t.Context(), "b", "p", 0); err != nil || found {
			t.Errorf("the end of a hold that only expired: %+v, %v, %v", late, found, err)
		}
	})
}

// A refusal and a failed batch append no event.
func TestRefusalsLeaveNoEvent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		for _, c := range []lock.Command{
			acquire("r", "q"),
			lock.Release{Resource: "r", ProcessID: "q"},
			lock.Release{Resource: "r", ProcessID: "p", Token: 1},
			lock.Renew{Resource: "r", ProcessID: "q", TTL: time.Hour},
			lock.ForceRelease{Resource: "free", Reason: "why"},
			brokenAfter{resource: "x"},
		} {
			if _, err := s.Execute(t.Context(), c); err == nil {
				t.Errorf("%+v was accepted", c)
			}
		}
		if events, err := s.History(t.Context(), service.HistoryFilter{Limit: 100}); err != nil || len(events) != 1 {
			t.Errorf("%d events, %v", len(events), err)
		}
	})
}

func TestHistoryRetention(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		for i := range 5 {
			execute(t, s, acquire(fmt.Sprint("r", i), "p"))
		}
		if n, err := s.DeleteEvents(t.Context(), time.Hour, 100); err != nil || n != 0 {
			t.Errorf("deleted %d events that are not an hour old, %v", n, err)
		}
		for _, want := range []int{2, 2, 1, 0} {
			if n, err := s.DeleteEvents(t.Context(), 0, 2); err != nil || n != want {
				t.Errorf("deleted %d, want %d, %v", n, want, err)
			}
		}
		// Deleting history deletes nothing else, and new events have higher ids than the
		// deleted ones.
		if n := len(held(t, s, service.ListFilter{})); n != 5 {
			t.Errorf("%d held", n)
		}
		execute(t, s, lock.Release{Resource: "r0", ProcessID: "p"})
		events, err := s.History(t.Context(), service.HistoryFilter{Limit: 10})
		if err != nil || len(events) != 1 || events[0].ID <= 5 {
			t.Errorf("after the deletion: %+v, %v", events, err)
		}
	})
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	names := []string{"a%1", "a_1", "a1", "A1", "ab", "ä1", "b", `a\1`, "a%2"}
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		for i, name := range names {
			execute(t, s, acquire(name, fmt.Sprint("p", i%2)))
		}
		execute(t, s, acquire("a gone", "p0"))
		execute(t, s, lock.Release{Resource: "a gone", ProcessID: "p0"})
		execute(t, s, acquireFor("a expired", "p0", time.Microsecond))

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
			var got []string
			for _, r := range held(t, s, test.filter) {
				got = append(got, r.Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", test.filter, diff)
			}
		}
		second := held(t, s, service.ListFilter{})[1]
		if rest := held(t, s, service.ListFilter{AfterID: second.ID}); len(rest) != len(names)-2 {
			t.Errorf("%d after the second", len(rest))
		}
	})
}

// The holds of a process are paged byte by byte on both databases, whatever the
// collation.
func TestHeldByPages(t *testing.T) {
	t.Parallel()
	names := []string{"B", "a", "_", "ä", "b", "A", "-", "日"}
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		for _, name := range names {
			execute(t, s, acquire(name, "p"))
		}
		execute(t, s, acquire("other", "q"))
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
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// An error of the caller ends the list and is returned.
func TestListEndsEarly(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		for i := range 10 {
			execute(t, s, acquire(fmt.Sprint(i), "p"))
		}
		seen := 0
		err := s.Held(t.Context(), service.ListFilter{}, func(int, time.Time) error { return nil },
			func(lock.Resource) error {
				if seen++; seen == 3 {
					return enough
				}
				return nil
			})
		if !errors.Is(err, enough) || seen != 3 {
			t.Errorf("%v after %d", err, seen)
		}
		execute(t, s, acquire("next", "p"))
	})
}

// While many clients read a list slowly, commits and short reads find a connection.
func TestOpenListsLeaveTheRestWorking(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		execute(t, s, acquire("r", "p"))
		reading, finish := make(chan struct{}, 100), make(chan struct{})
		var lists sync.WaitGroup
		for range 20 {
			lists.Go(func() {
				err := s.Held(context.Background(), service.ListFilter{}, func(int, time.Time) error { return nil },
					func(lock.Resource) error {
						reading <- struct{}{}
						<-finish
						return nil
					})
				if err != nil {
					t.Error(err)
				}
			})
		}
		<-reading
		execute(t, s, acquire("other", "p"))
		for range 20 {
			if r, _ := find(t, s, "other"); r.ID == 0 {
				t.Errorf("%+v", r)
			}
			if page := held(t, s, service.ListFilter{Limit: 5}); len(page) != 2 {
				t.Errorf("a page of %d", len(page))
			}
		}
		close(finish)
		lists.Wait()
	})
}
