package client_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

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
		"held":            {[]reply{success(`{}`)}, t.Context(), nil, nil, 0, 1},
		"ctx has ended":   {[]reply{success(`{}`)}, canceled, nil, nil, 0, 1},
		"slow, ctx ended": {[]reply{{err: errRefused}, success(`{}`)}, canceled, nil, nil, 50 * time.Millisecond, 2},
		"answer was lost": {
			[]reply{{err: errRefused}, refusal(404, "already_released")},
			t.Context(), nil, nil, 50 * time.Millisecond, 2,
		},
		"elsewhere":      {[]reply{refusal(404, "already_released")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"expired":        {[]reply{refusal(404, "expired")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"force-released": {[]reply{refusal(404, "force_released")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"unknown":        {[]reply{refusal(404, "not_held")}, t.Context(), client.ErrLost, client.ErrLost, 0, 1},
		"another page":   {[]reply{{body: "welcome"}, success(`{}`)}, t.Context(), &client.APIError{}, nil, 0, 2},
		"failure at first": {
			[]reply{refusal(500, "internal_error"), success(`{}`)},
			t.Context(), &client.APIError{}, nil, 0, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var released time.Duration
				var lost error
				s, c := startService(t, url, client.Options{Observer: client.Observer{
					Released: func(_ *client.Lock, held time.Duration) { released = held },
					Lost:     func(_ *client.Lock, err *client.LostError) { lost = err },
				}})
				s.on("/locks/release", inOrder(test.replies...))
				l := mustLock(t, c, client.LockOptions{})
				advance(time.Second)
				for i, want := range []error{test.want, test.again} {
					err := l.Unlock(test.ctx)
					var api *client.APIError
					matches := errors.Is(err, want) || want != nil && errors.As(err, &api) && errors.As(want, &api)
					if !matches {
						t.Errorf("call %d returns %v, want %v", i+1, err, want)
					}
					wantDone(t, l, true)
				}
				if took := s.now() - time.Second; took != test.took || len(s.requests("/locks/release")) != test.sent {
					t.Errorf("Unlock took %v and sent %v", took, s.requests("/locks/release"))
				}
				confirmed := test.again == nil
				if confirmed != (released > 0) || confirmed == (lost != nil) || !errors.Is(l.Err(), client.ErrReleased) {
					t.Errorf("the observer got %v and %v, and Err is %v", released, lost, l.Err())
				}
				body := s.requests("/locks/release")[0].body
				if body["fencing_token"] != 7.0 || body["process_id"] != l.Owner() {
					t.Errorf("released %v", body)
				}
			})
		})
	}
}

// Unlock fails five seconds after the end of ctx, or else at the expiry of the lock.
func TestUnlockTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := l.Unlock(ctx)
		if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrLost) || s.now() != 5*time.Second {
			t.Errorf("after %v: %v", s.now(), err)
		}
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrUnavailable) || s.now() != time.Minute {
			t.Errorf("after %v: %v", s.now(), err)
		}
	})
}

// After an outage Unlock releases the hold that the server may still have, and reports
// the loss.
func TestUnlockAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/renew", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: time.Minute})
		<-l.Done()
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) || len(s.requests("/locks/release")) != 1 {
			t.Errorf("got %v after %v", err, s.requests("/locks/release"))
		}
		advance(time.Minute)
		if err := l.Unlock(t.Context()); !errors.Is(err, client.ErrLost) || len(s.requests("/locks/release")) != 1 {
			t.Errorf("got %v after %v", err, s.requests("/locks/release"))
		}
	})
}

// Unlock closes Done before it sends the request: the server may release the lock long
// before its answer arrives.
func TestUnlockClosesDoneFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
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
			t.Errorf("a second, concurrent Unlock returns %v", err)
		}
		if err := <-released; err != nil {
			t.Error(err)
		}
	})
}

// If the caller's context ended because another lock was lost, Unlock does not return
// that loss.
func TestUnlockReturnsTheLossOfItsLockOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
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

// Unlock and Err report the same result when Unlock races with the loss of the lock.
func TestUnlockThatRacesWithALoss(t *testing.T) {
	t.Parallel()
	s, _ := startService(t, url, client.Options{})
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
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for l.Err() == nil {
					runtime.Gosched()
				}
			})
		}
		<-time.After(time.Until(l.Deadline()) - time.Duration(i)*5*time.Microsecond)
		err = l.Unlock(t.Context())
		readers.Wait()
		first := <-observed
		lost := errors.Is(err, client.ErrLost)
		if lost != errors.Is(l.Err(), client.ErrLost) || lost != (first == "lost") || len(observed) > 0 {
			t.Fatalf("Err is %v, Unlock returns %v, the observer got %q and %d more events",
				l.Err(), err, first, len(observed))
		}
	}
}

// Once the lock has expired without a confirmation, the result of Unlock is final.
func TestResultOfUnlockIsFinal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
		l := mustLock(t, c, client.LockOptions{TTL: 30 * time.Second})
		first := l.Unlock(t.Context())
		sent := len(s.requests("/locks/release"))
		for range 2 {
			advance(time.Second)
			err := l.Unlock(t.Context())
			if !errors.Is(err, client.ErrUnavailable) || err.Error() != first.Error() ||
				len(s.requests("/locks/release")) != sent {
				t.Errorf("Unlock returns %v, then %v", first, err)
			}
		}
	})
}

func TestAbandonedLockIsNotReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		if err := c.Do(t.Context(), "r", client.LockOptions{}, func(_ context.Context, l *client.Lock) error {
			l.Abandon()
			return nil
		}); err != nil {
			t.Error(err)
		}
		l := mustLock(t, c, client.LockOptions{})
		l.Abandon()
		advance(2 * time.Minute)
		if err := l.Unlock(context.Background()); err != nil || len(s.requests("/locks/release")) > 0 {
			t.Errorf("Unlock returns %v after %v", err, s.requests("/locks/release"))
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
		"no failure":              {granted(7, time.Minute, ""), nil, nil, nil},
		"the work fails":          {granted(7, time.Minute, ""), errWork, []error{errWork}, []error{client.ErrLost}},
		"lost":                    {refusal(404, "expired"), nil, []error{client.ErrLost}, nil},
		"lost and the work fails": {refusal(404, "expired"), errWork, []error{client.ErrLost, errWork}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
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
			s, c := startService(t, url, client.Options{})
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, errWork) || len(s.requests("/locks/release")) != 1 {
					t.Errorf("released %v", s.requests("/locks/release"))
				}
			}()
			_ = c.Do(t.Context(), "r", client.LockOptions{}, func(context.Context, *client.Lock) error { panic(errWork) })
		})
	})
}

func TestDoReturnsWithinTheUnlockTime(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]func(cancel func()){
		"ctx is canceled": func(cancel func()) { cancel() },
		"a panic":         func(func()) { panic("the work") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := startService(t, url, client.Options{})
				s.on("/locks/release", func(sent) reply { return reply{err: errRefused} })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				defer func() {
					if _ = recover(); s.now() != 5*time.Second {
						t.Errorf("Do took %v", s.now())
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
