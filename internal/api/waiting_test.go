package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestGrantedAfterARelease: the response is that of any acquire, with the time that the
// request waited.
func TestGrantedAfterARelease(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		before := s.hold(t, "r", "p", nil)
		waiting := s.wait(t, "r", "q", fields{
			"ttl_seconds": 600, "min_hold_seconds": 60, "reason": "nightly backup", "metadata": fields{"host": "db-1"},
		})
		since := s.queue(t, "r").Waiters[0].WaitingSince
		s.clock.advance(12500 * time.Millisecond)
		waiting.stillWaits(t)
		released := dataOf[wire.Released](t, s.release(t, "r", "p"))

		a := waiting.answer(t)
		wantMessage(t, a, "Lock acquired successfully for resource 'r'")
		got := dataOf[wire.Acquired](t, a)
		want := wire.Acquired{
			LockID: before.LockID, ResourceName: "r", ProcessID: "q", FencingToken: got.FencingToken,
			Times: wire.Times{
				LockedAt:  released.ReleasedAt,
				ExpiresAt: new(wire.Time(time.Time(got.LockedAt).Add(600 * time.Second))),
			},
		}
		want.ExpiresInSeconds = new(600.0)
		want.WaitedSeconds = time.Time(got.LockedAt).Sub(time.Time(since)).Seconds()
		if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
			t.Error("granted (-want +got):\n" + diff)
		}
		if got.WaitedSeconds <= 0 || s.driver == store.SQLite && got.WaitedSeconds != 12.5 ||
			got.FencingToken <= before.FencingToken {
			t.Errorf("waited for %v seconds, and the token is %d after %d", got.WaitedSeconds, got.FencingToken,
				before.FencingToken)
		}
		status := s.status(t, "r")
		wantStatus := wire.Status{
			ResourceName: "r", IsLocked: true, LockedBy: new("q"), LockedAt: &got.LockedAt, ExpiresAt: got.ExpiresAt,
			ExpiresInSeconds: got.ExpiresInSeconds, FencingToken: &got.FencingToken, Renewals: new(0),
			Reason: new("nightly backup"), Metadata: []byte(`{"host":"db-1"}`),
			MinHoldUntil: new(wire.Time(time.Time(got.LockedAt).Add(60 * time.Second))),
		}
		if diff := cmp.Diff(wantStatus, status, s.equalHolds()); diff != "" {
			t.Error("status (-want +got):\n" + diff)
		}
		s.wantWaiters(t, "r")
		s.renew(t, "r", "q", 60, got.FencingToken).want(t, 200) // the hold is like any other
		s.releaseToken(t, "r", "q", got.FencingToken).want(t, 200)
	})
}

// TestFreeIsGrantedAtOnce: a request that may wait is granted a free resource at once.
func TestFreeIsGrantedAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range []string{"new", "released", "expired"} {
			switch name {
			case "released":
				s.hold(t, name, "p", nil)
				s.release(t, name, "p").want(t, 200)
			case "expired":
				s.acquireAndOutlive(t, name, "p")
			}
			got := s.ask(t, name, "q", nil).granted(t)
			if got.WaitedSeconds != 0 {
				t.Errorf("%s: waited for %v seconds", name, got.WaitedSeconds)
			}
			if events := eventLines(s.history(t, "process_id", "q", "limit", "1").Events); !slices.Equal(events,
				[]string{"acquired " + name + " q"}) {
				t.Errorf("history: %q", events)
			}
		}
	})
}

// TestEveryEndHandsOver: whatever ends the hold, the next waiter gets the resource, and
// the others continue to wait.
func TestEveryEndHandsOver(t *testing.T) {
	tests := []struct {
		name string
		hold fields
		end  func(t *testing.T, s *server, hold wire.Acquired)
	}{
		{"release", nil, func(t *testing.T, s *server, _ wire.Acquired) { s.release(t, "r", "p").want(t, 200) }},
		{"release by token", nil, func(t *testing.T, s *server, h wire.Acquired) {
			s.releaseToken(t, "r", "p", h.FencingToken).want(t, 200)
		}},
		{
			"force-release", nil,
			func(t *testing.T, s *server, _ wire.Acquired) { s.forceRelease(t, "r", "stuck").want(t, 200) },
		},
		{"release-all", nil, func(t *testing.T, s *server, _ wire.Acquired) {
			if got := dataOf[wire.ReleasedAll](t,
				s.delete(t, "/locks/release-all", "process_id", "p")); got.Released != 1 {
				t.Errorf("released %+v", got)
			}
		}},
		{
			"force-release within the minimum",
			fields{"min_hold_seconds": 600},
			func(t *testing.T, s *server, _ wire.Acquired) {
				s.release(t, "r", "p").want(t, 200)
				s.wantWaiters(t, "r", "first", "second") // not granted before the minimum has passed
				s.forceRelease(t, "r", "stuck").want(t, 200)
			},
		},
		// No client sends a command when the hold expires, and the server does not
		// recheck in this test.
		{
			"expiry",
			fields{"ttl_seconds": 0.05},
			func(_ *testing.T, s *server, _ wire.Acquired) { s.clock.advance(50 * time.Millisecond) },
		},
		{"the end of the minimum", fields{"min_hold_seconds": 0.05}, func(t *testing.T, s *server, _ wire.Acquired) {
			s.release(t, "r", "p").want(t, 200)
			s.clock.advance(50 * time.Millisecond)
		}},
		{
			"expiry of a hold that was renewed",
			fields{"ttl_seconds": 600},
			func(t *testing.T, s *server, h wire.Acquired) {
				s.renew(t, "r", "p", 0.05, h.FencingToken).want(t, 200)
				s.clock.advance(50 * time.Millisecond)
			},
		},
		{
			"expiry of a hold that was renewed with all",
			fields{"ttl_seconds": 600},
			func(t *testing.T, s *server, _ wire.Acquired) {
				s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": 0.05}).want(t, 200)
				s.clock.advance(50 * time.Millisecond)
			},
		},
		{"a sweep", fields{"ttl_seconds": 3000}, func(t *testing.T, s *server, _ wire.Acquired) {
			// the clock cannot be advanced, and with a brief TTL the timer would be first
			if s.driver == store.Postgres {
				s.forceRelease(t, "r", "stuck").want(t, 200)
				return
			}
			s.clock.advance(3000 * time.Second)
			s.sweepExpired(t)
		}},
		{"a recheck of the database", fields{"ttl_seconds": 3000}, func(t *testing.T, s *server, _ wire.Acquired) {
			if s.driver == store.Postgres {
				s.forceRelease(t, "r", "stuck").want(t, 200)
				return
			}
			s.clock.advance(3000 * time.Second)
			s.locks.WakeAll()
		}},
		{"a hint", fields{"ttl_seconds": 3000}, func(t *testing.T, s *server, _ wire.Acquired) {
			if s.driver == store.Postgres {
				s.forceRelease(t, "r", "stuck").want(t, 200)
				return
			}
			s.clock.advance(3000 * time.Second)
			s.locks.Wake("other")
			s.locks.Wake("r")
		}},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				// On Postgres a brief hold may expire before the first request waits.
				// Then that request is granted the resource at once.
				hold := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", test.hold))
				first := s.ask(t, "r", "first", nil)
				var second *pending
				if brief := test.hold["ttl_seconds"] == 0.05 || test.hold["min_hold_seconds"] == 0.05; !brief {
					s.wantWaiters(t, "r", "first")
					second = s.wait(t, "r", "second", nil)
				} else if s.driver == store.SQLite {
					s.wantWaiters(t, "r", "first")
				}
				test.end(t, s, hold)
				got := first.granted(t)
				s.wantHolder(t, "r", got)
				if got.FencingToken <= hold.FencingToken {
					t.Errorf("token %d after %d", got.FencingToken, hold.FencingToken)
				}
				if second != nil {
					second.stillWaits(t)
					s.wantWaiters(t, "r", "second")
					second.disconnect()
					s.wantWaiters(t, "r")
				}
				s.release(t, "r", "first").want(t, 200)
			})
		}
	})
}

// TestWaitTimeout: the response is that of any conflict, with the time that the request
// waited.
func TestWaitTimeout(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, ttl := range []any{nil, 600} {
			hold := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", fields{"ttl_seconds": ttl, "reason": "why"}))
			other := s.wait(t, "r", "other", nil)
			sent := time.Now()
			a := s.ask(t, "r", "q", fields{"wait_seconds": 0.05}).answer(t)
			took := time.Since(sent)
			a.wantFailure(t, 409, wire.CodeWaitTimeout, "Resource 'r' is still locked by process 'p'")
			got := decode[wire.Conflict](t, a.body)
			waited := *got.WaitedSeconds
			// wait_seconds counts from the start of the request, and waited_seconds from
			// its queueing, slightly later.
			if took < 50*time.Millisecond || waited <= 0 || waited > took.Seconds() {
				t.Errorf("waited for %v seconds of %v, want 0.05 in all", waited, took.Seconds())
			}
			want := wire.Conflict{
				Detail: got.Detail, Code: wire.CodeWaitTimeout, Waiters: 1, WaitedSeconds: &waited,
				Holder: &wire.Hold{
					ProcessID: "p", Times: hold.Times, FencingToken: hold.FencingToken,
					Reason: new("why"),
				},
			}
			header := ""
			if ttl != nil {
				want.RetryAfterSeconds, header = new(600.0), "600"
			}
			if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
				t.Error("conflict (-want +got):\n" + diff)
			}
			if got := a.header.Get("Retry-After"); s.driver == store.SQLite && got != header {
				t.Errorf("Retry-After %q, want %q", got, header)
			}
			s.wantWaiters(t, "r", "other")
			s.release(t, "r", "p").want(t, 200)
			other.granted(t) // the one that gave up is not in its way
			s.release(t, "r", "other").want(t, 200)
		}
	})
}

// TestWithoutWaiting: a request without wait_seconds does not wait, and every conflict
// has the number of waiters.
func TestWithoutWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := s.hold(t, "r", "p", nil)
		conflict := func(wait string) {
			t.Helper()
			waiters := len(s.waiters(t, "r"))
			a := s.call(t, "POST", "/locks/request", `{"resource_name":"r","process_id":"q"`+wait+`}`)
			got := decode[wire.Conflict](t, a.want(t, 409).body)
			want := wire.Conflict{
				Detail: "Resource 'r' is already locked by process 'p'", Code: wire.CodeAlreadyLocked, Waiters: waiters,
				Holder: &wire.Hold{ProcessID: "p", Times: hold.Times, FencingToken: hold.FencingToken},
			}
			if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
				t.Error("conflict (-want +got):\n" + diff)
			}
			if got := s.status(t, "r").Waiters; got != waiters {
				t.Errorf("status has %d waiters, want %d", got, waiters)
			}
		}
		conflict("")
		for i, wait := range []string{`,"wait_seconds":0`, `,"wait_seconds":-0.0`, `,"wait_seconds":null`, ``} {
			s.wait(t, "r", numbered("w", 9)[i], nil)
			conflict(wait)
		}
	})
}

// TestOperatorsLongestWait tests MAX_WAIT.
func TestOperatorsLongestWait(t *testing.T) {
	s := boundedServer(t, store.SQLite, withLimits(lock.Limits{MaxWait: 1500 * time.Millisecond}))
	wantFault(t, s.acquireWith(t, "r", "p", fields{"wait_seconds": 1.500001}), "wait_seconds",
		"Input should be less than or equal to 1.5")
	s.wantNothingLocked(t)
	s.acquireWith(t, "r", "p", fields{"wait_seconds": 1.5}).want(t, 200)
}

// TestACrowdIsServedInOrder: each waiter is granted the resource as soon as the one
// before has released it. The server does not recheck in this test.
func TestACrowdIsServedInOrder(t *testing.T) {
	const many = 40
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		names := numbered("w", many)
		var crowd []*pending
		for _, name := range names {
			crowd = append(crowd, s.wait(t, "r", name, nil))
		}
		holder, last := "p", int64(0)
		for i, waiting := range crowd {
			s.release(t, "r", holder).want(t, 200)
			got := waiting.granted(t)
			if got.FencingToken <= last {
				t.Errorf("token %d after %d", got.FencingToken, last)
			}
			if i+1 < many {
				crowd[i+1].stillWaits(t)
			}
			holder, last = names[i], got.FencingToken
		}
		s.release(t, "r", holder).want(t, 200)
		want := wire.Status{ResourceName: "r"}
		if diff := cmp.Diff(want, s.status(t, "r"), s.equalHolds()); diff != "" {
			t.Error("after the last release (-want +got):\n" + diff)
		}
	})
}

// TestNewcomerDoesNotOvertake: a resource with waiters is not granted to a new request at
// the time of the release.
func TestNewcomerDoesNotOvertake(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		waiting := s.wait(t, "r", "q", nil)
		// They share transactions with the release, before and after it.
		var newcomers []*pending
		for range crowd {
			newcomers = append(newcomers, s.ask(t, "r", "newcomer", fields{"wait_seconds": nil}))
		}
		s.release(t, "r", "p").want(t, 200)
		s.wantHolder(t, "r", waiting.granted(t))
		for _, p := range newcomers {
			p.answer(t).want(t, 409)
		}
	})
}

// TestRefusalAtTheTimeOfTheExpiry: a new request right after the expiry, before the
// server has noticed it, is refused. It does not delay the waiter for which the resource
// is reserved.
func TestRefusalAtTheTimeOfTheExpiry(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.hold(t, "r", "p", 600)
	waiting := s.wait(t, "r", "q", nil)
	s.clock.advance(600 * time.Second)
	a := s.acquire(t, "r", "newcomer", nil)
	a.wantFailure(t, 409, wire.CodeReserved, "Resource 'r' is reserved for process 'q', which waits for it")
	got := decode[wire.Conflict](t, a.body)
	if got.Holder != nil || got.RetryAfterSeconds != nil || got.Waiters != 1 || a.header.Get("Retry-After") != "" {
		t.Errorf("got %s with Retry-After %q, want no holder and 1 waiter", a.body, a.header.Get("Retry-After"))
	}
	s.wantHolder(t, "r", waiting.granted(t))
}
