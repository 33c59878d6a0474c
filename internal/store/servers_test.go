package store_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// idOf returns the id of a server in lock_servers.
func idOf(t *testing.T, s *store.Store) int {
	t.Helper()
	text, found := strings.CutPrefix(s.Channel(), "lockd_")
	id, err := strconv.Atoi(text)
	if !found || err != nil {
		t.Fatalf("the channel %q has no id", s.Channel())
	}
	return id
}

// listen returns a function that returns the payloads that were sent on the channel of a
// server since the last call.
func listen(t *testing.T, cfg store.Config, s *store.Store) func() []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cfg.Source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "LISTEN "+s.Channel()); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		t.Helper()
		// Notifications arrive in the order of the commits, so all earlier ones arrive
		// before this one.
		if _, err := conn.Exec(t.Context(), "SELECT pg_notify($1, 'mark')", s.Channel()); err != nil {
			t.Fatal(err)
		}
		payloads := []string{}
		for {
			n, err := conn.WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Payload == "mark" {
				return payloads
			}
			payloads = append(payloads, n.Payload)
		}
	}
}

// There is one queue, whichever servers the waiters are connected to. Only its own server
// grants a waiter the resource, and is notified.
func TestOneQueueForAllServers(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	a, b := open(t, cfg), open(t, cfg)
	if a.Channel() == b.Channel() {
		t.Fatalf("two servers on the channel %s", a.Channel())
	}
	atA, atB := listen(t, cfg, a), listen(t, cfg, b)
	const resource = `r "'; -- 日本`
	execute(t, a, acquire(resource, "p"))
	enqueue(t, b, waiting(resource, "w1"))
	enqueue(t, a, waiting(resource, "w2"))
	enqueue(t, b, waiting(resource, "w3"))
	for _, s := range []*store.Store{a, b} {
		if diff := cmp.Diff([]string{"w1", "w2", "w3"}, processes(t, s, resource)); diff != "" {
			t.Errorf("queue (-want +got):\n%s", diff)
		}
	}
	if toA, toB := atA(), atB(); len(toA)+len(toB) != 0 {
		t.Errorf("notified %q and %q while it is held", toA, toB)
	}

	if granted := release(t, a, resource, "p"); len(granted) != 0 {
		t.Errorf("the other server granted %+v", granted)
	}
	if toA, toB := atA(), atB(); len(toA) != 0 || !cmp.Equal(toB, []string{resource}) {
		t.Errorf("notified %q and %q, want only the second server notified", toA, toB)
	}
	if out := execute(t, a, lock.ExpireAndGrant{Names: []string{resource}}); len(out.Granted)+len(out.Changed) != 0 {
		t.Errorf("the other server granted %+v", out)
	}
	// The resource is reserved: neither a new request nor a later waiter gets it.
	for _, s := range []*store.Store{a, b} {
		var held *lock.HeldError
		if _, err := s.Execute(t.Context(), acquire(resource, "new")); !errors.As(err, &held) || held.Next != "w1" {
			t.Errorf("a new request: %v", err)
		}
	}
	again := waiting(resource, "w2")
	if out := execute(t, a, again); out.Hold.Token != 0 {
		t.Errorf("the second was granted %+v", out.Hold)
	}
	out := execute(t, b, lock.ExpireAndGrant{Names: []string{resource}})
	if len(out.Granted) != 1 || out.Granted[0].Hold.ProcessID != "w1" {
		t.Fatalf("granted %s", asJSON(out.Granted))
	}

	atA()
	atB()
	if granted := release(t, b, resource, "w1"); len(granted) != 0 {
		t.Errorf("the other server granted %+v", granted)
	}
	if toA, toB := atA(), atB(); len(toB) != 0 || !cmp.Equal(toA, []string{resource}) {
		t.Errorf("notified %q and %q, want only the first server notified", toA, toB)
	}
	out = execute(t, a, lock.ExpireAndGrant{Names: []string{resource}})
	if len(out.Granted) != 1 || out.Granted[0].To.Connection != again.Connection {
		t.Errorf("granted %s", asJSON(out.Granted))
	}
	// If the next waiter is on the server that grants, no server is notified.
	release(t, a, resource, "w2")
	atA()
	atB()
	execute(t, b, lock.ExpireAndGrant{Names: []string{resource}})
	if toA, toB := atA(), atB(); len(toA)+len(toB) != 0 {
		t.Errorf("notified %q and %q when it was granted", toA, toB)
	}
}

// A place that is kept is kept on every server, and can be found from every server.
func TestDetachedWaiterIsSeenByAll(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	a, b := open(t, cfg), open(t, cfg)
	atB := listen(t, cfg, b)
	execute(t, a, acquire("r", "p"))
	first := waiting("r", "w1")
	enqueue(t, a, first)
	enqueue(t, a, waiting("r", "w2"))
	execute(t, a, lock.Disconnect{Of: first, Keep: time.Hour})
	if diff := cmp.Diff([]string{"w2"}, processes(t, b, "r")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	enqueue(t, b, waiting("r", "w1")) // it returns through another server
	if diff := cmp.Diff([]string{"w1", "w2"}, processes(t, a, "r")); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	// The old connection of the request is outdated.
	if _, err := a.Execute(t.Context(), lock.Disconnect{Of: first}); !errors.Is(err, lock.ErrNotWaiting) {
		t.Errorf("the old connection left the place of the new one: %v", err)
	}
	release(t, a, "r", "p")
	if got := atB(); !cmp.Equal(got, []string{"r"}) {
		t.Errorf("notified %q", got)
	}
	if out := execute(t, b, lock.ExpireAndGrant{Names: []string{"r"}}); len(out.Granted) != 1 ||
		out.Granted[0].Hold.ProcessID != "w1" {
		t.Errorf("granted %+v", out.Granted)
	}
}
