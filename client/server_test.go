package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/testdb"
)

// onServers runs a test with two real servers of one database, and a client of both.
func onServers(t *testing.T, test func(t *testing.T, c *client.Client)) {
	for name, database := range map[string]func(testing.TB) string{
		"Postgres": testdb.Postgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			test(t, newClient(t, serverOf(t, url)+","+serverOf(t, url)))
		})
	}
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, newClient(t, serverOf(t, "sqlite:///"+testdb.SQLite(t))))
	})
}

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
		first, err := c.Lock(ctx, "deploy/wéb +1", client.LockOptions{Reason: "release 1.4", Metadata: map[string]int{"ci": 77}})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := first.Valid(ctx); !ok || err != nil {
			t.Errorf("a lock that is held: %v, %v", ok, err)
		}
		var held *client.HeldError
		if _, err := c.TryLock(ctx, "deploy/wéb +1", client.LockOptions{}); !errors.As(err, &held) || held.Holder.Owner != first.Owner() {
			t.Fatalf("another one got %v", err)
		}

		second := make(chan *client.Lock, 1)
		go func() {
			l, err := c.Lock(ctx, "deploy/wéb +1", client.LockOptions{Owner: "second"})
			if err != nil {
				t.Error(err)
			}
			second <- l
		}()
		var waiter client.Waiter
		for waiter.Owner == "" && ctx.Err() == nil {
			for w, err := range c.Queue(ctx, "deploy/wéb +1", 0) {
				if waiter = w; err != nil {
					t.Fatal(err)
				}
			}
		}
		if waiter.Owner != "second" || waiter.Position != 1 || waiter.Since.IsZero() {
			t.Errorf("waits: %+v", waiter)
		}
		status, err := c.Status(ctx, "deploy/wéb +1")
		if err != nil || status.Holder == nil || status.Waiters != 1 || status.Resource != "deploy/wéb +1" {
			t.Fatalf("status %+v, %v", status, err)
		}
		if h := status.Holder; h.Owner != first.Owner() || h.FencingToken != first.FencingToken() || h.Reason != "release 1.4" ||
			string(h.Metadata) != `{"ci":77}` || h.ExpiresIn <= 0 || h.ExpiresAt.Sub(h.LockedAt) != time.Minute || !h.ReleasedAt.IsZero() {
			t.Errorf("held: %+v", h)
		}
		if text, err := json.Marshal(status); err != nil || !strings.Contains(string(text), `"locked_by":"`+first.Owner()) {
			t.Errorf("as JSON: %s, %v", text, err)
		}
		if err := first.Unlock(ctx); err != nil {
			t.Error(err)
		}
		l := <-second
		if l == nil || l.FencingToken() <= first.FencingToken() {
			t.Fatalf("then granted: %+v", l)
		}
		if ok, err := c.Validate(ctx, "deploy/wéb +1", first.FencingToken()); ok || err != nil {
			t.Errorf("a token of before: %v, %v", ok, err)
		}

		var listed []client.Hold
		for h, err := range c.Locks(ctx, client.ListOptions{Prefix: "deploy/", Owner: "second"}) {
			if listed = append(listed, h); err != nil {
				t.Fatal(err)
			}
		}
		if len(listed) != 1 || listed[0].Resource != "deploy/wéb +1" || listed[0].FencingToken != l.FencingToken() {
			t.Errorf("listed %+v", listed)
		}
		renewed, err := c.Renew(ctx, "deploy/wéb +1", "second", 0, time.Hour)
		if err != nil || renewed.Renewals == 0 || renewed.ExpiresIn != time.Hour || renewed.FencingToken != l.FencingToken() {
			t.Errorf("renewed %+v, %v", renewed, err)
		}
		if _, err := c.ForceRelease(ctx, "deploy/wéb +1", client.ForceReleaseOptions{Reason: "x", FencingToken: first.FencingToken()}); err == nil {
			t.Error("the hold of another token was broken")
		}
		broken, err := c.ForceRelease(ctx, "deploy/wéb +1", client.ForceReleaseOptions{Reason: "runner died", By: "ops", FencingToken: l.FencingToken()})
		if err != nil || broken.Owner != "second" || broken.FencingToken != l.FencingToken() {
			t.Errorf("broke %+v, %v", broken, err)
		}
		var lost *client.LostError
		if _, err := c.Renew(ctx, "deploy/wéb +1", "second", l.FencingToken(), time.Hour); !errors.As(err, &lost) || lost.Why != client.LossForceReleased {
			t.Errorf("a renewal after that: %v", err)
		}
		if err := l.Unlock(ctx); !errors.As(err, &lost) || lost.Why != client.LossForceReleased {
			t.Errorf("a release after that: %v", err)
		}
		if err := c.Release(ctx, "deploy/wéb +1", first.Owner(), first.FencingToken()); err != nil {
			t.Errorf("a release of what was released: %v", err)
		}

		var events []string
		for e, err := range c.History(ctx, client.HistoryOptions{Resource: "deploy/wéb +1"}) {
			if events = append(events, e.Event); err != nil {
				t.Fatal(err)
			}
			if e.Event == "force_released" && (e.By != "ops" || e.Reason != "runner died" || e.Held <= 0 || e.FencingToken != l.FencingToken()) {
				t.Errorf("in the history: %+v", e)
			}
			if e.Event == "granted" && e.Waited <= 0 {
				t.Errorf("in the history: %+v", e)
			}
		}
		if got := strings.Join(events, " "); got != "force_released granted released queued acquired" {
			t.Errorf("the history is %s", got)
		}
	})
}

// TestExclusionOnServers: what the clients of one resource do under their locks never
// overlaps, and each hold has a higher token.
func TestExclusionOnServers(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, c *client.Client) {
		var (
			workers sync.WaitGroup
			mu      sync.Mutex
			inside  int
			tokens  []int64
		)
		for range 8 {
			workers.Go(func() {
				for range 5 {
					err := c.Do(t.Context(), "counter", client.LockOptions{}, func(_ context.Context, l *client.Lock) error {
						mu.Lock()
						inside++
						alone := inside == 1
						tokens = append(tokens, l.FencingToken())
						mu.Unlock()
						defer func() {
							mu.Lock()
							inside--
							mu.Unlock()
						}()
						if !alone {
							return errors.New("not alone")
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		if len(tokens) != 40 {
			t.Errorf("%d turns", len(tokens))
		}
		for i := range tokens[1:] {
			if tokens[i+1] <= tokens[i] {
				t.Errorf("token %d after %d", tokens[i+1], tokens[i])
			}
		}
	})
}

// TestCanceledWaitsLeaveNothing, whenever they are canceled.
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
			if i%2 == 0 { // the grant and the end of the wait cross
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
		last, err := c.Lock(t.Context(), "r", client.LockOptions{}) // within the patience of the test, not after an hour
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
