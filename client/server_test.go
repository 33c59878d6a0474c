package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/testdb"
)

// onServers runs a test with two servers of one Postgres database and a client of both,
// and again with one server of a SQLite database.
func onServers(t *testing.T, test func(t *testing.T, c *client.Client)) {
	t.Run("Postgres", func(t *testing.T) {
		t.Parallel()
		url := testdb.Postgres(t)
		test(t, newClient(t, serverOf(t, url)+","+serverOf(t, url)))
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, newClient(t, serverOf(t, "sqlite:///"+testdb.SQLite(t))))
	})
}

// serverOf starts a server of a database and returns its URL.
func serverOf(t *testing.T, database string) string {
	t.Helper()
	server, err := startServer(database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + server.Address()
}

func newClient(t *testing.T, urls string) *client.Client {
	t.Helper()
	c, err := client.New(urls, client.Options{ServerTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestOnServers(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, c *client.Client) {
		ctx := t.Context()
		const name = "deploy/wéb +1"
		first, err := c.Lock(ctx, name, client.LockOptions{Reason: "release 1.4", Metadata: map[string]int{"ci": 77}})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := first.Valid(ctx); !ok || err != nil {
			t.Errorf("Valid of a held lock returns %v, %v", ok, err)
		}
		var held *client.HeldError
		_, err = c.TryLock(ctx, name, client.LockOptions{})
		if !errors.As(err, &held) || held.Holder.Owner != first.Owner() {
			t.Fatalf("TryLock of a held resource returns %v", err)
		}

		second := make(chan *client.Lock, 1)
		go func() {
			l, err := c.Lock(ctx, name, client.LockOptions{Owner: "second"})
			if err != nil {
				t.Error(err)
			}
			second <- l
		}()
		var waiter client.Waiter
		for waiter.Owner == "" && ctx.Err() == nil {
			for w, err := range c.Queue(ctx, name, 0) {
				if waiter = w; err != nil {
					t.Fatal(err)
				}
			}
		}
		if waiter.Owner != "second" || waiter.Position != 1 || waiter.Since.IsZero() {
			t.Errorf("the waiter is %+v", waiter)
		}
		status, err := c.Status(ctx, name)
		if err != nil || status.Holder == nil || status.Waiters != 1 || status.Resource != name {
			t.Fatalf("status %+v, %v", status, err)
		}
		if h := status.Holder; h.Owner != first.Owner() || h.FencingToken != first.FencingToken() ||
			h.Reason != "release 1.4" || string(h.Metadata) != `{"ci":77}` || h.ExpiresIn <= 0 ||
			h.ExpiresAt.Sub(h.LockedAt) != time.Minute || !h.ReleasedAt.IsZero() {
			t.Errorf("the holder is %+v", h)
		}
		text, err := json.Marshal(status)
		if err != nil || !strings.Contains(string(text), `"locked_by":"`+first.Owner()) {
			t.Errorf("the status as JSON is %s, %v", text, err)
		}
		if err := first.Unlock(ctx); err != nil {
			t.Error(err)
		}
		l := <-second
		if l == nil || l.FencingToken() <= first.FencingToken() {
			t.Fatalf("the waiter got %+v", l)
		}
		if ok, err := c.Validate(ctx, name, first.FencingToken()); ok || err != nil {
			t.Errorf("Validate of an old token returns %v, %v", ok, err)
		}

		var listed []client.Hold
		for h, err := range c.Locks(ctx, client.ListOptions{Prefix: "deploy/", Owner: "second"}) {
			if listed = append(listed, h); err != nil {
				t.Fatal(err)
			}
		}
		if len(listed) != 1 || listed[0].Resource != name || listed[0].FencingToken != l.FencingToken() {
			t.Errorf("listed %+v", listed)
		}
		renewed, err := c.Renew(ctx, name, "second", 0, time.Hour)
		if err != nil || renewed.Renewals == 0 || renewed.ExpiresIn != time.Hour || renewed.FencingToken != l.FencingToken() {
			t.Errorf("renewed %+v, %v", renewed, err)
		}
		options := client.ForceReleaseOptions{Reason: "x", FencingToken: first.FencingToken()}
		if _, err := c.ForceRelease(ctx, name, options); err == nil {
			t.Error("a hold with another token was force-released")
		}
		options = client.ForceReleaseOptions{Reason: "runner died", By: "ops", FencingToken: l.FencingToken()}
		ended, err := c.ForceRelease(ctx, name, options)
		if err != nil || ended.Owner != "second" || ended.FencingToken != l.FencingToken() {
			t.Errorf("ForceRelease returns %+v, %v", ended, err)
		}
		var lost *client.LostError
		_, err = c.Renew(ctx, name, "second", l.FencingToken(), time.Hour)
		if !errors.As(err, &lost) || lost.Why != client.LossForceReleased {
			t.Errorf("Renew after a force-release returns %v", err)
		}
		if err := l.Unlock(ctx); !errors.As(err, &lost) || lost.Why != client.LossForceReleased {
			t.Errorf("Unlock after a force-release returns %v", err)
		}
		if err := c.Release(ctx, name, first.Owner(), first.FencingToken()); err != nil {
			t.Errorf("a second release returns %v", err)
		}

		var events []string
		for e, err := range c.History(ctx, client.HistoryOptions{Resource: name}) {
			if events = append(events, e.Event); err != nil {
				t.Fatal(err)
			}
			bad := false
			switch e.Event {
			case "force_released":
				bad = e.By != "ops" || e.Reason != "runner died" || e.Held <= 0 || e.FencingToken != l.FencingToken()
			case "granted":
				bad = e.Waited <= 0
			}
			if bad {
				t.Errorf("the history has the event %+v", e)
			}
		}
		if got := strings.Join(events, " "); got != "force_released granted released queued acquired" {
			t.Errorf("the history is %s", got)
		}
	})
}

// The work of several clients under locks of one resource never overlaps, and each hold
// has a higher token.
func TestExclusionOnServers(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, c *client.Client) {
		var (
			workers sync.WaitGroup
			mu      sync.Mutex
			working int
			tokens  []int64
		)
		for range 8 {
			workers.Go(func() {
				for range 5 {
					work := func(_ context.Context, l *client.Lock) error {
						mu.Lock()
						working++
						alone := working == 1
						tokens = append(tokens, l.FencingToken())
						mu.Unlock()
						defer func() {
							mu.Lock()
							working--
							mu.Unlock()
						}()
						if !alone {
							return errors.New("two clients work at the same time")
						}
						return nil
					}
					if err := c.Do(t.Context(), "counter", client.LockOptions{}, work); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		if len(tokens) != 40 {
			t.Errorf("%d holds, want 40", len(tokens))
		}
		for i := range tokens[1:] {
			if tokens[i+1] <= tokens[i] {
				t.Errorf("token %d after %d", tokens[i+1], tokens[i])
			}
		}
	})
}

// A wait that is canceled at any time leaves neither a hold nor a place in the queue.
func TestCanceledWaitsLeaveNothing(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, c *client.Client) {
		for i := range 30 {
			holder, err := c.Lock(t.Context(), "r", client.LockOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				l, err := c.Lock(ctx, "r", client.LockOptions{TTL: time.Hour})
				if l != nil {
					err = l.Unlock(t.Context())
				}
				ended <- err
			}()
			<-time.After(time.Duration(i) * 100 * time.Microsecond)
			if i%2 == 0 { // the cancellation races with the grant
				go cancel()
			}
			if err := holder.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("the wait ended with %v", err)
			}
		}
		last, err := c.Lock(t.Context(), "r", client.LockOptions{}) // fails after 30 s, long before an hour
		if err != nil {
			t.Fatal(err)
		}
		if err := last.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestServersOfTwoDatabases(t *testing.T) {
	t.Parallel()
	one, other := serverOf(t, "sqlite:///"+testdb.SQLite(t)), serverOf(t, testdb.Postgres(t))
	first, err := startServer("sqlite:///" + testdb.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, "http://"+first.Address()+","+one+","+other)
	if _, err := c.Status(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TryLock(t.Context(), "r", client.LockOptions{}); !errors.Is(err, client.ErrOtherDatabase) {
		t.Errorf("got %v", err)
	}
}

// ignoresDisconnect is a proxy that does not detect that its client has disconnected.
type ignoresDisconnect struct{ to *http.Transport }

// RoundTrip implements [http.RoundTripper].
func (p ignoresDisconnect) RoundTrip(r *http.Request) (*http.Response, error) {
	type result struct {
		res *http.Response
		err error
	}
	done := make(chan result, 1)
	go func() {
		res, err := p.to.RoundTrip(r.Clone(context.WithoutCancel(r.Context())))
		done <- result{res, err}
	}()
	select {
	case got := <-done:
		return got.res, got.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// The client supersedes a canceled request that still waits at the server. So the lock is
// not granted to a disconnected client.
func TestCanceledWaitBehindAProxy(t *testing.T) {
	t.Parallel()
	base := serverOf(t, "sqlite:///"+testdb.SQLite(t))
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(base, client.Options{HTTPClient: &http.Client{Transport: ignoresDisconnect{transport}}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Lock(t.Context(), "r", client.LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Lock(ctx, "r", client.LockOptions{Owner: "canceled", TTL: time.Hour})
		ended <- err
	}()
	for waiting := false; !waiting; {
		for w, err := range c.Queue(t.Context(), "r", 0) {
			if err != nil {
				t.Fatal(err)
			}
			waiting = w.Owner == "canceled"
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the wait ended with %v", err)
	}
	if err := first.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, err := c.Lock(t.Context(), "r", client.LockOptions{}) // granted after all earlier waiters
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	for e, err := range c.History(t.Context(), client.HistoryOptions{Resource: "r", Owner: "canceled"}) {
		if err != nil || e.Event == "granted" {
			t.Errorf("the canceled request has the event %+v, %v", e, err)
		}
	}
}
