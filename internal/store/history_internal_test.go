package store

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// firstEvent is the time of the first event of a filled history.
var firstEvent = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// onBothFilled runs a test on a store with the events, appended as a batch appends them.
func onBothFilled(t *testing.T, events []lock.Event, test func(t *testing.T, s *Store)) {
	for _, driver := range []string{SQLite, Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := openInternal(t, driver)
			for batch := range slices.Chunk(events, 1000) {
				rows := make([]eventRow, len(batch))
				for i, e := range batch {
					rows[i] = eventRowOf(e)
				}
				err := s.writer.Transaction(func(tx *gorm.DB) error {
					if _, _, err := s.backend.lockRows(tx, []string{}); err != nil {
						return err
					}
					return s.backend.write(tx, []lockRow{}, rows)
				})
				if err != nil {
					t.Fatal(err)
				}
				s.backend.committed(nil)
			}
			if driver == Postgres { // as its autovacuum does after a while
				if err := s.writer.Exec("ANALYZE lock_events").Error; err != nil {
					t.Fatal(err)
				}
			}
			test(t, s)
		})
	}
}

// someEvents returns n events, a second apart, except expiries that were recorded up to
// an hour late.
func someEvents(n, resources int) []lock.Event {
	random := rand.New(rand.NewPCG(1, 2))
	events := make([]lock.Event, n)
	for i := range events {
		r := random.IntN(resources)
		kinds := lock.EventKinds()
		e := lock.Event{
			ID: int64(i + 1), Kind: kinds[random.IntN(len(kinds))], At: firstEvent.Add(time.Duration(i) * time.Second),
			Resource: fmt.Sprint("r", r), ProcessID: fmt.Sprint("p", r%3), Token: int64(i + 1), Since: firstEvent,
		}
		if e.Kind == lock.EventExpired && random.IntN(2) == 0 {
			e.At = e.At.Add(-time.Duration(random.IntN(3600)) * time.Second)
		}
		if random.IntN(10) == 0 && i > 0 { // many events have the same time
			e.At = events[i-1].At
		}
		events[i] = e
	}
	return events
}

// A page has exactly the events that match the filter. All pages together have all of
// them.
func TestHistoryFiltersFindAllThatMatches(t *testing.T) {
	events := someEvents(4200, 5)
	at := func(seconds int) time.Time { return firstEvent.Add(time.Duration(seconds) * time.Second) }
	filters := map[string]service.HistoryFilter{
		"a time":                {Since: at(1000), Until: at(2000)},
		"since":                 {Since: at(4000)},
		"until":                 {Until: at(150)},
		"the time of an event":  {Since: events[2000].At, Until: events[2000].At.Add(time.Microsecond)},
		"a time without events": {Since: at(-1000), Until: at(-500)},
		"a future time":         {Since: at(5000)},
		"a kind":                {Kinds: []lock.EventKind{lock.EventForceReleased}},
		"two kinds":             {Kinds: []lock.EventKind{lock.EventExpired, lock.EventAcquired}},
		"all kinds":             {Kinds: lock.EventKinds()},
		"a kind at a time":      {Kinds: []lock.EventKind{lock.EventExpired}, Since: at(1000), Until: at(3000)},
		"a resource at a time":  {Resource: "r2", Since: at(1000), Until: at(3000)},
		"a process since":       {ProcessID: "p1", Since: at(2000)},
		"a resource and a kind": {Resource: "r3", Kinds: []lock.EventKind{lock.EventQueued}},
		"a process and kinds, until": {
			ProcessID: "p0", Kinds: []lock.EventKind{lock.EventQueued, lock.EventExpired}, Until: at(4000),
		},
		"another process, at a time":  {Resource: "r1", ProcessID: "p0", Since: at(0)},
		"a resource, and its process": {Resource: "r1", ProcessID: "p1", Since: at(0)},
	}
	onBothFilled(t, events, func(t *testing.T, s *Store) {
		for name, f := range filters {
			t.Run(name, func(t *testing.T) {
				var want []int64
				matching := slices.DeleteFunc(slices.Clone(events), func(e lock.Event) bool {
					return f.Resource != "" && e.Resource != f.Resource || f.ProcessID != "" && e.ProcessID != f.ProcessID ||
						len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind) ||
						!f.Since.IsZero() && e.At.Before(f.Since) || !f.Until.IsZero() && !e.At.Before(f.Until)
				})
				slices.SortFunc(matching, func(a, b lock.Event) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.ID, a.ID)) })
				for _, e := range matching {
					want = append(want, e.ID)
				}
				for _, f.Limit = range []int{7, 100, 10_000} {
					var got []int64
					for f.BeforeID = 0; ; f.BeforeID = got[len(got)-1] {
						page, err := s.History(t.Context(), f)
						if err != nil {
							t.Fatal(err)
						}
						if len(page) > f.Limit {
							t.Fatalf("a page of %d events, want at most %d", len(page), f.Limit)
						}
						for _, e := range page {
							if e.ID < 1 || int(e.ID) > len(events) {
								t.Fatalf("the ids do not start at 1: %+v", e)
							}
							if diff := gocmp.Diff(events[e.ID-1], e); diff != "" {
								t.Fatal("event (-stored +read):\n" + diff)
							}
							got = append(got, e.ID)
						}
						if len(page) < f.Limit {
							break
						}
					}
					if diff := gocmp.Diff(want, got); diff != "" {
						t.Errorf("by pages of %d (-want +got):\n%s", f.Limit, diff)
					}
				}
			})
		}
		// There is no page after an event that was deleted.
		if err := s.writer.Exec("DELETE FROM lock_events WHERE id <= 10").Error; err != nil {
			t.Fatal(err)
		}
		page, err := s.History(t.Context(), service.HistoryFilter{Until: at(5000), BeforeID: 5, Limit: 10})
		if err != nil || len(page) > 0 {
			t.Errorf("got %d events, %v, want none", len(page), err)
		}
	})
}

// Events of a time are found without reading the whole history, on both databases. An
// index, or the number of events of the resource, bounds what is read.
func TestHistoryFiltersUseAnIndex(t *testing.T) {
	events := someEvents(33_000, 300) // a hundred of each resource, eleven thousand of each process
	at := func(seconds int) time.Time { return firstEvent.Add(time.Duration(seconds) * time.Second) }
	tests := []struct {
		name   string
		filter service.HistoryFilter
		index  string
	}{
		{"a time", service.HistoryFilter{Since: at(1000), Until: at(2000)}, "lock_events_kind"},
		{"a time without events", service.HistoryFilter{Until: at(-10_000)}, "lock_events_kind"},
		{"a kind", service.HistoryFilter{Kinds: []lock.EventKind{lock.EventForceReleased}}, "lock_events_kind"},
		{
			"a kind at a time",
			service.HistoryFilter{Kinds: []lock.EventKind{lock.EventExpired}, Since: at(1000), Until: at(2000)},
			"lock_events_kind",
		},
		{
			"a process with many events at a time",
			service.HistoryFilter{ProcessID: "p1", Since: at(1000), Until: at(1100)},
			"lock_events_kind",
		},
		{
			"a resource with few events at a time",
			service.HistoryFilter{Resource: "r7", Since: at(0), Until: at(20_000)},
			"lock_events_resource",
		},
	}
	onBothFilled(t, events, func(t *testing.T, s *Store) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				test.filter.Limit = 101
				var plan string
				err := s.read(context.Background(), func(db *gorm.DB) error {
					from, args, err := s.byTime(db, test.filter)
					if err != nil {
						return err
					}
					plan, err = s.Explain(context.Background(), "SELECT "+eventList+" "+from, args...)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(plan) {
					// On SQLite the newest events, which are in no index yet, are found
					// by their ids.
					reads := strings.Contains(line, "lock_events") && !strings.Contains(line, "INTEGER PRIMARY KEY (rowid>?)") &&
						!strings.Contains(line, "Sort Key")
					bitmap := strings.Contains(line, "Bitmap Heap Scan") // behind an index, which is the next line
					if reads && !bitmap && !strings.Contains(line, test.index) {
						t.Errorf("it does not use the index %s: %s", test.index, line)
					}
				}
				if !strings.Contains(plan, test.index) {
					t.Errorf("it does not use the index %s:\n%s", test.index, plan)
				}
			})
		}
	})
}

// An expiry that was recorded late has an earlier time than its neighbours. It does not
// stop the deletion of old events, does not cause the deletion of a younger event, and is
// deleted with its neighbours at the latest.
func TestLateExpiriesDoNotStopTheDeletion(t *testing.T) {
	events := someEvents(4200, 5)
	onBothFilled(t, events, func(t *testing.T, s *Store) {
		var now time.Time
		err := s.read(t.Context(), func(db *gorm.DB) (err error) {
			now, err = s.backend.now(db)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		cutoff := firstEvent.Add(3000 * time.Second)
		const limit = 500
		for deleted := limit; deleted == limit; {
			if deleted, err = s.DeleteEvents(t.Context(), now.Sub(cutoff), limit); err != nil {
				t.Fatal(err)
			}
		}
		left, err := s.History(t.Context(), service.HistoryFilter{Limit: len(events)})
		if err != nil {
			t.Fatal(err)
		}
		kept := map[int64]bool{}
		for _, e := range left {
			kept[e.ID] = true
		}
		for _, e := range events {
			switch {
			case !kept[e.ID] && !e.At.Before(cutoff.Add(time.Minute)): // time has passed since
				t.Errorf("deleted although it is not old: %+v", e)
			case kept[e.ID] && e.ID < 2990: // its neighbours are older than the cutoff
				t.Errorf("kept although it is old: %+v", e)
			}
		}
	})
}
