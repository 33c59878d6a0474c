package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

// A long wait is split into several requests with the same request_id, which keeps the
// place in the queue.
func TestLongWaitsAreSeveralRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{ServerTimeout: 30 * time.Second})
		s.on("/locks/request", func(r sent) reply {
			timeout := held("wait_timeout")
			timeout.after = time.Duration(r.body["wait_seconds"].(float64) * float64(time.Second))
			return timeout
		})
		ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
		defer cancel()
		l, err := c.Lock(ctx, "r", client.LockOptions{})
		if l != nil || !errors.Is(err, client.ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, %v", l, err)
		}
		if s.now() != 120*time.Second {
			t.Errorf("the call took %v", s.now())
		}
		var waits []any
		ids := map[any]bool{}
		for _, r := range s.requests("/locks/request") {
			waits = append(waits, r.body["wait_seconds"])
			ids[r.body["request_id"]] = true
		}
		if len(waits) != 3 || waits[0] != 50.0 || waits[1] != 50.0 || waits[2] != 20.0 || len(ids) != 1 {
			t.Errorf("waits of %v with %v", waits, ids)
		}
	})
}

// If the server rejects the wait as too long, the client requests a shorter wait.
func TestServerThatPermitsShorterWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(r sent) reply {
			if r.body["wait_seconds"].(float64) > 20 {
				return reply{status: 422, body: `{"code":"validation_error",
					"detail":[{"loc":["body","wait_seconds"],"msg":"at most 20","type":"x"}]}`}
			}
			return granted(7, time.Minute, "")
		})
		mustLock(t, c, client.LockOptions{}).Abandon()
		if got := s.requests("/locks/request"); len(got) != 3 || got[2].body["wait_seconds"] != 12.5 {
			t.Errorf("sent %v", got)
		}
	})
}

// waits answers wait_timeout when the wait of a request ends. A proxy before the service
// answers cut if the wait is longer than limit.
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

// If a proxy ends the waits, the client requests shorter ones. The server does not count
// as unavailable.
func TestWaitsThatAProxyEnds(t *testing.T) {
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
				s, _ := startService(t, url, client.Options{})
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

// A server that has not answered recently is probed before a request may wait there.
func TestServerIsProbedBeforeAWait(t *testing.T) {
	t.Parallel()
	for urls, want := range map[string]time.Duration{
		url:                     3 * time.Second,
		"http://a:1,http://b:1": 1500 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, urls, client.Options{ServerTimeout: 3 * time.Second})
			s.answer = func(r sent) reply {
				if r.host == "a:1" {
					return reply{after: time.Hour}
				}
				return granted(7, time.Minute, "")
			}
			l, err := c.Lock(t.Context(), "r", client.LockOptions{})
			if s.now() != want || (l == nil) != (urls == url) ||
				l == nil && !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("%s: after %v: %v, %v", urls, s.now(), l, err)
			}
			if l != nil {
				l.Abandon()
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // a server that has answered recently is not probed
		s, c := startService(t, url, client.Options{})
		advance(time.Second)
		for range 3 {
			mustLock(t, c, client.LockOptions{}).Abandon()
		}
		advance(20 * time.Second)
		mustLock(t, c, client.LockOptions{}).Abandon()
		if got := s.requests("/livez"); len(got) != 2 {
			t.Errorf("probed %d times: %v", len(got), got)
		}
	})
}

// superseded answers the second request, and then the first one.
func superseded(second, first reply) func(sent) reply {
	var requests atomic.Int64
	answered := make(chan struct{})
	return func(sent) reply {
		if requests.Add(1) == 1 {
			<-answered
			return first
		}
		close(answered)
		return second
	}
}

// A lock that was granted during the cancellation of the wait is released.
func TestGivenUpWaitLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]reply{
		"granted":     granted(7, time.Minute, `,"repeated":true`),
		"not granted": held("already_locked"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
				s.on("/locks/request", superseded(answer, held("superseded")))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(3*time.Second, cancel)
				l, err := c.Lock(ctx, "r", client.LockOptions{MinHold: time.Minute})
				if l != nil || !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrHeld) {
					t.Fatalf("got %v, %v", l, err)
				}
				if s.now() != 3*time.Second {
					t.Errorf("the call took %v", s.now())
				}
				got := s.requests("/locks/request")
				if len(got) != 2 || got[1].body["request_id"] != got[0].body["request_id"] ||
					got[1].body["wait_seconds"] != 1e-6 || got[1].body["min_hold_seconds"] != nil {
					t.Errorf("sent %v", got)
				}
				released := s.requests("/locks/release")
				if name == "granted" != (len(released) == 1 && released[0].body["fencing_token"] == 7.0) {
					t.Errorf("released %v", released)
				}
			})
		})
	}
	// The server reads the first request only after the one that was to supersede it.
	t.Run("granted late", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{})
			s.on("/locks/request", superseded(granted(7, time.Minute, ""), granted(8, time.Minute, "")))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, %v", l, err)
			}
			released := s.requests("/locks/release")
			if len(released) != 2 || released[0].body["fencing_token"] != 7.0 || released[1].body["fencing_token"] != 8.0 {
				t.Errorf("released %v, want both grants", released)
			}
		})
	})
	// The server cannot serve the request that is to supersede the first one, which is
	// granted the lock meanwhile.
	t.Run("not superseded", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{})
			overloaded := refusal(http.StatusServiceUnavailable, "overloaded")
			overloaded.header = map[string]string{"Retry-After": "1"}
			s.on("/locks/request", superseded(overloaded, granted(7, time.Minute, "")))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, %v", l, err)
			}
			released := s.requests("/locks/release")
			if len(released) != 1 || released[0].body["fencing_token"] != 7.0 || s.now() != 3*time.Second {
				t.Errorf("after %v: released %v, want the grant", s.now(), released)
			}
		})
	})
	// A request that has not been sent is not waited for.
	t.Run("not sent", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{})
			s.unsent = true
			s.on("/locks/request", func(sent) reply { return reply{after: time.Hour} })
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, %v", l, err)
			}
			if s.now() > 4*time.Second {
				t.Errorf("the call took %v", s.now())
			}
		})
	})
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{})
			s.on("/locks/request", func(sent) reply { return reply{after: time.Hour} })
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, %v", l, err)
			}
			if s.now() != 5*time.Second { // a second for the answer that was due, and one for the release
				t.Errorf("the call took %v", s.now())
			}
		})
	})
}

// A cancellation during the renewal that confirms a grant ends the call.
func TestCanceledConfirmation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", inOrder(granted(7, time.Minute, `,"repeated":true`)))
		renewal := granted(7, time.Minute, "")
		renewal.after = 700 * time.Millisecond
		s.on("/locks/renew", inOrder(renewal))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(200*time.Millisecond, cancel)
		err := c.Do(ctx, "r", client.LockOptions{}, func(context.Context, *client.Lock) error {
			t.Error("the work was called")
			return nil
		})
		if !errors.Is(err, context.Canceled) || s.now() != 200*time.Millisecond {
			t.Errorf("after %v: %v", s.now(), err)
		}
		if released := s.requests("/locks/release"); len(released) != 1 {
			t.Errorf("released %v", released)
		}
	})
}

// A caller can recover a panic of its transport.
func TestPanicOfTheTransport(t *testing.T) {
	t.Parallel()
	c, err := client.New(url, client.Options{HTTPClient: &http.Client{Transport: panics{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p != "planted" {
			t.Errorf("recovered %v", p)
		}
	}()
	_, _ = c.TryLock(t.Context(), "r", client.LockOptions{})
}

type panics struct{}

func (panics) RoundTrip(*http.Request) (*http.Response, error) { panic("planted") }

// A server that cannot be reached has granted no lock, so there is nothing to release.
func TestNothingIsReleasedThatWasNotRequested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply {
			return reply{err: &net.OpError{Op: "dial", Err: errRefused}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := c.Lock(ctx, "r", client.LockOptions{})
		if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || s.now() != 3*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// Retries of the release after a canceled wait are not observed.
func TestCanceledWaitIsNotObserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retried := 0
		s, c := startService(t, url, client.Options{Observer: client.Observer{
			Retried: func(string, error, int) { retried++ },
		}})
		s.on("/locks/request", inOrder(reply{after: time.Hour}, refusal(503, "overloaded")))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Lock(ctx, "r", client.LockOptions{}); !errors.Is(err, context.Canceled) || retried != 0 {
			t.Errorf("%d retries: %v", retried, err)
		}
	})
}
