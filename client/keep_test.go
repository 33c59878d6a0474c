package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

func TestLockIsRenewedEveryThirdOfItsTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		advance(5*time.Minute + time.Second)
		wantDone(t, l, false)
		renewals := s.requests("/locks/renew")
		if len(renewals) != 30 {
			t.Errorf("%d renewals in 5 minutes, want 30", len(renewals))
		}
		for i, r := range renewals {
			if want := time.Duration(i+1) * 10 * time.Second; r.at != want {
				t.Errorf("renewal %d came at %v, want %v", i, r.at, want)
			}
			if r.body["fencing_token"] != 7.0 || r.body["process_id"] != l.Owner() || r.body["ttl_seconds"] != 30.0 {
				t.Errorf("renewal with %v", r.body)
			}
		}
		// The last renewal was a second ago, and the margin of 30 s is 1.5 s.
		if left := time.Until(l.Deadline()); left != 27500*time.Millisecond {
			t.Errorf("the deadline is in %v", left)
		}
		if err := l.Unlock(context.Background()); err != nil {
			t.Error(err)
		}
		advance(time.Minute)
		if n := len(s.requests("/locks/renew")); n != len(renewals) {
			t.Error("a released lock was renewed")
		}
	})
}

func TestRenewalsAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		for jitter, want := range map[float64]time.Duration{0: 9 * time.Second, 0.999: 11 * time.Second} {
			c.Inject(s.now, func() float64 { return jitter })
			before, began := len(s.requests("/locks/renew")), s.now()
			l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
			advance(12 * time.Second)
			l.Abandon()
			got := s.requests("/locks/renew")[before].at - began
			if got > want || got < want-10*time.Millisecond {
				t.Errorf("with jitter %v the renewal came after %v, want %v", jitter, got, want)
			}
		}
	})
}

// If no server answers, Done is closed before the hold expires, as counted from the start
// of the last successful request.
func TestLockEndsBeforeAnotherProcessCanGetIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		ttl, grace time.Duration
		want       time.Duration // when Done is closed
	}{
		{"a margin of 5 percent", time.Minute, 0, 57 * time.Second},
		{"a margin of a second", 12 * time.Second, 0, 11 * time.Second},
		{"a margin of a sixth", 3 * time.Second, 0, 2500 * time.Millisecond},
		{"with grace", time.Minute, 10 * time.Second, 47 * time.Second},
	} {
		for name, fault := range map[string]reply{
			"refused":     {err: errRefused},
			"no answer":   {after: time.Hour},
			"unavailable": refusal(503, "database_unavailable"),
			"not found":   {status: 404, body: "<html>no such page</html>"},
		} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var lost *client.LostError
					s, c := startService(t, url, client.Options{Observer: client.Observer{
						Lost: func(_ *client.Lock, err *client.LostError) { lost = err },
					}})
					s.on("/locks/renew", func(sent) reply { return fault })
					l := mustLock(t, c, client.LockOptions{TTL: test.ttl, Grace: test.grace})
					<-l.Done()
					if got := s.now(); got != test.want {
						t.Errorf("Done was closed after %v, want %v", got, test.want)
					}
					synctest.Wait()
					var err *client.LostError
					if !errors.As(l.Err(), &err) || err.Why != client.LossUnreachable ||
						errors.Unwrap(err) == nil || err != lost {
						t.Errorf("Err is %v, the observer got %v", l.Err(), lost)
					}
					if deadline := time.Until(l.Deadline()); deadline != test.grace {
						t.Errorf("the deadline is in %v, want %v", deadline, test.grace)
					}
					for _, r := range s.requests("/locks/renew") {
						if r.at > test.want {
							t.Errorf("a renewal was sent after the loss, at %v", r.at)
						}
					}
				})
			})
		}
	}
}

func TestOutagesShorterThanTheTTLAreSurvived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var failures int
		s, c := startService(t, url, client.Options{Observer: client.Observer{
			RenewFailed: func(*client.Lock, error) { failures++ },
		}})
		s.on("/locks/renew", func(r sent) reply {
			if r.at < 46*time.Second {
				return reply{err: errRefused}
			}
			return granted(7, time.Minute, "")
		})
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute, Grace: 10 * time.Second})
		advance(2 * time.Minute)
		wantDone(t, l, false)
		if failures < 20 { // twice a second on average, after the renewal at 20 s
			t.Errorf("%d attempts failed in 26 s", failures)
		}
		l.Abandon()
	})
}

func TestTimeCountsFromTheStartOfTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/request", func(sent) reply {
			r := granted(7, time.Minute, "")
			r.after = 9 * time.Second
			return r
		})
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		if left := time.Until(l.Deadline()); left != 48*time.Second { // 60 - 9, less a margin of 3
			t.Errorf("the deadline is in %v", left)
		}
		l.Abandon()
	})
}

func TestNoRenew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute, NoRenew: true})
		<-l.Done()
		if s.now() != 57*time.Second || len(s.requests("/locks/renew")) > 0 {
			t.Errorf("ended after %v with %v", s.now(), s.requests("/locks/renew"))
		}
		var err *client.LostError
		if !errors.As(l.Err(), &err) || err.Why != client.LossExpired {
			t.Errorf("Err is %v", l.Err())
		}
	})
}

func TestForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		never := success(`{"fencing_token":7,"waited_seconds":0,"expires_at":null,"expires_in_seconds":null}`)
		s.on("/locks/request", func(sent) reply { return never })
		l := mustLock(t, c, client.LockOptions{Forever: true})
		advance(1000 * time.Hour)
		wantDone(t, l, false)
		if !l.Deadline().IsZero() || len(s.requests("/locks/renew")) > 0 ||
			s.requests("/locks/request")[0].body["ttl_seconds"] != nil {
			t.Errorf("deadline %v, sent %v", l.Deadline(), s.requests(""))
		}
		if err := l.Unlock(context.Background()); err != nil {
			t.Error(err)
		}

		// If the server has applied a default TTL, a renewal removes it.
		s.on("/locks/request", func(sent) reply { return granted(8, time.Minute, "") })
		s.on("/locks/renew", func(sent) reply { return never })
		l = mustLock(t, c, client.LockOptions{Forever: true})
		if got := s.requests("/locks/renew"); len(got) != 1 || got[0].body["ttl_seconds"] != nil {
			t.Errorf("renewed with %v", got)
		}
		l.Abandon()
	})
}

func TestClockCountsUp(t *testing.T) {
	t.Parallel()
	now := client.NewClock()
	before := now()
	began := time.Now()
	<-time.After(2 * time.Millisecond)
	if passed, wall := now()-before, time.Since(began); passed < 2*time.Millisecond || passed > wall+time.Second {
		t.Errorf("%v have passed by the client's clock, %v by Go's clock", passed, wall)
	}
}
