package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestRenewCountsFromNow: the TTL does not count from the acquire or from the previous
// expiry.
func TestRenewCountsFromNow(t *testing.T) {
	tests := []struct {
		name       string
		first, ttl any
		life       time.Duration
	}{
		{"longer", 300, 1000, 1000 * time.Second},
		{"shorter", 300, 10, 10 * time.Second},
		{"the same", 300, 300, 300 * time.Second},
		{"of one that never expires", nil, 60.5, 60500 * time.Millisecond},
		{"less than a microsecond", 300, 1e-9, time.Microsecond},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				r := fmt.Sprint("r", i)
				hold := s.hold(t, r, "p", test.first)
				s.clock.advance(100 * time.Second)
				for renewals := 1; renewals <= 2; renewals++ {
					a := s.renew(t, r, "p", test.ttl, hold.FencingToken)
					if test.life == time.Microsecond { // on Postgres it has expired before another request can read it
						a.want(t, 200)
						return
					}
					got := dataOf[wire.Renewed](t, a)
					wantMessage(t, a, fmt.Sprintf("Lock renewed successfully for resource '%s'", r))
					want := wire.Renewed{
						ResourceName: r, ProcessID: "p", FencingToken: hold.FencingToken, Renewals: renewals,
						Times: wire.Times{
							LockedAt: hold.LockedAt, ExpiresAt: got.ExpiresAt,
							ExpiresInSeconds: new(test.life.Seconds()),
						},
					}
					if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
						t.Error("renewed (-want +got):\n" + diff)
					}
					// Both times come from one clock, so this is exact on each database.
					if *got.ExpiresInSeconds != test.life.Seconds() {
						t.Errorf("expires in %v s, want %v", *got.ExpiresInSeconds, test.life)
					}
					life := time.Time(*got.ExpiresAt).Sub(time.Time(hold.LockedAt))
					if want := 100*time.Second + test.life; s.driver == store.SQLite && life != want {
						t.Errorf("a life of %v, want %v", life, want)
					}
					status := s.status(t, r)
					times := wire.Times{
						LockedAt: *status.LockedAt, ExpiresAt: status.ExpiresAt,
						ExpiresInSeconds: status.ExpiresInSeconds,
					}
					if diff := cmp.Diff(want.Times, times, s.equalHolds()); diff != "" || *status.Renewals != renewals {
						t.Errorf("status after %d renewals (-renewed +status):\n%s%+v", renewals, diff, status)
					}
				}
			})
		}
	})
}

// TestRenewedHoldLivesOn: the hold ends at the new expiry, not at the old one.
func TestRenewedHoldLivesOn(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := s.hold(t, "r", "p", 600)
		// without a token: any hold of the process
		got := dataOf[wire.Renewed](t, s.renew(t, "r", "p", s.brief().Seconds(), 0))
		if got.FencingToken != hold.FencingToken {
			t.Errorf("token %d after the renewal, %d before", got.FencingToken, hold.FencingToken)
		}
		s.outlive(t, func() bool { return !s.status(t, "r").IsLocked })
		s.acquire(t, "r", "q", nil).want(t, 200)
		if s.driver == store.SQLite {
			s.hold(t, "kept", "p", s.brief().Seconds())
			for range 3 {
				s.clock.advance(s.brief() - time.Microsecond)
				s.renew(t, "kept", "p", s.brief().Seconds(), 0).want(t, 200)
			}
			s.outlive(t, func() bool { return !s.status(t, "kept").IsLocked })
		}
	})
}

// TestRenewNeverCreatesRevivesOrSteals: a lost lock stays lost, and the code states why
// it was lost.
func TestRenewNeverCreatesRevivesOrSteals(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, s *server, r string) (token int64)
		code    wire.Code
	}{
		{"never held", func(*testing.T, *server, string) int64 { return 0 }, wire.CodeNotHeld},
		{"never held, with a token", func(*testing.T, *server, string) int64 { return 1 }, wire.CodeNotHeld},
		{"held by another", func(t *testing.T, s *server, r string) int64 {
			s.hold(t, r, "q", nil)
			return 0
		}, wire.CodeNotHeld},
		{"held by another, with its token", func(t *testing.T, s *server, r string) int64 {
			return s.hold(t, r, "q", nil).FencingToken
		}, wire.CodeNotHeld},
		{"expired", func(t *testing.T, s *server, r string) int64 {
			s.acquireAndOutlive(t, r, "p")
			return 0
		}, wire.CodeExpired},
		{"expired, with its token", func(t *testing.T, s *server, r string) int64 {
			return s.acquireAndOutlive(t, r, "p").FencingToken
		}, wire.CodeExpired},
		{"expired, and taken by another since", func(t *testing.T, s *server, r string) int64 {
			token := s.acquireAndOutlive(t, r, "p").FencingToken
			s.hold(t, r, "q", nil)
			return token
		}, wire.CodeExpired},
		{"released", func(t *testing.T, s *server, r string) int64 {
			s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			return 0
		}, wire.CodeAlreadyReleased},
		{"released before its minimum", func(t *testing.T, s *server, r string) int64 {
			token := dataOf[wire.Acquired](t, s.acquireWith(t, r, "p", fields{"min_hold_seconds": 600})).FencingToken
			s.release(t, r, "p").want(t, 200)
			return token
		}, wire.CodeAlreadyReleased},
		{"force-released", func(t *testing.T, s *server, r string) int64 {
			s.hold(t, r, "p", nil)
			s.forceRelease(t, r, "stuck").want(t, 200)
			return 0
		}, wire.CodeForceReleased},
		{"force-released, with its token", func(t *testing.T, s *server, r string) int64 {
			token := s.hold(t, r, "p", 600).FencingToken
			s.forceRelease(t, r, "stuck").want(t, 200)
			return token
		}, wire.CodeForceReleased},
		{"force-released, and taken by another since", func(t *testing.T, s *server, r string) int64 {
			token := s.hold(t, r, "p", 600).FencingToken
			s.forceRelease(t, r, "stuck").want(t, 200)
			s.hold(t, r, "q", nil)
			return token
		}, wire.CodeForceReleased},
		{"force-released, and taken by another run since", func(t *testing.T, s *server, r string) int64 {
			token := s.hold(t, r, "p", 600).FencingToken
			s.forceRelease(t, r, "stuck").want(t, 200)
			s.hold(t, r, "p", nil)
			return token
		}, wire.CodeForceReleased},
		{"force-released once, and released since", func(t *testing.T, s *server, r string) int64 {
			s.hold(t, r, "p", nil)
			s.forceRelease(t, r, "stuck").want(t, 200)
			s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			return 0
		}, wire.CodeAlreadyReleased},
		{"another's was force-released", func(t *testing.T, s *server, r string) int64 {
			token := s.hold(t, r, "q", nil).FencingToken
			s.forceRelease(t, r, "stuck").want(t, 200)
			return token
		}, wire.CodeNotHeld},
		{"force-released once, and expired since", func(t *testing.T, s *server, r string) int64 {
			s.hold(t, r, "p", nil)
			s.forceRelease(t, r, "stuck").want(t, 200)
			s.acquireAndOutlive(t, r, "p") // not force-released, swept or not
			return 0
		}, wire.CodeExpired},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				r := fmt.Sprint("r", i)
				token := test.prepare(t, s, r)
				before := s.state(t)
				s.renew(t, r, "p", 60, token).wantCode(t, 404, test.code)
				if s.driver == store.SQLite { // on Postgres the remaining seconds change
					if diff := cmp.Diff(before, s.state(t)); diff != "" {
						t.Error("a refusal changed (-before +after):\n" + diff)
					}
				}
				if got := s.status(t, r); got.IsLocked && got.Renewals != nil && *got.Renewals > 0 {
					t.Errorf("a refused renewal was counted: %+v", got)
				}
			})
		}
	})
}

// TestRenewToNoEnd: with null a lock never expires, also within its minimum. renew-all
// does not change that.
func TestRenewToNoEnd(t *testing.T) {
	onBothWithin(t, withLimits(lock.Limits{DefaultTTL: time.Minute}), func(t *testing.T, s *server) {
		hold := s.hold(t, "r", "p", nil)
		if hold.ExpiresAt == nil {
			t.Fatal("it did not get the default TTL")
		}
		for renewals := 1; renewals <= 2; renewals++ {
			got := dataOf[wire.Renewed](t, s.renew(t, "r", "p", json.RawMessage("null"), hold.FencingToken))
			want := wire.Renewed{
				ResourceName: "r", ProcessID: "p", FencingToken: hold.FencingToken, Renewals: renewals,
				Times: wire.Times{LockedAt: hold.LockedAt},
			}
			if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
				t.Error("renewed (-want +got):\n" + diff)
			}
		}
		for _, holds := range []any{nil, []wire.HoldRef{{ResourceName: "r", FencingToken: hold.FencingToken}}} {
			got := dataOf[wire.RenewedAll](t,
				s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": 30, "holds": holds}))
			if diff := cmp.Diff(wire.RenewedAll{ProcessID: "p", WithoutExpiry: 1, Lost: []wire.HoldRef{}},
				got); diff != "" {
				t.Error("renewed all (-want +got):\n" + diff)
			}
		}
		s.clock.advance(time.Hour)
		if got := s.status(t, "r"); !got.IsLocked || got.ExpiresAt != nil {
			t.Errorf("an hour later: %+v", got)
		}
		s.renew(t, "r", "p", 60, 0).want(t, 200)
		if got := s.status(t, "r"); got.ExpiresAt == nil {
			t.Errorf("renewed to an end: %+v", got)
		}
		// In an acquire null is the default.
		s.acquireWith(t, "other", "p", fields{"ttl_seconds": json.RawMessage("null")}).want(t, 200)
		if got := s.status(t, "other"); got.ExpiresAt == nil {
			t.Errorf("acquired with null: %+v", got)
		}
	})
}
