package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestReleaseWithinTheMinimum: the process has released the lock, but the resource stays
// taken, and the responses state until when.
func TestReleaseWithinTheMinimum(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, ttl := range []any{nil, 3000} {
			t.Run(fmt.Sprint("ttl ", ttl), func(t *testing.T) {
				r := fmt.Sprint("r", ttl)
				hold := dataOf[wire.Acquired](t,
					s.acquireWith(t, r, "p", fields{"min_hold_seconds": 600, "ttl_seconds": ttl, "request_id": "run"}))
				freeAt := wire.Time(time.Time(hold.LockedAt).Add(600 * time.Second))
				status := s.status(t, r)
				if !cmp.Equal(&freeAt, status.MinHoldUntil, s.equalHolds()) || status.ReleasedAt != nil {
					t.Errorf("status before the release: %+v", status)
				}
				s.clock.advance(10 * time.Second)

				a := s.release(t, r, "p")
				released := dataOf[wire.Released](t, a)
				wantMessage(t, a, fmt.Sprintf("Lock released successfully for resource '%s'", r))
				want := wire.Released{ResourceName: r, ProcessID: "p", ReleasedAt: released.ReleasedAt, FreeAt: &freeAt}
				if diff := cmp.Diff(want, released, s.equalHolds()); diff != "" {
					t.Error("released (-want +got):\n" + diff)
				}

				left := 590.0
				wantStatus := wire.Status{
					ResourceName: r, IsLocked: true, LockedBy: new("p"), LockedAt: &hold.LockedAt, ExpiresAt: &freeAt,
					ExpiresInSeconds: &left,
					FencingToken:     &hold.FencingToken, Renewals: new(0), MinHoldUntil: &freeAt,
					ReleasedAt: &released.ReleasedAt,
				}
				if diff := cmp.Diff(wantStatus, s.status(t, r), s.equalHolds()); diff != "" {
					t.Error("status (-want +got):\n" + diff)
				}
				before := s.state(t)
				// The process of the hold gets no more than others, also if it repeats
				// the request that was granted the hold.
				for _, process := range []string{"q", "p"} {
					conflict := decode[wire.Conflict](t,
						s.acquireWith(t, r, process, fields{"request_id": "run"}).want(t, 409).body)
					if !cmp.Equal(&left, conflict.RetryAfterSeconds, s.equalHolds()) {
						t.Errorf("%s is to retry after %v", process, conflict.RetryAfterSeconds)
					}
				}
				s.release(t, r, "p").wantCode(t, 404, wire.CodeAlreadyReleased)
				s.releaseToken(t, r, "p", hold.FencingToken).wantCode(t, 404, wire.CodeAlreadyReleased)
				s.renew(t, r, "p", 60, hold.FencingToken).wantCode(t, 404, wire.CodeAlreadyReleased)
				s.release(t, r, "q").wantCode(t, 404, wire.CodeNotHeld)
				if diff := cmp.Diff(before, s.state(t)); s.driver == store.SQLite && diff != "" {
					t.Error("refusals changed (-before +after):\n" + diff)
				}
			})
		}
	})
}

// TestFreeAfterTheMinimum: the resource is free after the minimum, whether or not it was
// released before.
func TestFreeAfterTheMinimum(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", fields{"min_hold_seconds": s.brief().Seconds()}))
		s.release(t, "r", "p").want(t, 200)
		var next answer
		s.outlive(t, func() bool {
			next = s.acquire(t, "r", "q", nil)
			return next.status == 200
		})
		if got := dataOf[wire.Acquired](t, next); got.FencingToken <= hold.FencingToken || got.ExpiresAt != nil {
			t.Errorf("the next hold is %+v, after %+v", got, hold)
		}
		// The end of the first hold was recorded when it was released. The end of its
		// minimum is no event.
		want := []string{"acquired r q", "released r p", "acquired r p"}
		if diff := cmp.Diff(want, eventLines(s.history(t).Events)); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
	})
}

// TestReleaseAfterTheMinimum: the release frees the resource at once.
func TestReleaseAfterTheMinimum(t *testing.T) {
	tests := []struct {
		name string
		min  any
	}{
		{"a minimum that has passed", "brief"},
		{"a minimum of zero", 0},
		{"a minimum of minus zero", json.RawMessage("-0")},
		{"null", nil},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				if test.min == "brief" {
					// Another hold with the same TTL shows when the minimum has passed.
					s.acquireWith(t, "r", "p", fields{"min_hold_seconds": s.brief().Seconds()}).want(t, 200)
					s.acquireAndOutlive(t, "other", "p")
				} else {
					s.acquireWith(t, "r", "p", fields{"min_hold_seconds": test.min}).want(t, 200)
				}
				a := s.release(t, "r", "p").want(t, 200)
				if strings.Contains(a.body, "free_at") || s.status(t, "r").IsLocked {
					t.Errorf("not free after %s", a.body)
				}
			})
		}
	})
}

// TestMinimumIsNotAnExpiry: a lock that is not released stays locked after the minimum.
func TestMinimumIsNotAnExpiry(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.acquireWith(t, "r", "p", fields{"min_hold_seconds": 60}).want(t, 200)
	s.clock.advance(time.Hour)
	if got := s.status(t, "r"); !got.IsLocked || got.ExpiresAt != nil {
		t.Errorf("got %+v", got)
	}
	s.acquire(t, "r", "q", nil).want(t, 409)
}

// TestMinimumAsLongAsTheTTL tests the longest allowed minimum.
func TestMinimumAsLongAsTheTTL(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireWith(t, "r", "p", fields{"min_hold_seconds": 60, "ttl_seconds": 60}).want(t, 200)
		a := s.acquireWith(t, "other", "p", fields{"min_hold_seconds": 60.000001, "ttl_seconds": 60})
		got := decode[wire.ValidationFailure](t, a.want(t, 422).body).Detail
		if len(got) != 1 || fmt.Sprint(got[0].Loc) != "[body min_hold_seconds]" ||
			got[0].Msg != "Input should be less than or equal to ttl_seconds" {
			t.Errorf("got %s", a.body)
		}
		if diff := cmp.Diff([]string{"r"}, s.lockedNames(t)); diff != "" {
			t.Error("locked (-want +got):\n" + diff)
		}
	})
}
