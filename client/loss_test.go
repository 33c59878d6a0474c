package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

func TestServerSaysThatTheLockIsLost(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]client.LossReason{
		"expired":          client.LossExpired,
		"already_released": client.LossReleasedElsewhere,
		"not_held":         client.LossNotHeld,
		"token_mismatch":   client.LossNotHeld,
		"force_released":   client.LossForceReleased,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
				s.on("/locks/renew", func(sent) reply { return refusal(404, code) })
				s.on("/locks/history", func(sent) reply {
					return success(`{"next_cursor":null,"events":[
						{"id":9,"event":"force_released","resource_name":"r","process_id":"x","fencing_token":6,
							"reason":"another","by":"x"},
						{"id":8,"event":"force_released","resource_name":"r","process_id":"p","fencing_token":7,
							"reason":"runner died","by":"ops"}]}`)
				})
				l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
				<-l.Done()
				if s.now() != 10*time.Second {
					t.Errorf("Done was closed after %v, want 10s, the first renewal", s.now())
				}
				var err *client.LostError
				if !errors.As(l.Err(), &err) || err.Why != want || err.FencingToken != 7 || err.Resource != "r" {
					t.Fatalf("Err is %#v", l.Err())
				}
				if want == client.LossForceReleased && (err.By != "ops" || err.Reason != "runner died") {
					t.Errorf("force-released by %q because %q", err.By, err.Reason)
				}
				if err := l.Unlock(context.Background()); !errors.Is(err, client.ErrLost) {
					t.Errorf("Unlock returns %v", err)
				}
				if len(s.requests("/locks/release")) > 0 {
					t.Error("a lost lock was released")
				}
				// Unlock reports the same loss if it is the first to detect it.
				s.on("/locks/release", func(sent) reply { return refusal(404, code) })
				l = mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
				lost := l.Unlock(context.Background())
				found := err
				if !errors.As(lost, &found) || found.Why != want || found.By != err.By || found.Reason != err.Reason {
					t.Errorf("Unlock returns %#v", lost)
				}
			})
		})
	}
}

// A history that does not answer delays the report of a loss by at most half a second.
func TestLossIsReportedWithoutTheHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/renew", func(sent) reply { return refusal(404, "force_released") })
		s.on("/locks/history", func(sent) reply { return reply{after: time.Hour} })
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		<-l.Done()
		if s.now() != 10500*time.Millisecond {
			t.Errorf("Done was closed after %v, want 10.5s", s.now())
		}
	})
}

// Nothing delays the end of a lock at its deadline.
func TestNothingHoldsDoneOpen(t *testing.T) {
	t.Parallel()
	t.Run("the next server is silent", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, "http://a:1,http://b:1", client.Options{})
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
				t.Errorf("Done was closed after %v", s.now())
			}
		})
	})
	t.Run("the machine is suspended during a renewal", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, c := startService(t, url, client.Options{})
			s.on("/locks/renew", func(sent) reply { return reply{after: time.Hour} })
			l := mustLock(t, c, client.LockOptions{TTL: time.Hour})
			advance(20*time.Minute + time.Second)
			s.suspendFor(2 * time.Hour)
			resumed := s.now()
			<-l.Done()
			if late := s.now() - resumed; late > time.Second {
				t.Errorf("Done was closed %v after the suspend", late)
			}
		})
	})
	t.Run("an observer blocks", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			released := make(chan struct{})
			s, c := startService(t, url, client.Options{Observer: client.Observer{
				Renewed: func(*client.Lock) { <-released },
			}})
			l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
			<-l.Done()
			if s.now() != 38500*time.Millisecond { // renewed at 10 s, less a margin of 1.5 s
				t.Errorf("Done was closed after %v", s.now())
			}
			close(released)
			if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) {
				t.Errorf("Unlock returns %v", err)
			}
		})
	})
}

// A renewal that succeeds after the end of a lock has no effect.
func TestEndedLockIsNotRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		advance(9900 * time.Millisecond)
		s.on("/locks/renew", func(sent) reply {
			a := granted(7, time.Minute, "")
			a.after = time.Second
			return a
		})
		advance(500 * time.Millisecond) // the renewal is running
		s.suspendFor(time.Minute)
		if !errors.Is(l.Err(), client.ErrLost) {
			t.Errorf("Err is %v", l.Err())
		}
		advance(5 * time.Second)
		if !errors.Is(l.Err(), client.ErrLost) {
			t.Errorf("then Err is %v", l.Err())
		}
	})
}

// In a suspend timers stop, but the clock of the client continues.
func TestSuspendedMachineLosesTheLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		advance(1500 * time.Millisecond)
		s.suspendFor(56 * time.Second)
		var err *client.LostError
		if !errors.As(l.Err(), &err) || err.Why != client.LossExpired {
			t.Errorf("right after the suspend Err is %v", l.Err())
		}
		if ok, err := l.Valid(context.Background()); ok || err != nil {
			t.Errorf("Valid returns %v, %v", ok, err)
		}
		advance(500 * time.Millisecond) // the next tick
		wantDone(t, l, true)
		if len(s.requests("/locks/renew")) > 0 {
			t.Error("a renewal was sent after the deadline")
		}
	})
}

func TestSuspendedMachineRenewsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		advance(1500 * time.Millisecond)
		s.suspendFor(50 * time.Second)
		advance(500 * time.Millisecond)
		wantDone(t, l, false)
		if len(s.requests("/locks/renew")) != 1 {
			t.Error("no renewal was sent after the suspend")
		}
		l.Abandon()
	})
}

// A program that resumes before the deadline renews without delay.
func TestPauseWithinTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second, Grace: 10 * time.Second})
		advance(9500 * time.Millisecond)
		s.suspendFor(9500 * time.Millisecond) // 11 s are left, 9.5 s until the deadline
		advance(time.Second)
		if l.Err() != nil || len(s.requests("/locks/renew")) != 1 {
			t.Errorf("%v after %d renewals", l.Err(), len(s.requests("/locks/renew")))
		}
		l.Abandon()
	})
}

func TestContextEndsWithTheLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/renew", func(sent) reply { return refusal(404, "expired") })
		l := mustLock(t, c, client.LockOptions{})
		ctx, cancel := l.Context(context.Background())
		defer cancel()
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, l.Err()) || !errors.Is(cause, client.ErrLost) {
			t.Errorf("the cause is %v", cause)
		}

		s.on("/locks/renew", nil)
		l = mustLock(t, c, client.LockOptions{})
		ctx, cancel = l.Context(context.Background())
		cancel()
		<-ctx.Done()
		wantDone(t, l, false)
		l.Abandon()
		if !errors.Is(l.Err(), client.ErrReleased) {
			t.Errorf("Err is %v", l.Err())
		}
		wantDone(t, l, true)
		if len(s.requests("/locks/release")) > 0 {
			t.Error("an abandoned lock was released")
		}
	})
}
