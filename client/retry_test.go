package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[string][2]time.Duration{
		"1":    {time.Second, time.Second + 100*time.Millisecond},
		"3600": {30 * time.Second, 30*time.Second + 100*time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			var second []time.Duration
			for _, jitter := range []float64{0.01, 0.99} { // two clients that get the same answer
				s, c := startService(t, url, client.Options{})
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
		s, c := startService(t, url, client.Options{ServerTimeout: 10 * time.Second})
		s.answer = func(sent) reply {
			return reply{status: 503, header: map[string]string{"Retry-After": "3600"}}
		}
		if _, err := c.Status(t.Context(), "r"); !errors.Is(err, client.ErrUnavailable) || s.now() != 10*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

func TestServerTimeout(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]reply{
		"refused":   {err: errRefused},
		"stopping":  refusal(503, "shutting_down"),
		"no answer": {after: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, "http://a:1,http://b:1", client.Options{ServerTimeout: 30 * time.Second})
				s.answer = func(sent) reply { return fault }
				_, err := c.Status(t.Context(), "r")
				if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if s.now() < 30*time.Second || s.now() > 31*time.Second {
					t.Errorf("the call took %v", s.now())
				}
			})
		})
	}
}

// ServerTimeout counts from the failure of the server, not from its last answer.
func TestServerTimeoutDoesNotLimitWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{ServerTimeout: 30 * time.Second})
		s.on("/locks/request", func(r sent) reply {
			switch {
			case r.at < 49*time.Second:
				return reply{after: 49 * time.Second, err: errRefused}
			case r.at < 65*time.Second:
				return reply{err: errRefused}
			}
			return granted(7, time.Minute, "")
		})
		mustLock(t, c, client.LockOptions{}).Abandon()
	})
}

func TestCallsSurviveOutagesWithinServerTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{5 * time.Second, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{ServerTimeout: timeout})
			s.on("/locks/request", func(r sent) reply {
				switch {
				case r.at < 20*time.Second: // the server stops while the request waits
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
	synctest.Test(t, func(t *testing.T) { // the confirmation does not get a second ServerTimeout
		s, c := startService(t, url, client.Options{ServerTimeout: 30 * time.Second})
		s.on("/locks/request", inOrder(granted(7, time.Hour, `,"waited_seconds":12`), reply{err: errRefused}))
		s.on("/locks/renew", func(sent) reply { return reply{err: errRefused} })
		_, err := c.Lock(t.Context(), "r", client.LockOptions{TTL: time.Hour})
		if !errors.Is(err, client.ErrUnavailable) || s.now() > 32*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
	for _, timeout := range []time.Duration{5 * time.Second, 11 * time.Second} {
		// If one server does not answer, there is time to try the next.
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, "http://a:1,http://b:1", client.Options{ServerTimeout: timeout})
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
			_, err := c.Status(t.Context(), "r")
			if !errors.Is(err, client.ErrUnavailable) || s.now()-began > timeout+time.Second {
				t.Errorf("after %v: %v", s.now()-began, err)
			}
		})
	}
}

func TestNextServerIsUsedWhenOneIsUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, "http://a:1, http://b:1/locks-of-b/", client.Options{})
		var down atomic.Value
		down.Store("b:1")
		database := map[string]string{"Lock-Database": "one"}
		s.answer = func(r sent) reply {
			if r.host == down.Load() {
				return reply{err: errRefused}
			}
			a := granted(7, time.Minute, "")
			a.header = database
			return a
		}
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		down.Store("a:1")
		advance(5 * time.Minute)
		wantDone(t, l, false)
		var hosts []string
		for _, r := range s.requests("") {
			hosts = append(hosts, r.host+r.path)
		}
		want := []string{
			"a:1/livez", "a:1/locks/request", "a:1/locks/renew",
			"b:1/locks-of-b/livez", "b:1/locks-of-b/locks/renew", "b:1/locks-of-b/locks/renew",
		}
		if len(hosts) < len(want) || strings.Join(hosts[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("sent %v", hosts)
		}
		if at := s.requests("/locks-of-b/locks/renew")[0].at; at != 20*time.Second+50*time.Millisecond {
			t.Errorf("the next server got the renewal at %v", at)
		}
		down.Store("b:1")
		if _, err := c.Status(t.Context(), "r"); err != nil {
			t.Error(err)
		}
		l.Abandon()
	})
}

// A server of another database gets no request that could change it.
func TestOtherDatabaseIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failures := make(chan error, 1000)
		s, c := startService(t, "http://a:1,http://b:1", client.Options{Observer: client.Observer{
			RenewFailed: func(_ *client.Lock, err error) { failures <- err },
		}})
		s.answer = func(r sent) reply {
			a := granted(7, time.Minute, "")
			a.header = map[string]string{"Lock-Database": r.host}
			if r.host == "a:1" && r.at > 0 {
				a = reply{err: errRefused}
			}
			return a
		}
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		advance(time.Second)
		if _, err := c.TryLock(t.Context(), "r", client.LockOptions{}); !errors.Is(err, client.ErrOtherDatabase) {
			t.Errorf("got %v", err)
		}
		for _, r := range s.requests("") {
			if r.host == "b:1" && r.path != "/livez" {
				t.Errorf("the server of the other database got %s", r.path)
			}
		}
		<-l.Done()
		synctest.Wait()
		kinds := map[bool]int{}
		for range len(failures) {
			kinds[errors.Is(<-failures, client.ErrOtherDatabase)]++
		}
		if !errors.Is(l.Err(), client.ErrLost) || kinds[true] < 5 || kinds[false] < 5 { // both servers are retried
			t.Errorf("the lock ended with %v after %v", l.Err(), kinds)
		}
	})
}

func TestClientReturnsFromAServerOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, "http://a:1,http://b:1", client.Options{})
		s.answer = func(r sent) reply {
			if r.host == "a:1" && r.path == "/locks/renew" && r.at < 20*time.Second+time.Millisecond {
				return reply{err: errRefused} // the first renewal
			}
			a := granted(7, time.Minute, "")
			a.header = map[string]string{"Lock-Database": r.host}
			return a
		}
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		advance(5 * time.Minute)
		if l.Err() != nil {
			t.Errorf("lost: %v", l.Err())
		}
		l.Abandon()
	})
}

// A timeout of the transport is ErrUnavailable, although the attempt's own timeout has
// not passed.
func TestTimeoutOfTheTransport(t *testing.T) {
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

// If a server does not answer before the deadline, the error is not context.Canceled,
// over each version of HTTP.
func TestNoAnswerIsNotACancellation(t *testing.T) {
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
			"Lock": func(ctx context.Context) error {
				_, err := c.Lock(ctx, "r", client.LockOptions{})
				return err
			},
			"Status": func(ctx context.Context) error {
				_, err := c.Status(ctx, "r")
				return err
			},
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
		s, c := startService(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Unlock(ctx); errors.Is(err, context.Canceled) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Unlock returns %v", err)
		}
	})
}

// A redirect may change a POST into a GET, which does not lock.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.answer = func(sent) reply {
			return reply{status: 301, header: map[string]string{"Location": "https://a:1/"}, body: "Moved Permanently"}
		}
		var api *client.APIError
		_, err := c.Lock(t.Context(), "r", client.LockOptions{})
		if !errors.As(err, &api) || api.Status != 301 || len(s.requests("")) > 2 {
			t.Errorf("got %v after %v", err, s.requests(""))
		}
	})
}

// A page of another server confirms neither a lock nor a release. If the release was
// executed, Unlock does not report a loss later.
func TestPageOfAnotherServerConfirmsNothing(t *testing.T) {
	t.Parallel()
	page := reply{body: "<html>Log in to the wireless network</html>"}
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return granted(7, time.Minute, `,"waited_seconds":12`) })
		s.on("/locks/renew", func(sent) reply { return page })
		var api *client.APIError
		if l, err := c.Lock(t.Context(), "r", client.LockOptions{}); l != nil || !errors.As(err, &api) {
			t.Errorf("got %v, %v", l, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/release", inOrder(page, refusal(404, "already_released")))
		l := mustLock(t, c, client.LockOptions{})
		if first, second := l.Unlock(t.Context()), l.Unlock(t.Context()); first == nil || second != nil {
			t.Errorf("Unlock returns %v, then %v", first, second)
		}
	})
}
