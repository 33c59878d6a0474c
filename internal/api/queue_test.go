package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestQueue: the response has the waiters in the order in which they will be served, with
// the reason and the start of each wait.
func TestQueue(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		s.hold(t, "other", "p", nil)
		s.wait(t, "r", "z", fields{"reason": "nightly backup <b>", "metadata": fields{"host": "db-1"}})
		s.wait(t, "other", "elsewhere", nil)
		s.clock.advance(1500 * time.Millisecond)
		s.wait(t, "r", "a", nil)
		s.clock.advance(10 * time.Second)
		s.wait(t, "r", "m", fields{"metadata": fields{}, "request_id": "run"})

		a := s.get(t, "/locks/queue", "resource_name", "r")
		wantMessage(t, a, "Retrieved 3 waiters of resource 'r'")
		got := dataOf[wire.Queue](t, a)
		want := wire.Queue{ResourceName: "r", Waiters: []wire.Waiter{
			{
				Position: 1, ProcessID: "z", WaitedSeconds: 11.5, Reason: new("nightly backup <b>"),
				Metadata: []byte(`{"host":"db-1"}`),
			},
			{Position: 2, ProcessID: "a", WaitedSeconds: 10},
			{Position: 3, ProcessID: "m", Metadata: []byte(`{}`)},
		}}
		for i := range want.Waiters {
			want.Waiters[i].WaitingSince = got.Waiters[i].WaitingSince
		}
		if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
			t.Error("queue (-want +got):\n" + diff)
		}
		for i, since := range []time.Duration{0, 1500 * time.Millisecond, 11500 * time.Millisecond} {
			at := time.Time(got.Waiters[i].WaitingSince)
			if s.driver == store.SQLite && !at.Equal(start.Add(since)) {
				t.Errorf("waiter %d waits since %v, want %v after %v", i, at, since, start)
			}
			if i > 0 && at.Before(time.Time(got.Waiters[i-1].WaitingSince)) {
				t.Errorf("waiter %d waits longer than the one before: %+v", i, got)
			}
		}
		if got := s.status(t, "r").Waiters; got != 3 {
			t.Errorf("status has %d waiters, want 3", got)
		}
	})
}

// TestEmptyQueue: the list is empty, whether or not the resource was ever locked.
func TestEmptyQueue(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "held", "p", nil)
		s.hold(t, "released", "p", nil)
		s.release(t, "released", "p").want(t, 200)
		for _, name := range []string{"held", "released", "never seen"} {
			want := fmt.Sprintf(`{"success":true,"message":"Retrieved 0 waiters of resource '%s'",`+
				`"data":{"resource_name":"%s","waiters":[],"next_cursor":null}}`, name, name)
			if got := compact(t, s.get(t, "/locks/queue", "resource_name", name).want(t, 200).body); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

// TestQueuePages: positions continue from page to page, also if the head of the queue has
// changed in between.
func TestQueuePages(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		names := numbered("w", 5)
		var waiting []*pending
		for _, name := range names {
			waiting = append(waiting, s.wait(t, "r", name, nil))
		}
		page := func(more ...string) (lines []string, next string) {
			got := s.queue(t, "r", more...)
			for _, w := range got.Waiters {
				lines = append(lines, fmt.Sprint(w.Position, " ", w.ProcessID))
			}
			if got.NextCursor != nil {
				next = *got.NextCursor
			}
			return lines, next
		}
		wantPage := func(wantNext bool, next string, got []string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" || (next != "") != wantNext {
				t.Errorf("next_cursor %q, and waiters (-want +got):\n%s", next, diff)
			}
		}
		for _, limit := range []string{"5", "6", "1000"} {
			got, next := page("limit", limit)
			wantPage(false, next, got, "1 w0000", "2 w0001", "3 w0002", "4 w0003", "5 w0004")
		}
		first, cursor := page("limit", "2")
		wantPage(true, cursor, first, "1 w0000", "2 w0001")
		second, last := page("limit", "2", "cursor", cursor)
		wantPage(true, last, second, "3 w0002", "4 w0003")
		third, end := page("limit", "2", "cursor", last)
		wantPage(false, end, third, "5 w0004")
		rest, end := page("cursor", cursor) // the default limit is greater than the rest
		wantPage(false, end, rest, "3 w0002", "4 w0003", "5 w0004")

		s.release(t, "r", "p").want(t, 200)
		waiting[0].granted(t)
		second, last = page("limit", "2", "cursor", cursor)
		wantPage(true, last, second, "2 w0002", "3 w0003")
		waiting[4].disconnect()
		s.wantWaiters(t, "r", names[1:4]...)
		third, end = page("limit", "2", "cursor", last)
		wantPage(false, end, third)
	})
}

// TestQueueIsNotEndless: without a limit a page has at most 100 waiters.
func TestQueueIsNotEndless(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.hold(t, "r", "p", nil)
	var last *pending
	for _, name := range numbered("w", 101) {
		last = s.ask(t, "r", name, nil)
	}
	s.eventually(t, "all wait", func() bool {
		last.stillWaits(t)
		return s.status(t, "r").Waiters == 101
	})
	got := s.queue(t, "r")
	if len(got.Waiters) != 100 || got.NextCursor == nil {
		t.Fatalf("a page of %d, next_cursor %v, want 100 and one", len(got.Waiters), got.NextCursor)
	}
	if rest := s.queue(t, "r", "cursor", *got.NextCursor); len(rest.Waiters) != 1 ||
		rest.Waiters[0].Position != 101 || rest.NextCursor != nil {
		t.Errorf("the next page: %+v", rest)
	}
}

// wantQueueFull fails the test unless the request is refused because the queue is full,
// and leaves nothing behind.
func (s *server) wantQueueFull(t *testing.T, resource, process string) {
	t.Helper()
	before := s.state(t)
	a := s.ask(t, resource, process, nil).answer(t)
	a.wantFailure(t, 503, wire.CodeQueueFull,
		"Too many requests wait already: there is no place left in the queue of resource '"+resource+"'")
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q, want 1", got)
	}
	if after := s.state(t); s.driver == store.SQLite && after != before {
		t.Errorf("a refusal changed %s\nto %s", before, after)
	}
}

// TestQueueOfAResourceIsFull tests MAX_WAITERS_PER_RESOURCE, which applies to each
// resource separately.
func TestQueueOfAResourceIsFull(t *testing.T) {
	onBothWithin(t, service.Config{MaxQueue: 2}, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		s.hold(t, "other", "p", nil)
		first := s.wait(t, "r", "a", fields{"request_id": "run"})
		second := s.wait(t, "r", "b", nil)
		s.wantQueueFull(t, "r", "c")
		s.wantWaiters(t, "r", "a", "b")
		s.acquire(t, "r", "c", nil).wantCode(t, 409, wire.CodeAlreadyLocked)
		s.wait(t, "other", "c", nil)
		if got := s.ask(t, "free", "c", nil).granted(t); got.WaitedSeconds != 0 {
			t.Errorf("got %+v", got)
		}

		// A kept place counts, and its request finds it.
		first.disconnect()
		s.wantWaiters(t, "r", "b")
		s.wantQueueFull(t, "r", "c")
		first = s.ask(t, "r", "a", fields{"request_id": "run"})
		s.wantWaiters(t, "r", "a", "b")

		second.disconnect()
		s.wantWaiters(t, "r", "a")
		s.wait(t, "r", "c", nil)
		s.release(t, "r", "p").want(t, 200)
		first.granted(t)
		s.wait(t, "r", "d", nil)
		s.wantQueueFull(t, "r", "e")
	})
}

// TestServerIsFull tests MAX_WAITERS, which applies to all resources together, and only
// to requests that wait.
func TestServerIsFull(t *testing.T) {
	onBothWithin(t, service.Config{MaxWaiters: 2}, func(t *testing.T, s *server) {
		for _, name := range []string{"r", "other", "third"} {
			s.hold(t, name, "p", nil)
		}
		first := s.wait(t, "r", "a", nil)
		s.wait(t, "other", "b", nil)
		for _, name := range []string{"r", "other", "third"} {
			s.wantQueueFull(t, name, "c")
			s.acquire(t, name, "c", nil).wantCode(t, 409, wire.CodeAlreadyLocked)
		}
		if got := s.ask(t, "free", "c", nil).granted(t); got.WaitedSeconds != 0 {
			t.Errorf("got %+v", got)
		}
		s.release(t, "r", "p").want(t, 200)
		first.granted(t)
		s.wait(t, "third", "c", nil)
		s.wantQueueFull(t, "other", "d")
	})
}

// TestHistoryOfWaiting: the begin and the end of each wait are recorded. Only holds have
// a token.
func TestHistoryOfWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := s.hold(t, "r", "p", nil)
		waiting := s.wait(t, "r", "q", fields{"reason": "nightly backup", "metadata": fields{"a": 1}})
		since := s.queue(t, "r").Waiters[0].WaitingSince
		s.clock.advance(time.Minute)
		gone := s.wait(t, "r", "gone", fields{"reason": "why it wanted it"})
		goneSince := s.queue(t, "r").Waiters[1].WaitingSince
		s.clock.advance(1500 * time.Millisecond)
		gone.disconnect()
		s.wantWaiters(t, "r", "q")
		s.ask(t, "r", "late", fields{"wait_seconds": 0.01}).answer(t).want(t, 409)
		s.release(t, "r", "p").want(t, 200)
		granted := waiting.granted(t)
		s.release(t, "r", "q").want(t, 200)

		seconds := func(from, to wire.Time) *float64 { return new(time.Time(to).Sub(time.Time(from)).Seconds()) }
		got := s.history(t, "resource_name", "r").Events
		if len(got) != 9 {
			t.Fatalf("got %q", eventLines(got))
		}
		want := []wire.Event{
			{
				Event: "released", ProcessID: "q", FencingToken: &granted.FencingToken,
				HeldSeconds: seconds(granted.LockedAt, got[0].At), Renewals: new(0), HoldReason: new("nightly backup"),
			},
			{
				Event: "granted", At: granted.LockedAt, ProcessID: "q", FencingToken: &granted.FencingToken,
				WaitedSeconds: &granted.WaitedSeconds, Reason: new("nightly backup"),
			},
			{
				Event: "released", ProcessID: "p", FencingToken: &hold.FencingToken,
				HeldSeconds: seconds(hold.LockedAt, got[2].At), Renewals: new(0),
			},
			{
				Event: "gave_up", ProcessID: "late", WaitedSeconds: seconds(got[4].At, got[3].At),
				Reason: new(string(wire.ReasonWaitTimeout)),
			},
			{Event: "queued", ProcessID: "late"},
			{
				Event: "gave_up", ProcessID: "gone", WaitedSeconds: seconds(goneSince, got[5].At),
				Reason: new(string(wire.ReasonClientGone)),
			},
			{Event: "queued", At: goneSince, ProcessID: "gone", Reason: new("why it wanted it")},
			{Event: "queued", At: since, ProcessID: "q", Reason: new("nightly backup")},
			{Event: "acquired", At: hold.LockedAt, ProcessID: "p", FencingToken: &hold.FencingToken},
		}
		for i := range want {
			want[i].ID, want[i].ResourceName = got[i].ID, "r"
			if (want[i].At == wire.Time{}) {
				want[i].At = got[i].At
			}
		}
		if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
		if s.driver == store.SQLite && (granted.WaitedSeconds != 61.5 || *got[5].WaitedSeconds != 1.5) {
			t.Errorf("waited for %v and %v seconds, want 61.5 and 1.5", granted.WaitedSeconds, *got[5].WaitedSeconds)
		}
		if events := s.history(t, "process_id", "gone").Events; len(events) != 2 {
			t.Errorf("events of the process that gave up: %q", eventLines(events))
		}
	})
}
