package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/testdb"
)

// TestTimeoutsOfTheTransport are failures like others, although the attempt's own time is
// not over.
func TestTimeoutsOfTheTransport(t *testing.T) {
	t.Parallel()
	dialer := &net.Dialer{Timeout: time.Nanosecond}
	c, err := client.New("http://127.0.0.1:1", client.Options{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}, ServerTimeout: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context(), "r"); !errors.Is(err, client.ErrUnavailable) || err.Error() == "" {
		t.Errorf("got %v", err)
	}
}

// waits is a queue that never moves, behind a proxy that answers a request after a while.
func waits(limit time.Duration, cut reply) func(sent) reply {
	return func(r sent) reply {
		seconds, _ := r.body["wait_seconds"].(float64)
		a := held("wait_timeout")
		if a.after = time.Duration(seconds * float64(time.Second)); a.after > limit {
			a = cut
			a.after = limit
		}
		return a
	}
}

// TestWaitsThatAreCut become shorter, and the server counts as there.
func TestWaitsThatAreCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timeout time.Duration // of the HTTPClient
		answer  func(sent) reply
	}{
		"by the HTTP client": {10 * time.Second, waits(time.Hour, reply{})},
		"by a proxy":         {0, waits(30*time.Second, reply{status: 504, body: "gateway timeout"})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _ := serve(t, url, client.Options{})
				s.on("/locks/request", test.answer)
				c, err := client.New(url, client.Options{
					HTTPClient: &http.Client{Transport: s, Timeout: test.timeout}, ServerTimeout: 30 * time.Second,
				})
				if err != nil {
					t.Fatal(err)
				}
				c.Inject(s.now, func() float64 { return 0.5 })
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				if _, err := c.Lock(ctx, "r", client.LockOptions{}); !errors.Is(err, client.ErrHeld) {
					t.Errorf("after %v: %v", s.now(), err)
				}
			})
		})
	}
}

// TestNothingHoldsDoneOpen when the time of a lock is over.
func TestNothingHoldsDoneOpen(t *testing.T) {
	t.Parallel()
	t.Run("the next server is silent", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, "http://a:1,http://b:1", client.Options{})
			s.answer = func(r sent) reply {
				switch {
				case r.host == "b:1":
					return reply{after: time.Hour}
				case r.at > 0:
					return reply{err: errRefused}
				}
				a := granted(7, 6*time.Second, "")
				a.header = map[string]string{"Lock-Database": "one"}
				return a
			}
			l := mustLock(t, c, client.LockOptions{TTL: 6 * time.Second})
			<-l.Done()
			if s.now() != 5*time.Second {
				t.Errorf("Done is closed after %v", s.now())
			}
		})
	})
	t.Run("the machine is suspended during a renewal", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, url, client.Options{})
			s.on("/locks/renew", func(sent) reply { return reply{after: time.Hour} })
			l := mustLock(t, c, client.LockOptions{TTL: time.Hour})
			after(20*time.Minute + time.Second)
			s.pause(2 * time.Hour)
			woke := s.now()
			<-l.Done()
			if late := s.now() - woke; late > time.Second {
				t.Errorf("Done is closed %v after the machine woke up", late)
			}
		})
	})
	t.Run("an observer blocks", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			released := make(chan struct{})
			s, c := serve(t, url, client.Options{Observer: client.Observer{Renewed: func(*client.Lock) { <-released }}})
			l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
			<-l.Done()
			if s.now() != 38500*time.Millisecond { // renewed at 10 s, less a margin of 1.5 s
				t.Errorf("Done is closed after %v", s.now())
			}
			close(released)
			if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) {
				t.Errorf("Unlock returns %v", err)
			}
		})
	})
}

// TestLockThatHasEndedStaysSo, although a renewal succeeds after that.
func TestLockThatHasEndedStaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		after(9900 * time.Millisecond)
		s.on("/locks/renew", func(sent) reply {
			a := granted(7, time.Minute, "")
			a.after = time.Second
			return a
		})
		after(500 * time.Millisecond) // the renewal is under way
		s.pause(time.Minute)
		if !errors.Is(l.Err(), client.ErrLost) {
			t.Errorf("Err is %v", l.Err())
		}
		after(5 * time.Second)
		if !errors.Is(l.Err(), client.ErrLost) {
			t.Errorf("then Err is %v", l.Err())
		}
	})
}

// TestPauseWithinTheGrace: a program that wakes up before the deadline renews at once.
func TestPauseWithinTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second, Grace: 10 * time.Second})
		after(9500 * time.Millisecond)
		s.pause(9500 * time.Millisecond) // 11 s are left, 9.5 s until the deadline
		after(time.Second)
		if l.Err() != nil || len(s.requests("/locks/renew")) != 1 {
			t.Errorf("%v after %d renewals", l.Err(), len(s.requests("/locks/renew")))
		}
		l.Abandon()
	})
}

// TestUnlockClosesDoneFirst: the server may release the lock long before its answer
// comes.
func TestUnlockClosesDoneFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply {
			a := success(`{}`)
			a.after = 5 * time.Second
			return a
		})
		l := mustLock(t, c, client.LockOptions{})
		released := make(chan error, 1)
		go func() { released <- l.Unlock(context.Background()) }()
		synctest.Wait()
		wantDone(t, l, true)
		if !errors.Is(l.Err(), client.ErrReleased) {
			t.Errorf("Err is %v", l.Err())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Unlock(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("a second Unlock meanwhile returns %v", err)
		}
		if err := <-released; err != nil {
			t.Error(err)
		}
	})
}

// TestUnlockIsAboutItsOwnLock: that the caller's context ended with another lock is not
// its loss.
func TestUnlockIsAboutItsOwnLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", inOrder(reply{after: time.Hour}, success(`{}`)))
		l := mustLock(t, c, client.LockOptions{})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(&client.LostError{Resource: "outer", FencingToken: 1, Why: client.LossExpired})
		if err := l.Unlock(ctx); err == nil || errors.Is(err, client.ErrLost) {
			t.Errorf("Unlock returns %v", err)
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Errorf("Unlock returns %v", err)
		}
	})
}

// TestAbandonedLockIsNotReleased by anything that follows.
func TestAbandonedLockIsNotReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		if err := c.Do(t.Context(), "r", client.LockOptions{}, func(_ context.Context, l *client.Lock) error {
			l.Abandon()
			return nil
		}); err != nil {
			t.Error(err)
		}
		l := mustLock(t, c, client.LockOptions{})
		l.Abandon()
		after(2 * time.Minute)
		if err := l.Unlock(context.Background()); err != nil || len(s.requests("/locks/release")) > 0 {
			t.Errorf("Unlock returns %v after %v", err, s.requests("/locks/release"))
		}
	})
}

func TestDoDoesNotHoldUpItsEnd(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]func(cancel func()){
		"ctx is canceled": func(cancel func()) { cancel() },
		"a panic":         func(func()) { panic("the work") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serve(t, url, client.Options{})
				s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				defer func() {
					if _ = recover(); s.now() != 5*time.Second {
						t.Errorf("it took %v", s.now())
					}
				}()
				_ = c.Do(ctx, "r", client.LockOptions{TTL: time.Hour}, func(context.Context, *client.Lock) error {
					work(cancel)
					return nil
				})
			})
		})
	}
}

// TestTTLShorterThanAnAnswer is an error, after some attempts with pauses.
func TestTTLShorterThanAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{ServerTimeout: 10 * time.Second})
		slowly := func(a reply) func(sent) reply {
			a.after = 5 * time.Millisecond
			return func(sent) reply { return a }
		}
		s.on("/locks/request", slowly(granted(7, time.Millisecond, "")))
		s.on("/locks/renew", slowly(refusal(404, "expired")))
		l, err := c.TryLock(t.Context(), "r", client.LockOptions{TTL: time.Millisecond})
		if l != nil || !errors.Is(err, client.ErrUnavailable) || s.now() > 11*time.Second || len(s.requests("")) > 50 {
			t.Errorf("%d requests in %v: %v", len(s.requests("")), s.now(), err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[string][2]time.Duration{
		"1":    {time.Second, time.Second + 100*time.Millisecond},
		"3600": {30 * time.Second, 30*time.Second + 100*time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			var second []time.Duration
			for _, jitter := range []float64{0.01, 0.99} { // two clients that are told the same
				s, c := serve(t, url, client.Options{})
				c.Inject(s.now, func() float64 { return jitter })
				busy := refusal(503, "shutting_down")
				busy.header = map[string]string{"Retry-After": seconds}
				s.on("/locks/request", inOrder(busy, granted(7, time.Minute, "")))
				mustLock(t, c, client.LockOptions{}).Abandon()
				second = append(second, s.requests("/locks/request")[1].at)
			}
			if second[0] < want[0] || second[1] > want[1] || second[1]-second[0] < 90*time.Millisecond {
				t.Errorf("Retry-After %s: repeated after %v", seconds, second)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{ServerTimeout: 10 * time.Second})
		s.answer = func(sent) reply { return reply{status: 503, header: map[string]string{"Retry-After": "3600"}} }
		if _, err := c.Status(t.Context(), "r"); !errors.Is(err, client.ErrUnavailable) || s.now() != 10*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// TestOneFailureDoesNotLeaveTheClientWithAnotherDatabase.
func TestOneFailureDoesNotLeaveTheClientWithAnotherDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, "http://a:1,http://b:1", client.Options{})
		s.answer = func(r sent) reply {
			if r.host == "a:1" && r.path == "/locks/renew" && r.at < 20*time.Second+time.Millisecond {
				return reply{err: errRefused} // the first renewal
			}
			a := granted(7, time.Minute, "")
			a.header = map[string]string{"Lock-Database": r.host}
			return a
		}
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		after(5 * time.Minute)
		if l.Err() != nil {
			t.Errorf("lost: %v", l.Err())
		}
		l.Abandon()
	})
}

func TestCausesOfContexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", waits(time.Hour, reply{}))
		why := errors.New("the build is over")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := c.Lock(ctx, "r", client.LockOptions{}); !errors.Is(err, client.ErrHeld) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		canceled, stop := context.WithCancelCause(t.Context())
		stop(why)
		if _, err := c.Lock(canceled, "r", client.LockOptions{}); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}

func TestListsCanBeReadTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/all-locked", func(r sent) reply {
			if r.query["cursor"] == nil {
				return success(`{"locks":[{"resource_name":"a"}],"next_cursor":"2"}`)
			}
			return success(`{"locks":[{"resource_name":"b"}],"next_cursor":null}`)
		})
		list := c.Locks(t.Context(), client.ListOptions{})
		var names []string
		for range 2 {
			for h, err := range list {
				if names = append(names, h.Resource); err != nil {
					t.Error(err)
				}
			}
		}
		if !slices.Equal(names, []string{"a", "b", "a", "b"}) {
			t.Errorf("got %v", names)
		}
	})
}

// TestRedirectsAreNotFollowed: a GET in the place of a POST locks nothing.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.answer = func(sent) reply {
			return reply{status: 301, header: map[string]string{"Location": "https://a:1/"}, body: "Moved Permanently"}
		}
		var api *client.APIError
		if _, err := c.Lock(t.Context(), "r", client.LockOptions{}); !errors.As(err, &api) || api.Status != 301 || len(s.requests("")) > 2 {
			t.Errorf("got %v after %v", err, s.requests(""))
		}
	})
}

// TestConfirmationsAreTheServices: a page of somebody else confirms nothing, and what was executed
// meanwhile is no loss.
func TestConfirmationsAreTheServices(t *testing.T) {
	t.Parallel()
	page := reply{body: "<html>Log in to the wireless network</html>"}
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return granted(7, time.Minute, `,"waited_seconds":12`) })
		s.on("/locks/renew", func(sent) reply { return page })
		var api *client.APIError
		if l, err := c.Lock(t.Context(), "r", client.LockOptions{}); l != nil || !errors.As(err, &api) {
			t.Errorf("got %v, %v", l, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", inOrder(page, refusal(404, "already_released")))
		l := mustLock(t, c, client.LockOptions{})
		if first, second := l.Unlock(t.Context()), l.Unlock(t.Context()); first == nil || second != nil {
			t.Errorf("Unlock returns %v, then %v", first, second)
		}
	})
}

// TestOutagesWithinServerTimeoutAreBorne, whenever they begin.
func TestOutagesWithinServerTimeoutAreBorne(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{5 * time.Second, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, url, client.Options{ServerTimeout: timeout})
			s.on("/locks/request", func(r sent) reply {
				switch {
				case r.at < 20*time.Second: // it is stopped while the request waits
					a := refusal(503, "shutting_down")
					a.after = 20 * time.Second
					return a
				case r.at < 20*time.Second+timeout*4/5:
					return reply{err: errRefused}
				}
				return granted(7, time.Minute, "")
			})
			mustLock(t, c, client.LockOptions{}).Abandon()
		})
	}
	synctest.Test(t, func(t *testing.T) { // the confirmation has no time of its own
		s, c := serve(t, url, client.Options{ServerTimeout: 30 * time.Second})
		s.on("/locks/request", inOrder(granted(7, time.Hour, `,"waited_seconds":12`), reply{err: errRefused}))
		s.on("/locks/renew", func(sent) reply { return reply{err: errRefused} })
		if _, err := c.Lock(t.Context(), "r", client.LockOptions{TTL: time.Hour}); !errors.Is(err, client.ErrUnavailable) || s.now() > 32*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
	for _, timeout := range []time.Duration{5 * time.Second, 11 * time.Second} { // a silent server leaves time for the next
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, "http://a:1,http://b:1", client.Options{ServerTimeout: timeout})
			s.on("/locks/status", func(r sent) reply {
				if r.host == "a:1" {
					return reply{after: time.Hour}
				}
				return success(`{"resource_name":"r","is_locked":false}`)
			})
			if _, err := c.Status(t.Context(), "r"); err != nil || s.now() >= timeout {
				t.Errorf("after %v: %v", s.now(), err)
			}
			s.on("/locks/status", func(sent) reply { return reply{after: time.Hour} })
			began := s.now()
			if _, err := c.Status(t.Context(), "r"); !errors.Is(err, client.ErrUnavailable) || s.now()-began > timeout+time.Second {
				t.Errorf("after %v: %v", s.now()-began, err)
			}
		})
	}
}

// TestSilentServerIsNoCancellation: the error says what has happened, over each version of HTTP.
func TestSilentServerIsNoCancellation(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		ends := make(chan struct{})
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-ends:
			}
		}))
		s.EnableHTTP2 = http2
		s.StartTLS()
		c, err := client.New(s.URL, client.Options{HTTPClient: s.Client()})
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func(context.Context) error{
			"Lock":   func(ctx context.Context) error { _, err := c.Lock(ctx, "r", client.LockOptions{}); return err },
			"Status": func(ctx context.Context) error { _, err := c.Status(ctx, "r"); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			err := call(ctx)
			cancel()
			if errors.Is(err, context.Canceled) || !errors.Is(err, context.DeadlineExceeded) ||
				!errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("HTTP/2 %v, %s: %v", http2, name, err)
			}
		}
		close(ends)
		s.CloseClientConnections()
		s.Close()
	}
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Unlock(ctx); errors.Is(err, context.Canceled) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Unlock returns %v", err)
		}
	})
}

// overdue is a context whose deadline has passed in a suspend, in which its timer stood still.
type overdue struct{ context.Context }

func (overdue) Deadline() (time.Time, bool) { return time.Now().Add(-time.Hour), true }

func TestDeadlineThatPassedInASuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return held("already_locked") })
		if _, err := c.Lock(overdue{t.Context()}, "r", client.LockOptions{}); !errors.Is(err, context.DeadlineExceeded) || s.now() > time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// TestUnlockOfALockThatIsJustLost returns the loss, also when another goroutine notices it first.
func TestUnlockOfALockThatIsJustLost(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, url, client.Options{})
	for i := range 100 {
		observed := make(chan string, 10)
		c, err := client.New(url, client.Options{HTTPClient: &http.Client{Transport: s}, Observer: client.Observer{
			Lost:     func(*client.Lock, *client.LostError) { observed <- "lost" },
			Released: func(*client.Lock, time.Duration) { observed <- "released" },
		}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.Inject(func() time.Duration { return time.Since(began) }, func() float64 { return 0.5 })
		l, err := c.TryLock(t.Context(), "r", client.LockOptions{TTL: 24 * time.Millisecond, NoRenew: true})
		if err != nil { // this machine is slow
			continue
		}
		var looking sync.WaitGroup
		for range 3 {
			looking.Go(func() {
				for l.Err() == nil {
					runtime.Gosched()
				}
			})
		}
		<-time.After(time.Until(l.Deadline()) - time.Duration(i)*5*time.Microsecond)
		err = l.Unlock(t.Context())
		looking.Wait()
		first := <-observed
		if lost := errors.Is(err, client.ErrLost); lost != errors.Is(l.Err(), client.ErrLost) || lost != (first == "lost") || len(observed) > 0 {
			t.Fatalf("Err is %v, Unlock returns %v; observed first that it was %s, and %d more", l.Err(), err, first, len(observed))
		}
	}
}

// TestUnlockSettles when the lock has expired without a confirmation.
func TestUnlockSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		first := l.Unlock(t.Context())
		sent := len(s.requests("/locks/release"))
		for range 2 {
			after(time.Second)
			if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrUnavailable) || err.Error() != first.Error() || len(s.requests("/locks/release")) != sent {
				t.Errorf("Unlock returns %v, then %v", first, err)
			}
		}
	})
}

// TestForceReleaseAsksTheNextServer, but only while nothing can have been executed.
func TestForceReleaseAsksTheNextServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, "http://a:1,http://b:1", client.Options{})
		s.on("/locks/force-release", func(r sent) reply {
			if r.host == "a:1" {
				return reply{err: &net.OpError{Op: "dial", Err: errRefused}}
			}
			return success(`{"holder":{"process_id":"p","fencing_token":7}}`)
		})
		if hold, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "x"}); err != nil || hold.Owner != "p" {
			t.Errorf("got %+v, %v", hold, err)
		}
	})
}

// TestGivingUpIsNotObserved: nobody waits for it.
func TestGivingUpIsNotObserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retried := 0
		s, c := serve(t, url, client.Options{Observer: client.Observer{Retried: func(string, error, int) { retried++ }}})
		s.on("/locks/request", inOrder(reply{after: time.Hour}, refusal(503, "overloaded")))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Lock(ctx, "r", client.LockOptions{}); !errors.Is(err, context.Canceled) || retried != 0 {
			t.Errorf("%d retries: %v", retried, err)
		}
	})
}

// deaf is a proxy that does not notice that its client has hung up.
type deaf struct{ to *http.Transport }

// RoundTrip implements [http.RoundTripper].
func (d deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	type result struct {
		res *http.Response
		err error
	}
	done := make(chan result, 1)
	go func() {
		res, err := d.to.RoundTrip(r.Clone(context.WithoutCancel(r.Context())))
		done <- result{res, err}
	}()
	select {
	case got := <-done:
		return got.res, got.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestGivenUpWaitBehindAProxy: the request that still waits at the server is superseded,
// so it is not granted the lock for nobody.
func TestGivenUpWaitBehindAProxy(t *testing.T) {
	t.Parallel()
	base := serverOf(t, "sqlite:///"+testdb.SQLite(t))
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(base, client.Options{HTTPClient: &http.Client{Transport: deaf{transport}}})
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
		_, err := c.Lock(ctx, "r", client.LockOptions{Owner: "gone", TTL: time.Hour})
		ended <- err
	}()
	for waiting := false; !waiting; {
		for w, err := range c.Queue(t.Context(), "r", 0) {
			if err != nil {
				t.Fatal(err)
			}
			waiting = w.Owner == "gone"
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the wait ended with %v", err)
	}
	if err := first.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, err := c.Lock(t.Context(), "r", client.LockOptions{}) // granted after all who waited before
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	for e, err := range c.History(t.Context(), client.HistoryOptions{Resource: "r", Owner: "gone"}) {
		if err != nil || e.Event == "granted" {
			t.Errorf("the client that has gone: %+v, %v", e, err)
		}
	}
}
