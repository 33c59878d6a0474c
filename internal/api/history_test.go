package api_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestHistoryOfAResource: every begin and every end of a hold, newest first. The end has
// the number of renewals.
func TestHistoryOfAResource(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		if got := s.history(t); len(got.Events) != 0 || got.NextCursor != nil {
			t.Errorf("at first: %+v", got)
		}
		first := dataOf[wire.Acquired](t,
			s.acquireWith(t, "r", "p", fields{"reason": "nightly backup", "metadata": fields{"a": 1}}))
		s.clock.advance(time.Minute)
		s.renew(t, "r", "p", 600, 0).want(t, 200)
		s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": 600}).want(t, 200)
		s.clock.advance(1500 * time.Millisecond)
		released := dataOf[wire.Released](t, s.release(t, "r", "p"))
		second := s.acquireAndOutlive(t, "r", "p")
		s.clock.advance(time.Hour) // a hold lasts until its expiry, whenever that is recorded
		third := s.hold(t, "r", "q", nil)
		forced := dataOf[wire.ForceReleased](t, s.forceRelease(t, "r", "the host is gone"))
		fourth := s.hold(t, "r", "p", nil)
		s.delete(t, "/locks/release-all", "process_id", "p").want(t, 200)

		lasted := func(from, to wire.Time) *float64 {
			return new(time.Time(to).Sub(time.Time(from)).Seconds())
		}
		got := s.history(t, "resource_name", "r")
		if len(got.Events) != 8 || got.NextCursor != nil {
			t.Fatalf("got %q", eventLines(got.Events))
		}
		event := func(kind string, h wire.Acquired, at wire.Time) wire.Event {
			return wire.Event{
				Event: kind, At: at, ResourceName: "r", ProcessID: h.ProcessID,
				FencingToken: &h.FencingToken,
			}
		}
		ended := func(kind string, h wire.Acquired, at wire.Time, renewals int) wire.Event {
			e := event(kind, h, at)
			e.HeldSeconds, e.Renewals = lasted(h.LockedAt, at), &renewals
			if h.FencingToken == first.FencingToken {
				e.HoldReason = new("nightly backup")
			}
			return e
		}
		want := []wire.Event{
			ended("released", fourth, got.Events[0].At, 0),
			event("acquired", fourth, fourth.LockedAt),
			ended("force_released", third, forced.ReleasedAt, 0),
			event("acquired", third, third.LockedAt),
			ended("expired", second, *second.ExpiresAt, 0),
			event("acquired", second, second.LockedAt),
			ended("released", first, released.ReleasedAt, 2),
			event("acquired", first, first.LockedAt),
		}
		want[2].Reason, want[2].By = new("the host is gone"), &forced.By
		want[7].Reason = new("nightly backup")
		for i, e := range got.Events {
			want[i].ID = e.ID
			if i > 0 && e.ID >= got.Events[i-1].ID {
				t.Errorf("id %d comes after %d", e.ID, got.Events[i-1].ID)
			}
		}
		if diff := cmp.Diff(want, got.Events, s.equalHolds()); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
		if s.driver == store.SQLite && (*got.Events[6].HeldSeconds != 61.5 || *got.Events[4].HeldSeconds != 5) {
			t.Errorf("held for %v and %v seconds", *got.Events[6].HeldSeconds, *got.Events[4].HeldSeconds)
		}
		wantMessage(t, s.get(t, "/locks/history"), "Retrieved 8 events")
		wantMessage(t, s.get(t, "/locks/history", "limit", "1"), "Retrieved 1 event")
	})
}

// TestEveryEndIsRecordedOnce, whichever command finds an expiry first.
func TestEveryEndIsRecordedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := s.acquireAndOutlive(t, "r", "p")
		if diff := cmp.Diff([]string{"acquired r p"}, eventLines(s.history(t).Events)); diff != "" {
			t.Error("before the sweep (-want +got):\n" + diff)
		}
		s.clock.advance(time.Minute)
		s.sweepExpired(t)
		s.sweepExpired(t)
		s.release(t, "r", "p").want(t, 404)
		s.forceRelease(t, "r", "stuck").want(t, 404)
		s.hold(t, "r", "q", nil)
		events := s.history(t).Events
		if diff := cmp.Diff([]string{"acquired r q", "expired r p", "acquired r p"}, eventLines(events)); diff != "" {
			t.Fatal("after the sweep (-want +got):\n" + diff)
		}
		if !cmp.Equal(events[1].At, *hold.ExpiresAt, s.equalHolds()) {
			t.Errorf("expired at %v, not when it was swept: %+v", time.Time(*hold.ExpiresAt), events[1])
		}
	})
}

// TestRefusalsAreNoHistory: refusals are not recorded.
func TestRefusalsAreNoHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		before := s.get(t, "/locks/history").body
		s.acquire(t, "r", "q", nil).want(t, 409)
		s.acquire(t, "r", "p", nil).want(t, 409)
		s.release(t, "r", "q").want(t, 404)
		s.renew(t, "r", "q", 60, 0).want(t, 404)
		s.renew(t, "r", "p", 60, 0).want(t, 200)
		s.forceRelease(t, "other", "stuck").want(t, 404)
		s.delete(t, "/locks/release-all", "process_id", "q").want(t, 200)
		s.call(t, "POST", "/locks/request", `{"resource_name":"x"}`).want(t, 422)
		if diff := cmp.Diff(before, s.get(t, "/locks/history").body); diff != "" {
			t.Error("history (-before +after):\n" + diff)
		}
	})
}

func TestHistoryFilters(t *testing.T) {
	tests := []struct {
		name  string
		query []string
		want  []string
	}{
		{"everything", nil, []string{
			"force_released a q", "acquired a q", "acquired b q", "released a p",
			"acquired A P", "acquired a p",
		}},
		{
			"empty parameters",
			[]string{"resource_name", "", "process_id", ""},
			[]string{
				"force_released a q", "acquired a q", "acquired b q", "released a p", "acquired A P",
				"acquired a p",
			},
		},
		{
			"resource",
			[]string{"resource_name", "a"},
			[]string{"force_released a q", "acquired a q", "released a p", "acquired a p"},
		},
		{"resource in other case", []string{"resource_name", "A"}, []string{"acquired A P"}},
		{"no pattern", []string{"resource_name", "%"}, []string{}},
		// The process is the holder, not the caller of the force-release.
		{"process", []string{"process_id", "q"}, []string{"force_released a q", "acquired a q", "acquired b q"}},
		{"process in other case", []string{"process_id", "P"}, []string{"acquired A P"}},
		{"the caller of the force-release", []string{"process_id", "ops"}, []string{}},
		{"both", []string{"process_id", "p", "resource_name", "a"}, []string{"released a p", "acquired a p"}},
		{"the newest", []string{"limit", "1"}, []string{"force_released a q"}},
		{"the maximum limit", []string{"limit", "1000", "process_id", "P"}, []string{"acquired A P"}},
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "a", "p", nil)
		s.hold(t, "A", "P", nil)
		s.release(t, "a", "p").want(t, 200)
		s.hold(t, "b", "q", nil)
		s.hold(t, "a", "q", nil)
		s.delete(t, "/locks/force-release", "resource_name", "a", "reason", "stuck", "process_id", "ops").want(t, 200)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				if diff := cmp.Diff(test.want, eventLines(s.history(t, test.query...).Events)); diff != "" {
					t.Error("events (-want +got):\n" + diff)
				}
			})
		}
	})
}

// TestHistoryPages: events that are added while a client reads pages are newer than the
// rest of the pages.
func TestHistoryPages(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range numbered("r", 14) {
			s.hold(t, name, "p", nil)
		}
		want := eventLines(s.history(t).Events)
		for _, limit := range []int{1, 5, 7, 13, 14, 15, 1000} {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				var got []string
				cursor := []string{}
				for page := 1; ; page++ {
					h := s.history(t, append([]string{"limit", strconv.Itoa(limit), "process_id", "p"}, cursor...)...)
					got = append(got, eventLines(h.Events)...)
					if len(h.Events) > limit || len(h.Events) == 0 {
						t.Errorf("page %d has %d events", page, len(h.Events))
					}
					if h.NextCursor == nil {
						break
					}
					cursor = []string{"cursor", *h.NextCursor}
					s.hold(t, fmt.Sprint("new ", limit, " ", page), "p", nil)
				}
				// Events that were added between the pages come first.
				if diff := cmp.Diff(want, got[len(got)-len(want):]); diff != "" {
					t.Error("events (-want +got):\n" + diff)
				}
				unique := slices.Compact(sorted(slices.Clone(got)))
				if len(unique) != len(got) {
					t.Errorf("%d events, %d different ones", len(got), len(unique))
				}
				if limit >= 14 && limit < 1000 {
					return
				}
				s.delete(t, "/locks/release-all", "process_id", "q").want(t, 200)
			})
		}
	})
}

// TestHistoryHasPagesByDefault: without a limit the response has at most 100 events.
func TestHistoryHasPagesByDefault(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireMany(t, numbered("r", 100), "p", "", 0)
		if got := s.history(t); len(got.Events) != 100 || got.NextCursor != nil {
			t.Errorf("of 100 events %d, next_cursor %v", len(got.Events), got.NextCursor)
		}
		s.hold(t, "newest", "p", nil)
		got := s.history(t)
		if len(got.Events) != 100 || got.NextCursor == nil || got.Events[0].ResourceName != "newest" {
			t.Fatalf("of 101 events %d, next_cursor %v, the first %+v", len(got.Events), got.NextCursor, got.Events[0])
		}
		if rest := s.history(t, "cursor", *got.NextCursor); len(rest.Events) != 1 || rest.NextCursor != nil {
			t.Errorf("the rest: %+v", rest)
		}
	})
}

// TestHistoryRetention deletes the oldest events, a few at a time, and nothing else.
func TestHistoryRetention(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "forced", "p", nil)
		s.forceRelease(t, "forced", "stuck").want(t, 200)
		s.hold(t, "released", "p", nil)
		s.release(t, "released", "p").want(t, 200)
		hold := s.hold(t, "r", "p", nil)
		s.clock.advance(time.Second)
		sweep := func(age time.Duration, limit, want int) {
			t.Helper()
			if got, err := s.locks.SweepEvents(t.Context(), age, limit); err != nil || got != want {
				t.Errorf("deleted %d, %v, want %d", got, err, want)
			}
		}
		sweep(time.Hour, 100, 0)
		s.renew(t, "forced", "p", 60, 0).wantCode(t, 404, wire.CodeForceReleased)
		sweep(0, 2, 2)
		if diff := cmp.Diff([]string{"acquired r p", "released released p", "acquired released p"},
			eventLines(s.history(t).Events)); diff != "" {
			t.Error("the newest stay (-want +got):\n" + diff)
		}
		sweep(0, 2, 2)
		sweep(0, 2, 1)
		sweep(0, 2, 0)
		if got := s.history(t).Events; len(got) > 0 {
			t.Errorf("left: %q", eventLines(got))
		}
		// The locks did not change. A deleted event makes a difference only in the code
		// of a refusal.
		if !s.validate(t, "r", hold.FencingToken).Valid {
			t.Error("the lock was deleted with its history")
		}
		s.renew(t, "forced", "p", 60, 0).wantCode(t, 404, wire.CodeNotHeld)
		s.release(t, "released", "p").wantCode(t, 404, wire.CodeNotHeld)
		s.release(t, "r", "p").want(t, 200)
		if diff := cmp.Diff([]string{"released r p"}, eventLines(s.history(t).Events)); diff != "" {
			t.Error("later events (-want +got):\n" + diff)
		}
	})
}

// TestHistoryOfATime: since is inclusive, until is exclusive, and both are in RFC 3339.
func TestHistoryOfATime(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for range 3 {
			s.hold(t, "a", "p", nil)
			s.clock.advance(time.Minute)
			s.release(t, "a", "p").want(t, 200)
			s.clock.advance(time.Microsecond)
			s.hold(t, "b", "q", nil)
			s.clock.advance(time.Second)
			s.forceRelease(t, "b", "stuck").want(t, 200)
			s.clock.advance(time.Microsecond)
		}
		events := s.history(t).Events
		const micros = "2006-01-02T15:04:05.000000Z07:00"
		at := func(i int, zone *time.Location) string { return time.Time(events[i].At).In(zone).Format(micros) }
		india := time.FixedZone("", 5*3600+1800)
		const start, end = "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"
		tests := []struct{ name, since, until string }{
			{"since an event", at(5, time.UTC), ""},
			{"until an event", "", at(5, time.UTC)},
			{"between two", at(8, time.UTC), at(3, time.UTC)},
			{"with an offset", at(8, india), at(3, india)},
			{"since a nanosecond behind an event", strings.Replace(at(5, time.UTC), "Z", "001Z", 1), ""},
			{"until a nanosecond behind an event", "", strings.Replace(at(5, time.UTC), "Z", "001Z", 1)},
			{"all that there may be", start, end},
			{"before all", "", start},
			{"after all", end, ""},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				want := slices.DeleteFunc(slices.Clone(events), func(e wire.Event) bool {
					since, sinceErr := time.Parse(time.RFC3339, test.since)
					until, untilErr := time.Parse(time.RFC3339, test.until)
					return sinceErr == nil && time.Time(e.At).Before(since) || untilErr == nil &&
						!time.Time(e.At).Before(until)
				})
				var query []string
				raw := "/locks/history?" // not encoded, so that a plus is a space
				for name, value := range map[string]string{"since": test.since, "until": test.until} {
					if value != "" {
						query = append(query, name, value)
						raw += name + "=" + value + "&"
					}
				}
				got := idsOf(s.history(t, query...).Events)
				if diff := cmp.Diff(idsOf(want), got); diff != "" {
					t.Error("events (-want +got):\n" + diff)
				}
				if diff := cmp.Diff(got, idsOf(dataOf[wire.History](t, s.call(t, "GET", raw, "")).Events)); diff != "" {
					t.Error("without percent-encoding (-encoded +raw):\n" + diff)
				}
			})
		}
	})
}

func idsOf(events []wire.Event) []int64 {
	ids := make([]int64, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return ids
}

// TestHistoryOfSomeEvents: kinds are a list and can be combined with all other filters.
func TestHistoryOfSomeEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		expired := s.acquireAndOutlive(t, "r", "p")
		s.clock.advance(time.Microsecond)
		s.hold(t, "other", "q", nil) // recorded before that expiry
		s.sweepExpired(t)
		s.hold(t, "r", "p", nil)
		s.release(t, "r", "p").want(t, 200)
		s.hold(t, "r", "q", nil)
		s.forceRelease(t, "r", "stuck").want(t, 200)
		tests := []struct {
			query []string
			want  []string
		}{
			{[]string{"event", "expired"}, []string{"expired r p"}},
			{[]string{"event", "force_released,expired"}, []string{"force_released r q", "expired r p"}},
			{[]string{"event", "expired,force_released,expired"}, []string{"force_released r q", "expired r p"}},
			{[]string{"event", "queued"}, []string{}},
			{
				[]string{"event", "acquired", "resource_name", "r"},
				[]string{"acquired r q", "acquired r p", "acquired r p"},
			},
			{[]string{"event", "acquired", "process_id", "q"}, []string{"acquired r q", "acquired other q"}},
			{[]string{"event", "released,expired", "process_id", "q"}, []string{}},
			// In the order of time an expiry is where it happened.
			{
				[]string{"event", "acquired,expired"},
				[]string{"acquired r q", "acquired r p", "acquired other q", "expired r p", "acquired r p"},
			},
			{
				[]string{"event", "acquired,expired", "since", time.Time(*expired.ExpiresAt).Format(time.RFC3339Nano)},
				[]string{"acquired r q", "acquired r p", "acquired other q", "expired r p"},
			},
		}
		for _, test := range tests {
			t.Run(strings.Join(test.query, " "), func(t *testing.T) {
				if diff := cmp.Diff(test.want, eventLines(s.history(t, test.query...).Events)); diff != "" {
					t.Error("events (-want +got):\n" + diff)
				}
				var got []string // one by one
				for cursor := []string{"limit", "1"}; ; {
					page := s.history(t, append(cursor, test.query...)...)
					got = append(got, eventLines(page.Events)...)
					if page.NextCursor == nil {
						break
					}
					cursor = []string{"limit", "1", "cursor", *page.NextCursor}
				}
				if diff := cmp.Diff(test.want, append([]string{}, got...)); diff != "" {
					t.Error("events by pages (-want +got):\n" + diff)
				}
			})
		}
		// In the order of ids it is where it was recorded.
		want := []string{"expired r p", "acquired other q", "acquired r p"}
		if got := eventLines(s.history(t).Events); !slices.Equal(want, got[len(got)-3:]) {
			t.Errorf("got %q, want %q at the end", got, want)
		}
	})
}
