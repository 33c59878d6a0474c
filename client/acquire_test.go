package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

// The request is repeated with the same request_id until a server gives a final answer.
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
				s, c := startService(t, url, client.Options{Observer: client.Observer{
					Retried: func(operation string, err error, n int) {
						if retried++; operation != "request" || err == nil || n != retried {
							t.Errorf("attempt %d of %s is observed as retry %d after %v", retried, operation, n, err)
						}
					},
				}})
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
					t.Errorf("repeated after %v, want %v", s.now(), want)
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
			reply{
				status: 422,
				body:   `{"code":"validation_error","detail":[{"loc":["body","ttl_seconds"],"msg":"too long","type":"x"}]}`,
			},
			nil,
			client.APIError{Status: 422, Code: "validation_error", Detail: "ttl_seconds: too long"},
		},
		"unauthorized": {
			refusal(401, "unauthenticated"),
			client.ErrUnauthorized,
			client.APIError{Status: 401, Code: "unauthenticated", Detail: "because"},
		},
		"forbidden": {
			reply{status: 403, body: "<html>\n no  way"},
			client.ErrForbidden,
			client.APIError{Status: 403, Detail: "<html> no way"},
		},
		"no such path": {
			refusal(404, "not_found"),
			nil,
			client.APIError{Status: 404, Code: "not_found", Detail: "because"},
		},
		"internal error": {
			refusal(500, "internal_error"),
			nil,
			client.APIError{Status: 500, Code: "internal_error", Detail: "because"},
		},
		"another page": {
			reply{body: "welcome"},
			nil,
			client.APIError{Status: 200, Detail: "not an answer of the lock service: welcome"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
				s.on("/locks/request", func(sent) reply { return test.reply })
				l, err := c.Lock(t.Context(), "r", client.LockOptions{})
				var got *client.APIError
				if l != nil || !errors.As(err, &got) || errors.Is(err, client.ErrUnavailable) ||
					errors.Is(err, client.ErrHeld) {
					t.Fatalf("got %v, %v", l, err)
				}
				if got.Status != test.want.Status || got.Code != test.want.Code || got.Detail != test.want.Detail {
					t.Errorf("got %#v", got)
				}
				if test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("%v is not %v", err, test.is)
				}
				if s.now() != 0 {
					t.Errorf("the call took %v", s.now())
				}
			})
		})
	}
}

func TestTryLockOfAHeldResource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return held("already_locked") })
		l, err := c.TryLock(t.Context(), "r", client.LockOptions{})
		var got *client.HeldError
		if l != nil || !errors.As(err, &got) || !errors.Is(err, client.ErrHeld) ||
			errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, %v", l, err)
		}
		h := got.Holder
		if got.Resource != "r" || got.Waiters != 2 || got.RetryAfter != 30*time.Second ||
			got.Code != "already_locked" || h.Owner != "other" || h.FencingToken != 5 ||
			h.Reason != "release 1.4" || h.Resource != "r" || string(h.Metadata) != `{"ci":77}` {
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

// A grant after a wait or of a repeated request may be old.
func TestGrantOfUnknownAgeIsRenewedAtOnce(t *testing.T) {
	t.Parallel()
	for name, grant := range map[string]reply{
		"waited":   granted(7, time.Minute, `,"waited_seconds":12`),
		"repeated": granted(7, 5*time.Second, `,"repeated":true`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
				s.on("/locks/request", func(sent) reply { return grant })
				s.on("/locks/renew", func(sent) reply {
					r := granted(7, time.Minute, "")
					r.after = time.Second
					return r
				})
				l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
				if left := time.Until(l.Deadline()); left != 56*time.Second { // 60 - 1, less a margin of 3
					t.Errorf("the deadline is in %v", left)
				}
				l.Abandon()
			})
		})
	}
}

// If a grant has expired before it is confirmed, the client requests the lock again. It
// uses another request_id, because the server would repeat the old grant.
func TestExpiredGrantIsRequestedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", inOrder(
			granted(7, time.Minute, `,"waited_seconds":12`),
			granted(8, time.Minute, ""),
		))
		s.on("/locks/renew", inOrder(refusal(404, "expired"), granted(8, time.Minute, "")))
		l := mustLock(t, c, client.LockOptions{})
		got := s.requests("/locks/request")
		if l.FencingToken() != 8 || len(got) != 2 || got[0].body["request_id"] == got[1].body["request_id"] {
			t.Errorf("token %d after %v", l.FencingToken(), got)
		}
		l.Abandon()
	})
}

// A grant whose answer took longer than the TTL is renewed before Lock returns. If the
// renewal takes too long as well, Lock returns an error.
func TestLateGrantIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		late := granted(7, time.Second, "")
		late.after = 2 * time.Second
		s.on("/locks/request", func(sent) reply { return late })
		l := mustLock(t, c, client.LockOptions{TTL: time.Second})
		if len(s.requests("/locks/renew")) != 1 || l.Err() != nil {
			t.Errorf("renewed %v, Err is %v", s.requests("/locks/renew"), l.Err())
		}
		l.Abandon()
		s.on("/locks/renew", func(sent) reply { return late })
		l, err := c.Lock(t.Context(), "r", client.LockOptions{TTL: time.Second})
		if l != nil || !errors.Is(err, client.ErrLost) {
			t.Errorf("got %v, %v", l, err)
		}
	})
}

// If the TTL is shorter than the time of an answer, TryLock fails after some attempts
// with pauses.
func TestTTLShorterThanAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{ServerTimeout: 10 * time.Second})
		slowly := func(a reply) func(sent) reply {
			a.after = 5 * time.Millisecond
			return func(sent) reply { return a }
		}
		s.on("/locks/request", slowly(granted(7, time.Millisecond, "")))
		s.on("/locks/renew", slowly(refusal(404, "expired")))
		l, err := c.TryLock(t.Context(), "r", client.LockOptions{TTL: time.Millisecond})
		if l != nil || !errors.Is(err, client.ErrUnavailable) || s.now() > 11*time.Second ||
			len(s.requests("")) > 50 {
			t.Errorf("%d requests in %v: %v", len(s.requests("")), s.now(), err)
		}
	})
}

func TestNothingIsSentForAnEndedContext(t *testing.T) {
	t.Parallel()
	s, c := startService(t, url, client.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the reason")
	cancel(cause)
	if l, err := c.Lock(ctx, "r", client.LockOptions{}); l != nil || !errors.Is(err, cause) || len(s.requests("")) > 0 {
		t.Errorf("got %v, %v after %v", l, err, s.requests(""))
	}
}

func TestCausesOfContexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", waits(time.Hour, reply{}))
		why := errors.New("the build has ended")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		_, err := c.Lock(ctx, "r", client.LockOptions{})
		if !errors.Is(err, client.ErrHeld) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		canceled, stop := context.WithCancelCause(t.Context())
		stop(why)
		_, err = c.Lock(canceled, "r", client.LockOptions{})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}

// overdue is a context whose deadline has passed in a suspend, in which its timer
// stopped.
type overdue struct{ context.Context }

func (overdue) Deadline() (time.Time, bool) { return time.Now().Add(-time.Hour), true }

func TestDeadlineThatPassedInASuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply { return held("already_locked") })
		_, err := c.Lock(overdue{t.Context()}, "r", client.LockOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || s.now() > time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}
