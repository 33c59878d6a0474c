package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/wire"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		// prepare returns the token to check, and the current hold, if any.
		prepare func(t *testing.T, s *server, r string) (token int64, current *wire.Acquired)
		valid   bool
	}{
		{"never held", func(*testing.T, *server, string) (int64, *wire.Acquired) { return 1, nil }, false},
		{"current", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", nil)
			return h.FencingToken, &h
		}, true},
		{"current, with an expiry", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", 600)
			return h.FencingToken, &h
		}, true},
		{"renewed", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", 60)
			h.Times = dataOf[wire.Renewed](t, s.renew(t, r, "p", 600, 0)).Times
			return h.FencingToken, &h
		}, true},
		{"stale", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			stale := s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			h := s.hold(t, r, "q", 600)
			return stale.FencingToken, &h
		}, false},
		{"stale, of the same process", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			stale := s.acquireAndOutlive(t, r, "p")
			h := s.hold(t, r, "p", 600)
			return stale.FencingToken, &h
		}, false},
		// A token that was never given is invalid, even if it is higher.
		{"future", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", nil)
			return h.FencingToken + 1, &h
		}, false},
		{"the highest number", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", nil)
			return 1<<63 - 1, &h
		}, false},
		{"of another resource", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			token := s.hold(t, r+" other", "p", nil).FencingToken
			for {
				h := s.hold(t, r, "p", nil)
				if h.FencingToken > token {
					return token, &h
				}
				s.release(t, r, "p").want(t, 200) // while the clock stands both tokens are the same at first
			}
		}, false},
		{"released", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			return h.FencingToken, nil
		}, false},
		// The process has finished its work: any later write with this token is invalid.
		{"released within its minimum", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := dataOf[wire.Acquired](t, s.acquireWith(t, r, "p", fields{"min_hold_seconds": 600}))
			s.release(t, r, "p").want(t, 200)
			return h.FencingToken, nil
		}, false},
		{"expired", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			return s.acquireAndOutlive(t, r, "p").FencingToken, nil
		}, false},
		{"force-released", func(t *testing.T, s *server, r string) (int64, *wire.Acquired) {
			h := s.hold(t, r, "p", nil)
			s.forceRelease(t, r, "stuck").want(t, 200)
			return h.FencingToken, nil
		}, false},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				r := fmt.Sprint("r", i)
				token, current := test.prepare(t, s, r)
				want := wire.Validity{Valid: test.valid, ResourceName: r, FencingToken: token}
				if current != nil {
					want.CurrentFencingToken, want.ExpiresInSeconds = &current.FencingToken, current.ExpiresInSeconds
				}
				a := s.get(t, "/locks/validate", "resource_name", r, "fencing_token", fmt.Sprint(token))
				if diff := cmp.Diff(want, dataOf[wire.Validity](t, a), s.equalHolds()); diff != "" {
					t.Error("validity (-want +got):\n" + diff)
				}
				not := "not "
				if test.valid {
					not = ""
				}
				wantMessage(t, a, fmt.Sprintf("Fencing token is %svalid for resource '%s'", not, r))
			})
		}
	})
}

// TestValidUntilTheExpiry is exact to the microsecond on SQLite.
func TestValidUntilTheExpiry(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := s.hold(t, "r", "p", s.brief().Seconds())
		s.outlive(t, func() bool {
			got := s.validate(t, "r", hold.FencingToken)
			if got.Valid != (got.CurrentFencingToken != nil) || got.Valid != (got.ExpiresInSeconds != nil) {
				t.Errorf("got %+v", got)
			}
			if got.Valid && *got.ExpiresInSeconds <= 0 {
				t.Errorf("valid, and expires in %v s", time.Duration(*got.ExpiresInSeconds*1e9))
			}
			return !got.Valid
		})
	})
}
