package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

func TestAcquireSendsItsOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		first, err := c.TryLock(t.Context(), "a/ü", client.LockOptions{
			TTL: 90 * time.Second, Owner: "me", Reason: "release 1.4", MinHold: 1500 * time.Millisecond, Metadata: map[string]int{"ci": 77},
		})
		if err != nil {
			t.Fatal(err)
		}
		first.Abandon()
		second := mustLock(t, c, client.LockOptions{})
		third := mustLock(t, c, client.LockOptions{})
		second.Abandon()
		third.Abandon()
		got := s.requests("/locks/request")
		body := got[0].body
		if body["resource_name"] != "a/ü" || body["process_id"] != "me" || body["ttl_seconds"] != 90.0 || body["reason"] != "release 1.4" ||
			body["min_hold_seconds"] != 1.5 || body["metadata"].(map[string]any)["ci"] != 77.0 || body["wait_seconds"] != nil {
			t.Errorf("sent %v", body)
		}
		if body := got[1].body; body["ttl_seconds"] != 60.0 || body["wait_seconds"] != 50.0 || body["reason"] != nil {
			t.Errorf("the zero options sent %v", body)
		}
		if second.Owner() == third.Owner() || strings.Count(second.Owner(), ":") < 2 {
			t.Errorf("owners %q and %q", second.Owner(), third.Owner())
		}
		ids := map[any]bool{}
		for _, r := range got {
			ids[r.body["request_id"]] = true
		}
		if len(ids) != 3 || ids[nil] {
			t.Errorf("request ids %v", ids)
		}
	})
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	s, c := serve(t, url, client.Options{})
	for want, o := range map[string]client.LockOptions{
		"TTL":      {TTL: -1},
		"MinHold":  {MinHold: -1},
		"Grace":    {TTL: time.Minute, Grace: 21 * time.Second},
		"Forever":  {Forever: true, NoRenew: true},
		"NoRenew":  {NoRenew: true, Grace: time.Second},
		"Metadata": {Metadata: func() {}},
	} {
		if l, err := c.Lock(t.Context(), "r", o); l != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := c.TryLock(t.Context(), "", client.LockOptions{}); err == nil {
		t.Error("an empty name is accepted")
	}
	for _, texts := range []client.LockOptions{{Owner: "a\xff"}, {Reason: "a\xff"}} {
		if _, err := c.Lock(t.Context(), "r", texts); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%v: %v", texts, err)
		}
	}
	for name, call := range map[string]func(string) error{
		"Lock":    func(name string) error { _, err := c.Lock(t.Context(), name, client.LockOptions{}); return err },
		"Renew":   func(name string) error { _, err := c.Renew(t.Context(), name, "p", 0, 0); return err },
		"Release": func(name string) error { return c.Release(t.Context(), name, "p", 0) },
		"ForceRelease": func(name string) error {
			_, err := c.ForceRelease(t.Context(), name, client.ForceReleaseOptions{})
			return err
		},
	} {
		if err := call("a\xff"); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, urls := range []string{
		"", "localhost:8000", "ftp://a", "http://", "http://a?x", "http://a#x", "http://a,", "http://http://a:1", "http://a:",
		"http://user:secret@a b", "user:secret@host:8000", "http://user:secret%zz@a", "http://user:,secret@a",
	} {
		if _, err := client.New(urls, client.Options{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", urls, err)
		}
	}
	if _, err := client.New(url, client.Options{ServerTimeout: -1}); err == nil {
		t.Error("a negative ServerTimeout is accepted")
	}
	if len(s.requests("")) > 0 {
		t.Errorf("sent %v", s.requests(""))
	}
}

// TestAcquireIsRepeated with the same request_id, until a server says what became of it.
func TestAcquireIsRepeated(t *testing.T) {
	t.Parallel()
	busy := refusal(503, "overloaded")
	busy.header = map[string]string{"Retry-After": "3"}
	for name, fault := range map[string]reply{
		"connection refused":   {err: errRefused},
		"bad gateway":          {status: 502, body: "<html>"},
		"gateway timeout":      {status: 504},
		"too many requests":    {status: 429},
		"database_unavailable": refusal(503, "database_unavailable"),
		"outcome_unknown":      refusal(503, "outcome_unknown"),
		"place_lost":           refusal(503, "place_lost"),
		"shutting_down":        refusal(503, "shutting_down"),
		"superseded":           held("superseded"),
		"overloaded":           busy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				retried := 0
				s, c := serve(t, url, client.Options{Observer: client.Observer{Retried: func(operation string, err error, n int) {
					if retried++; operation != "request" || err == nil {
						t.Errorf("retried %s because of %v", operation, err)
					}
				}}})
				s.on("/locks/request", inOrder(fault, fault, granted(7, time.Minute, "")))
				l := mustLock(t, c, client.LockOptions{})
				l.Abandon()
				got := s.requests("/locks/request")
				if len(got) != 3 || got[0].body["request_id"] != got[2].body["request_id"] || retried != 2 {
					t.Errorf("sent %v, retried %d times", got, retried)
				}
				want := 150 * time.Millisecond // half of 100 and of 200 ms
				if fault.header != nil {
					want += 6 * time.Second
				}
				if s.now() != want {
					t.Errorf("repeated within %v, want %v", s.now(), want)
				}
			})
		})
	}
}

func TestRefusalsAreFinal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reply reply
		is    error
		want  client.APIError
	}{
		"malformed": {
			reply{status: 422, body: `{"code":"validation_error","detail":[{"loc":["body","ttl_seconds"],"msg":"too long","type":"x"}]}`},
			nil,
			client.APIError{Status: 422, Code: "validation_error", Detail: "ttl_seconds: too long"},
		},
		"unauthorized": {refusal(401, "unauthenticated"), client.ErrUnauthorized, client.APIError{Status: 401, Code: "unauthenticated", Detail: "because"}},
		"forbidden":    {reply{status: 403, body: "<html>\n no  way"}, client.ErrForbidden, client.APIError{Status: 403, Detail: "<html> no way"}},
		"no such path": {refusal(404, "not_found"), nil, client.APIError{Status: 404, Code: "not_found", Detail: "because"}},
		"a fault":      {refusal(500, "internal_error"), nil, client.APIError{Status: 500, Code: "internal_error", Detail: "because"}},
		"another page": {reply{body: "welcome"}, nil, client.APIError{Status: 200, Detail: "not an answer of the lock service: welcome"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serve(t, url, client.Options{})
				s.on("/locks/request", func(sent) reply { return test.reply })
				l, err := c.Lock(t.Context(), "r", client.LockOptions{})
				var got *client.APIError
				if l != nil || !errors.As(err, &got) || errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrHeld) {
					t.Fatalf("got %v, %v", l, err)
				}
				if got.Status != test.want.Status || got.Code != test.want.Code || got.Detail != test.want.Detail {
					t.Errorf("got %#v", got)
				}
				if test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("%v is not %v", err, test.is)
				}
				if s.now() != 0 {
					t.Errorf("it took %v", s.now())
				}
			})
		})
	}
}

func TestTryLockOfAHeldResource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return held("already_locked") })
		l, err := c.TryLock(t.Context(), "r", client.LockOptions{})
		var got *client.HeldError
		if l != nil || !errors.As(err, &got) || !errors.Is(err, client.ErrHeld) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, %v", l, err)
		}
		h := got.Holder
		if got.Resource != "r" || got.Waiters != 2 || got.RetryAfter != 30*time.Second || got.Code != "already_locked" ||
			h.Owner != "other" || h.FencingToken != 5 || h.Reason != "release 1.4" || h.Resource != "r" || string(h.Metadata) != `{"ci":77}` {
			t.Errorf("got %+v with %+v", got, h)
		}
		if len(s.requests("/locks/request")) != 1 {
			t.Errorf("sent %v", s.requests("/locks/request"))
		}

		s.on("/locks/request", func(sent) reply { return refusal(503, "queue_full") })
		if _, err := c.Lock(t.Context(), "r", client.LockOptions{}); !errors.As(err, &got) || got.Code != "queue_full" {
			t.Errorf("a full queue: %v", err)
		}
		if len(s.requests("/locks/request")) != 2 {
			t.Errorf("sent %v", s.requests("/locks/request"))
		}
	})
}

// TestLongWaitsAreSeveralRequests that keep their place by the request_id.
func TestLongWaitsAreSeveralRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{ServerTimeout: 30 * time.Second})
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
			t.Errorf("it took %v", s.now())
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

// TestServerThatPermitsShorterWaits is asked for these.
func TestServerThatPermitsShorterWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", func(r sent) reply {
			if r.body["wait_seconds"].(float64) > 20 {
				return reply{status: 422, body: `{"code":"validation_error","detail":[{"loc":["body","wait_seconds"],"msg":"at most 20","type":"x"}]}`}
			}
			return granted(7, time.Minute, "")
		})
		mustLock(t, c, client.LockOptions{}).Abandon()
		if got := s.requests("/locks/request"); len(got) != 3 || got[2].body["wait_seconds"] != 12.5 {
			t.Errorf("sent %v", got)
		}
	})
}

// TestGivenUpWaitLeavesNothing: what was granted while the client gave up is released.
func TestGivenUpWaitLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]reply{"granted": granted(7, time.Minute, `,"repeated":true`), "not granted": held("already_locked")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serve(t, url, client.Options{})
				s.on("/locks/request", inOrder(reply{after: time.Hour}, answer))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(3*time.Second, cancel)
				l, err := c.Lock(ctx, "r", client.LockOptions{MinHold: time.Minute})
				if l != nil || !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrHeld) {
					t.Fatalf("got %v, %v", l, err)
				}
				if s.now() != 3*time.Second {
					t.Errorf("it took %v", s.now())
				}
				asked := s.requests("/locks/request")
				if len(asked) != 2 || asked[1].body["request_id"] != asked[0].body["request_id"] || asked[1].body["wait_seconds"] != 1e-6 || asked[1].body["min_hold_seconds"] != nil {
					t.Errorf("asked %v", asked)
				}
				released := s.requests("/locks/release")
				if name == "granted" != (len(released) == 1 && released[0].body["fencing_token"] == 7.0) {
					t.Errorf("released %v", released)
				}
			})
		})
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, url, client.Options{})
			s.on("/locks/request", func(sent) reply { return reply{after: time.Hour} })
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, %v", l, err)
			}
			if s.now() != 5*time.Second { // a second for the answer that was due, and one to give up
				t.Errorf("it took %v", s.now())
			}
		})
	})
}

// TestNothingIsSentForAContextThatIsOver.
func TestNothingIsSentForAContextThatIsOver(t *testing.T) {
	t.Parallel()
	s, c := serve(t, url, client.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the reason")
	cancel(cause)
	if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, cause) || len(s.requests("")) > 0 {
		t.Errorf("got %v, %v after %v", l, err, s.requests(""))
	}
}

// TestNothingIsGivenUpThatWasNotSent: a server that cannot be reached has granted
// nothing.
func TestNothingIsGivenUpThatWasNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return reply{err: &net.OpError{Op: "dial", Err: errRefused}} })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := c.Lock(ctx, "r", client.LockOptions{})
		if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || s.now() != 3*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// TestGrantThatComesTooLateIsRenewed before the lock is returned, and is an error if that
// is too late too.
func TestGrantThatComesTooLateIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		late := granted(7, time.Second, "")
		late.after = 2 * time.Second
		s.on("/locks/request", func(sent) reply { return late })
		l := mustLock(t, c, client.LockOptions{TTL: time.Second})
		if len(s.requests("/locks/renew")) != 1 || l.Err() != nil {
			t.Errorf("renewed %v, Err is %v", s.requests("/locks/renew"), l.Err())
		}
		l.Abandon()
		s.on("/locks/renew", func(sent) reply { return late })
		if l, err := c.Lock(t.Context(), "r", client.LockOptions{TTL: time.Second}); l != nil || !errors.Is(err, client.ErrLost) {
			t.Errorf("got %v, %v", l, err)
		}
	})
}

func TestServerTimeout(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]reply{"refused": {err: errRefused}, "stopping": refusal(503, "shutting_down"), "no answer": {after: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serve(t, "http://a:1,http://b:1", client.Options{ServerTimeout: 30 * time.Second})
				s.answer = func(sent) reply { return fault }
				_, err := c.Status(t.Context(), "r")
				if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if s.now() < 30*time.Second || s.now() > 31*time.Second {
					t.Errorf("it took %v", s.now())
				}
			})
		})
	}
}

// TestSilentServerIsNotWaitedFor: before a request may wait at a server that has not answered
// recently, the server has to give a sign of life.
func TestSilentServerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for urls, want := range map[string]time.Duration{url: 3 * time.Second, "http://a:1,http://b:1": 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, urls, client.Options{ServerTimeout: 3 * time.Second})
			s.answer = func(r sent) reply {
				if r.host == "a:1" {
					return reply{after: time.Hour}
				}
				return granted(7, time.Minute, "")
			}
			l, err := c.Lock(t.Context(), "r", client.LockOptions{})
			if s.now() != want || (l == nil) != (urls == url) || l == nil && !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("%s: after %v: %v, %v", urls, s.now(), l, err)
			}
			if l != nil {
				l.Abandon()
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // a server that has just answered is not asked
		s, c := serve(t, url, client.Options{})
		after(time.Second)
		for range 3 {
			mustLock(t, c, client.LockOptions{}).Abandon()
		}
		after(20 * time.Second)
		mustLock(t, c, client.LockOptions{}).Abandon()
		if got := s.requests("/livez"); len(got) != 2 {
			t.Errorf("asked %v", got)
		}
	})
}

// TestServerTimeoutLeavesWaitsAlone: it counts from when the server was gone, not from
// when it answered last.
func TestServerTimeoutLeavesWaitsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{ServerTimeout: 30 * time.Second})
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

func TestNextServerIsAskedWhenOneIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, "http://a:1, http://b:1/locks-of-b/", client.Options{})
		var away atomic.Value
		away.Store("b:1")
		database := map[string]string{"Lock-Database": "one"}
		s.answer = func(r sent) reply {
			if r.host == away.Load() {
				return reply{err: errRefused}
			}
			a := granted(7, time.Minute, "")
			a.header = database
			return a
		}
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		away.Store("a:1")
		after(5 * time.Minute)
		wantDone(t, l, false)
		var hosts []string
		for _, r := range s.requests("") {
			hosts = append(hosts, r.host+r.path)
		}
		want := []string{
			"a:1/livez", "a:1/locks/request", "a:1/locks/renew", "b:1/locks-of-b/livez", "b:1/locks-of-b/locks/renew", "b:1/locks-of-b/locks/renew",
		}
		if len(hosts) < len(want) || strings.Join(hosts[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("asked %v", hosts)
		}
		if s.requests("/locks-of-b/locks/renew")[0].at != 20*time.Second+50*time.Millisecond {
			t.Errorf("the next server got the renewal at %v", s.requests("/locks-of-b/locks/renew")[0].at)
		}
		away.Store("b:1")
		if _, err := c.Status(t.Context(), "r"); err != nil {
			t.Error(err)
		}
		l.Abandon()
	})
}

// TestOtherDatabaseIsNotAsked to change anything.
func TestOtherDatabaseIsNotAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failures := make(chan error, 1000)
		s, c := serve(t, "http://a:1,http://b:1", client.Options{Observer: client.Observer{
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
		after(time.Second)
		if _, err := c.TryLock(t.Context(), "r", client.LockOptions{}); !errors.Is(err, client.ErrOtherDatabase) {
			t.Errorf("got %v", err)
		}
		for _, r := range s.requests("") {
			if r.host == "b:1" && r.path != "/livez" {
				t.Errorf("the other database was asked %s", r.path)
			}
		}
		<-l.Done()
		synctest.Wait()
		kinds := map[bool]int{}
		for range len(failures) {
			kinds[errors.Is(<-failures, client.ErrOtherDatabase)]++
		}
		if !errors.Is(l.Err(), client.ErrLost) || kinds[true] < 5 || kinds[false] < 5 { // both are asked again and again
			t.Errorf("the lock ended with %v after %v", l.Err(), kinds)
		}
	})
}

func TestUnlock(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		replies []reply
		ctx     context.Context
		want    error
		again   error         // of a second call
		took    time.Duration // both
		sent    int
	}{
		"held":             {[]reply{success(`{}`)}, t.Context(), nil, nil, 0, 1},
		"ctx is over":      {[]reply{success(`{}`)}, canceled, nil, nil, 0, 1},
		"slow, ctx over":   {[]reply{{err: errRefused}, success(`{}`)}, canceled, nil, nil, 50 * time.Millisecond, 2},
		"answer was lost":  {[]reply{{err: errRefused}, refusal(404, "already_released")}, t.Context(), nil, nil, 50 * time.Millisecond, 2},
		"elsewhere":        {[]reply{refusal(404, "already_released")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"expired":          {[]reply{refusal(404, "expired")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"force-released":   {[]reply{refusal(404, "force_released")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"unknown":          {[]reply{refusal(404, "not_held")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"another page":     {[]reply{{body: "welcome"}, success(`{}`)}, t.Context(), &client.APIError{}, nil, 0, 2},
		"a fault at first": {[]reply{refusal(500, "internal_error"), success(`{}`)}, t.Context(), &client.APIError{}, nil, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var released time.Duration
				var lost error
				s, c := serve(t, url, client.Options{Observer: client.Observer{
					Released: func(_ *client.Lock, held time.Duration) { released = held },
					Lost:     func(_ *client.Lock, err *client.LostError) { lost = err },
				}})
				s.on("/locks/release", inOrder(test.replies...))
				l := mustLock(t, c, client.LockOptions{})
				after(time.Second)
				for i, want := range []error{test.want, test.again} {
					err := l.Unlock(test.ctx)
					var api *client.APIError
					if matches := errors.Is(err, want) || want != nil && errors.As(err, &api) && errors.As(want, &api); !matches {
						t.Errorf("call %d returns %v, want %v", i+1, err, want)
					}
					wantDone(t, l, true)
				}
				if took := s.now() - time.Second; took != test.took || len(s.requests("/locks/release")) != test.sent {
					t.Errorf("it took %v and the requests %v", took, s.requests("/locks/release"))
				}
				if confirmed := test.again == nil; confirmed != (released > 0) || confirmed == (lost != nil) || !errors.Is(l.Err(), client.ErrReleased) {
					t.Errorf("the observer was told %v and %v, and Err is %v", released, lost, l.Err())
				}
				if body := s.requests("/locks/release")[0].body; body["fencing_token"] != 7.0 || body["process_id"] != l.Owner() {
					t.Errorf("released %v", body)
				}
			})
		})
	}
}

// TestUnlockGivesUp after five seconds when ctx is over, and else when the lock is.
func TestUnlockGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Unlock(ctx); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrLost) || s.now() != 5*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrUnavailable) || s.now() != time.Minute {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// TestUnlockAfterAnOutage releases what the server may still show, and reports the loss.
func TestUnlockAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/renew", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		<-l.Done()
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) || len(s.requests("/locks/release")) != 1 {
			t.Errorf("got %v after %v", err, s.requests("/locks/release"))
		}
		after(time.Minute)
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) || len(s.requests("/locks/release")) != 1 {
			t.Errorf("got %v after %v", err, s.requests("/locks/release"))
		}
	})
}

func TestDo(t *testing.T) {
	t.Parallel()
	errWork := errors.New("the work failed")
	for name, test := range map[string]struct {
		renew reply
		work  error
		is    []error
		not   []error
	}{
		"all well":                {granted(7, time.Minute, ""), nil, nil, nil},
		"the work fails":          {granted(7, time.Minute, ""), errWork, []error{errWork}, []error{client.ErrLost}},
		"lost":                    {refusal(404, "expired"), nil, []error{client.ErrLost}, nil},
		"lost and the work fails": {refusal(404, "expired"), errWork, []error{client.ErrLost, errWork}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serve(t, url, client.Options{})
				s.on("/locks/renew", func(sent) reply { return test.renew })
				err := c.Do(t.Context(), "r", client.LockOptions{}, func(ctx context.Context, l *client.Lock) error {
					timer := time.NewTimer(time.Minute)
					defer timer.Stop()
					select {
					case <-ctx.Done():
						if !errors.Is(context.Cause(ctx), client.ErrLost) {
							t.Errorf("the cause is %v", context.Cause(ctx))
						}
					case <-timer.C:
					}
					return test.work
				})
				if test.is == nil && err != nil {
					t.Errorf("got %v", err)
				}
				for _, want := range test.is {
					if !errors.Is(err, want) {
						t.Errorf("%v is not %v", err, want)
					}
				}
				for _, not := range test.not {
					if errors.Is(err, not) {
						t.Errorf("%v is %v", err, not)
					}
				}
				if lost := errors.Is(err, client.ErrLost); lost == (len(s.requests("/locks/release")) == 1) {
					t.Errorf("released %v", s.requests("/locks/release"))
				}
			})
		})
	}
	t.Run("the work panics", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t, url, client.Options{})
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, errWork) || len(s.requests("/locks/release")) != 1 {
					t.Errorf("released %v", s.requests("/locks/release"))
				}
			}()
			_ = c.Do(t.Context(), "r", client.LockOptions{}, func(context.Context, *client.Lock) error { panic(errWork) })
		})
	})
}

// TestForceReleaseWithoutATokenIsSentOnce: the second time it would break another hold.
func TestForceReleaseWithoutATokenIsSentOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		answers := []reply{{err: errRefused}, success(`{"holder":{"process_id":"x","fencing_token":7}}`)}
		s.on("/locks/force-release", inOrder(answers...))
		if _, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "stuck"}); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		s.on("/locks/force-release", inOrder(answers...))
		hold, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "stuck", By: "ops", FencingToken: 7})
		if err != nil || hold.Owner != "x" || hold.Resource != "r" {
			t.Errorf("got %+v, %v", hold, err)
		}
		got := s.requests("/locks/force-release")
		if len(got) != 3 || got[2].body["process_id"] != "ops" || got[2].body["reason"] != "stuck" || got[2].body["fencing_token"] != 7.0 {
			t.Errorf("sent %v", got)
		}
	})
}

// TestForceReleaseWhoseAnswerWasLost: its repeat finds nothing to break, and the history
// says why.
func TestForceReleaseWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/force-release", inOrder(reply{err: errRefused}, refusal(404, "not_locked")))
		s.on("/locks/history", func(sent) reply {
			return success(`{"next_cursor":null,"events":[{"id":9,"event":"force_released","at":"2026-01-15T10:30:10+00:00","held_seconds":10,
				"resource_name":"r","process_id":"p","fencing_token":7,"reason":"stuck","by":"ops","hold_reason":"release 1.4"}]}`)
		})
		hold, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "stuck", By: "ops", FencingToken: 7})
		text, _ := json.Marshal(hold)
		if err != nil || hold.Owner != "p" || hold.Reason != "release 1.4" || hold.LockedAt.Second() != 0 || !strings.Contains(string(text), `"process_id":"p"`) {
			t.Errorf("got %+v, as JSON %s, %v", hold, text, err)
		}
		var api *client.APIError
		if _, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "another", FencingToken: 7}); !errors.As(err, &api) || api.Status != 404 {
			t.Errorf("got %v", err)
		}
	})
}

func TestListsArePaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		s.on("/locks/queue", inOrder(
			success(`{"waiters":[{"position":1,"process_id":"a"},{"position":2,"process_id":"b"}],"next_cursor":"two"}`),
			success(`{"waiters":[{"position":3,"process_id":"c"}],"next_cursor":null}`),
			refusal(422, "validation_error"),
		))
		var owners []string
		for w, err := range c.Queue(t.Context(), "r", 0) {
			if err != nil {
				t.Fatal(err)
			}
			owners = append(owners, w.Owner)
		}
		got := s.requests("/locks/queue")
		if strings.Join(owners, "") != "abc" || len(got) != 2 || got[0].query["cursor"] != nil || got[1].query["cursor"][0] != "two" {
			t.Errorf("got %v from %v", owners, got)
		}
		failures := 0
		for _, err := range c.Queue(t.Context(), "r", 5) {
			if failures++; err == nil {
				t.Error("a failure is no entry")
			}
		}
		if got := s.requests("/locks/queue"); failures != 1 || got[2].query["limit"][0] != "5" {
			t.Errorf("%d failures, asked %v", failures, got)
		}
	})
}

// TestReadsAreGets: a read has no body and changes nothing.
func TestReadsAreGets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serve(t, url, client.Options{})
		_, _ = c.Status(t.Context(), "r")
		_, _ = c.Validate(t.Context(), "r", 7)
		c.Locks(t.Context(), client.ListOptions{Prefix: "a", Owner: "b"})(func(client.Hold, error) bool { return false })
		history := c.History(t.Context(), client.HistoryOptions{Resource: "r", Events: []string{"expired", "released"}, Since: s.began})
		history(func(client.Event, error) bool { return false })
		for _, r := range s.requests("") {
			if r.method != http.MethodGet || r.body != nil {
				t.Errorf("sent %s %s with %v", r.method, r.path, r.body)
			}
		}
		if list := s.requests("/locks/all-locked")[0].query; list["prefix"][0] != "a" || list["process_id"][0] != "b" {
			t.Errorf("listed by %v", list)
		}
		if history := s.requests("/locks/history")[0].query; history["event"][0] != "expired,released" || history["since"][0] != "2000-01-01T00:00:00Z" {
			t.Errorf("history by %v", history)
		}
	})
}
