package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

var lastConnection atomic.Int64

// waiting returns an acquire that may wait. The RequestID depends on the process only.
func waiting(resource, process string) lock.Acquire {
	return lock.Acquire{
		Request: lock.Request{
			Resource: resource, ProcessID: process, RequestID: "of " + process, Wait: time.Minute,
		},
		Connection: lastConnection.Add(1), MayQueue: true, QueueLimit: 1 << 20,
	}
}

// placeOf returns the place of an acquire that waits.
func placeOf(c lock.Acquire) lock.Place {
	return lock.Place{Resource: c.Resource, ProcessID: c.ProcessID, RequestID: c.RequestID}
}

// enqueue executes an acquire and fails the test unless it is queued.
func enqueue(tb testing.TB, s Store, c lock.Acquire) lock.Outcome {
	tb.Helper()
	out := execute(tb, s, c)
	if out.Hold.Token != 0 {
		tb.Fatalf("%s was granted %+v, want it queued", c.ProcessID, out.Hold)
	}
	return out
}

// queue returns the processes of the connected waiters of "r" in their order. It reads
// several pages.
func queue(tb testing.TB, s Store) []string {
	tb.Helper()
	var names []string
	for after, position := int64(0), 1; ; {
		page, err := s.Queue(context.Background(), "r", after, 7)
		if err != nil {
			tb.Fatal(err)
		}
		if len(page.Waiters) == 0 {
			return names
		}
		if page.Position != position {
			tb.Errorf("a page starts at the position %d, want %d", page.Position, position)
		}
		for _, w := range page.Waiters {
			if w.Ticket <= after {
				tb.Errorf("ticket %d comes after %d", w.Ticket, after)
			}
			names, after = append(names, w.Request.ProcessID), w.Ticket
			position++
		}
	}
}

// release executes a release and returns the grants of its transaction.
func release(tb testing.TB, s Store, resource, process string) []lock.Grant {
	tb.Helper()
	return execute(tb, s, lock.Release{Resource: resource, ProcessID: process}).Granted
}

// TestQueueIsServedInOrder tests that waiters are granted the resource in the order in
// which Queue returns them.
func TestQueueIsServedInOrder(t *testing.T, db Database) {
	const waiters = 120
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	var wg sync.WaitGroup
	for i := range waiters {
		wg.Go(func() {
			if _, err := s.Execute(context.Background(), waiting("r", fmt.Sprint("w", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := queue(t, s)
	if len(want) != waiters {
		t.Fatalf("%d requests wait, want %d", len(want), waiters)
	}
	var got []string
	for holder, token := "p", int64(0); len(got) < waiters; {
		granted := release(t, s, "r", holder)
		if len(granted) != 1 || granted[0].Hold.Token <= token || granted[0].ID == 0 {
			t.Fatalf("after %d grants, the release granted %+v, want one hold with a greater token", len(got), granted)
		}
		holder, token = granted[0].Hold.ProcessID, granted[0].Hold.Token
		got = append(got, holder)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-queue +granted):\n%s", diff)
	}
	if names := queue(t, s); len(names) != 0 {
		t.Errorf("still queued: %q", names)
	}
}

// TestWaiterSurvives tests that every field of a waiting request is stored and becomes
// part of its hold.
func TestWaiterSurvives(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	plain, full := waiting("r", "plain"), waiting("r", `p"'; --`)
	full.RequestID, full.TTL, full.MinHold = `日本 "'`, 90*time.Second+time.Microsecond, time.Microsecond
	full.Reason, full.Metadata = "why 🔒\u2028", `{"z":1.10,"a":{"b":[null,9007199254740993]}}`
	wants := map[string]lock.Acquire{plain.ProcessID: plain, full.ProcessID: full}
	since := map[string]time.Time{}
	for _, c := range []lock.Acquire{plain, full} {
		since[c.ProcessID] = enqueue(t, s, c).Now
	}

	page, err := s.Queue(t.Context(), "r", 0, 10)
	if err != nil || len(page.Waiters) != 2 || page.Position != 1 || page.At.Before(since[full.ProcessID]) {
		t.Fatalf("got the queue %+v, %v, want both waiters", page, err)
	}
	stored := cmp.Options{ // ignores the fields that are not stored
		cmpopts.IgnoreFields(lock.Request{}, "Wait"), cmpopts.IgnoreFields(lock.Acquire{}, "MayQueue", "QueueLimit"),
		cmpopts.IgnoreFields(lock.Waiter{}, "AliveUntil"),
	}
	for i, c := range []lock.Acquire{plain, full} {
		want := &lock.Waiter{
			Ticket: page.Waiters[i].Ticket, Request: c.Request, Connection: c.Connection,
			Since: since[c.ProcessID], Local: true,
		}
		if diff := cmp.Diff(want, page.Waiters[i], stored); diff != "" {
			t.Errorf("waiter (-want +got):\n%s", diff)
		}
	}
	for holder := "p"; len(wants) > 0; {
		granted := release(t, s, "r", holder)
		if len(granted) != 1 {
			t.Fatalf("granted %+v, want one grant", granted)
		}
		g := granted[0]
		c, expected := wants[g.Hold.ProcessID]
		if !expected {
			t.Fatalf("granted %+v, which does not wait", g)
		}
		if diff := cmp.Diff(c, g.To, stored); diff != "" {
			t.Errorf("request (-executed +granted):\n%s", diff)
		}
		want := lock.Hold{
			ProcessID: c.ProcessID, Token: g.Hold.Token, LockedAt: g.Now, QueuedAt: since[c.ProcessID],
			Connection: c.Connection, RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
		}
		if c.TTL > 0 {
			want.ExpiresAt, want.MinHoldUntil = g.Now.Add(c.TTL), g.Now.Add(c.MinHold)
		}
		if diff := cmp.Diff(want, g.Hold); diff != "" {
			t.Errorf("hold (-want +got):\n%s", diff)
		}
		found, err := s.Find(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]lock.Hold{g.Hold}, found.Resource.Holds); diff != "" {
			t.Errorf("stored hold (-granted +stored):\n%s", diff)
		}
		delete(wants, c.ProcessID)
		holder = c.ProcessID
	}
}

// TestWaitingOnThisServer tests that Waiting returns the requests that wait on the
// server, and whether their resources are free.
func TestWaitingOnThisServer(t *testing.T, db Database) {
	s := db.open(t)
	requests := map[string]lock.Acquire{}
	for _, name := range []string{"held", "expired", "detached", "granted"} {
		ttl := time.Duration(0)
		if name == "expired" {
			ttl = 300 * time.Millisecond
		}
		acquire(t, s, name, "p", ttl)
		requests[name] = waiting(name, "w")
		enqueue(t, s, requests[name])
	}
	execute(t, s, lock.Disconnect{Of: requests["detached"], Why: lock.ClientGone, Keep: time.Hour})
	release(t, s, "granted", "p")
	read := func(onlyFree bool) map[string]service.Waiting {
		t.Helper()
		waiting, err := s.Waiting(t.Context(), onlyFree)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]service.Waiting{}
		for _, w := range waiting {
			found[w.Place.Resource] = w
		}
		return found
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(read(true)) == 0 { // the hold has not expired yet
		<-tick.C
	}
	want := map[string]service.Waiting{
		"expired": {Place: placeOf(requests["expired"]), Connection: requests["expired"].Connection, Free: true},
		"held":    {Place: placeOf(requests["held"]), Connection: requests["held"].Connection},
	}
	if diff := cmp.Diff(want, read(false)); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	delete(want, "held")
	if diff := cmp.Diff(want, read(true)); diff != "" {
		t.Errorf("waiting for free resources (-want +got):\n%s", diff)
	}
}

// TestPlaceIsKept tests that a retry finds its kept place until KeepPlace has passed.
// Then the place is abandoned.
func TestPlaceIsKept(t *testing.T, db Database) {
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	first, second, third := waiting("r", "a"), waiting("r", "b"), waiting("r", "c")
	ticket := enqueue(t, s, first).Ticket
	enqueue(t, s, second)
	enqueue(t, s, third)
	execute(t, s, lock.Disconnect{Of: first, Why: lock.ClientGone, Keep: time.Hour})
	execute(t, s, lock.Disconnect{Of: second, Why: lock.ClientGone, Keep: time.Microsecond})
	found, err := s.Find(t.Context(), "r")
	if err != nil || found.Resource.Waiters != 1 || found.Resource.Detached != 2 {
		t.Errorf("%d connected and %d detached waiters, %v, want 1 and 2",
			found.Resource.Waiters, found.Resource.Detached, err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var places []lock.Place
	for len(places) == 0 {
		<-tick.C
		if places, err = s.AbandonedPlaces(t.Context(), time.Hour, 10); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]lock.Place{placeOf(second)}, places); diff != "" {
		t.Errorf("abandoned places (-want +got):\n%s", diff)
	}
	execute(t, s, lock.RemoveAbandoned{Places: places, Keep: time.Hour})
	retry := waiting("r", "a")
	if got := enqueue(t, s, retry).Ticket; got != ticket {
		t.Errorf("the retry has the ticket %d, want %d", got, ticket)
	}
	if diff := cmp.Diff([]string{"a", "c"}, queue(t, s)); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
}

// TestOneQueueForAllServers tests that there is one queue for all servers, and only the
// server of a waiter grants it the resource.
func TestOneQueueForAllServers(t *testing.T, db Database) {
	if !db.Shared {
		return
	}
	s := db.servers(t, 3)
	acquire(t, s[0], "r", "p", 0)
	var want []string
	for i := range 9 {
		process := fmt.Sprint("w", i)
		enqueue(t, s[i%3], waiting("r", process))
		want = append(want, process)
	}
	for i := range s {
		if diff := cmp.Diff(want, queue(t, s[i])); diff != "" {
			t.Errorf("queue on server %d (-want +got):\n%s", i, diff)
		}
	}
	holder := "p"
	for i := range 9 {
		if granted := release(t, s[(i+1)%3], "r", holder); len(granted) != 0 {
			t.Errorf("a server granted the resource to a waiter of another one: %+v", granted)
		}
		var held *lock.HeldError
		newcomer := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "newcomer"}}
		_, err := s[(i+1)%3].Execute(t.Context(), newcomer)
		if !errors.As(err, &held) || held.Next != want[i] || held.Holder != nil {
			t.Errorf("acquire of a reserved resource: got %v, want a HeldError", err)
		}
		granted := execute(t, s[i%3], lock.ExpireAndGrant{Names: []string{"r"}}).Granted
		if len(granted) != 1 || granted[0].Hold.ProcessID != want[i] {
			t.Fatalf("granted %+v, want %s", granted, want[i])
		}
		holder = want[i]
	}
}

// TestObserverSeesEveryCommit tests that the observer is called for every transaction
// that changed something or read a resource with waiters, before Execute returns.
func TestObserverSeesEveryCommit(t *testing.T, db Database) {
	var commits []service.Commit
	s := db.observed(t, func(c service.Commit) { commits = append(commits, c) })
	last := func(step string, n int) service.Commit { // the n-th commit, if there are n
		t.Helper()
		if len(commits) != n {
			t.Fatalf("%s: %d commits so far, want %d", step, len(commits), n)
		}
		return commits[n-1]
	}
	out := acquire(t, s, "r", "p", time.Hour)
	c := last("acquired", 1)
	if diff := cmp.Diff(out.Events, c.Events, cmpopts.IgnoreFields(lock.Event{}, "ID")); diff != "" {
		t.Errorf("events (-outcome +commit):\n%s", diff)
	}
	if !c.Now.Equal(out.Now) || c.ReadAt.IsZero() || c.Unknown ||
		len(c.Granted)+len(c.Contended)+len(c.Superseded) != 0 {
		t.Errorf("commit of a first acquire: %+v", c)
	}

	other := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "q"}}
	if _, err := s.Execute(t.Context(), other); err == nil {
		t.Error("a held resource was granted")
	}
	last("refused", 1)
	execute(t, s, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Hour})
	if c = last("renewed", 2); len(c.Events)+len(c.Contended) != 0 {
		t.Errorf("commit of a renewal: %+v", c)
	}

	first, second := waiting("r", "a"), waiting("r", "b")
	enqueue(t, s, first)
	enqueue(t, s, second)
	c = last("queued", 4)
	if len(c.Contended) != 1 || c.Contended[0].Waiters != 2 ||
		len(c.Events) != 1 || c.Events[0].Kind != lock.EventQueued {
		t.Errorf("commit of an acquire that was queued: %+v", c)
	}

	retry := waiting("r", "a")
	enqueue(t, s, retry)
	if c = last("retried", 5); !slices.Equal(c.Superseded, []int64{first.Connection}) {
		t.Errorf("superseded connections: got %v, want %d", c.Superseded, first.Connection)
	}

	if _, err := s.Execute(t.Context(), other); err == nil {
		t.Error("a held resource was granted")
	}
	if c = last("refused while others wait", 6); len(c.Contended) != 1 || len(c.Events) != 0 {
		t.Errorf("commit of a refusal: %+v", c)
	}

	granted := release(t, s, "r", "p")
	if diff := cmp.Diff(granted, last("released", 7).Granted); diff != "" {
		t.Errorf("grants (-outcome +commit):\n%s", diff)
	}
	execute(t, s, lock.Renew{Resource: "r", ProcessID: "a", TTL: time.Hour})
	if c = last("renewed while others wait", 8); len(c.Events) != 0 {
		t.Errorf("events of a renewal: got %+v, want none", c.Events)
	}
}

// TestClosedStoreRefuses tests that a closed store refuses commands. Close can be called
// again, and without Start.
func TestClosedStoreRefuses(t *testing.T, db Database) {
	if db.Shared {
		unstarted := db.Open(t)
		for range 2 {
			if err := unstarted.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	s := db.open(t)
	acquire(t, s, "r", "p", 0)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Execute(t.Context(), lock.Release{Resource: "r", ProcessID: "p"})
	if !errors.Is(err, service.ErrStopping) {
		t.Errorf("got %v, want %v", err, service.ErrStopping)
	}
}
