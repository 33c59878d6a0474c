package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// TestOperatorsLimits tests MAX_TTL and DEFAULT_TTL.
func TestOperatorsLimits(t *testing.T) {
	const never = 0
	within := "Input should be less than or equal to 60"
	required := "Field required: locks that never expire are not allowed, the longest TTL is 60 seconds"
	minute := lock.Limits{MaxTTL: time.Minute}
	both := lock.Limits{MaxTTL: time.Minute, DefaultTTL: 30 * time.Second}
	tests := []struct {
		name   string
		limits lock.Limits
		body   fields
		life   time.Duration
		field  string // of the fault; empty: granted
		detail string
	}{
		{"no limits", lock.Limits{MaxTTL: maxTTL}, fields{}, never, "", ""},
		{"the maximum", minute, fields{"ttl_seconds": 60}, time.Minute, "", ""},
		{"too much", minute, fields{"ttl_seconds": 60.000001}, 0, "ttl_seconds", within},
		{"never", minute, fields{}, 0, "ttl_seconds", required},
		{
			"fraction",
			lock.Limits{MaxTTL: 1500 * time.Millisecond},
			fields{"ttl_seconds": 2},
			0, "ttl_seconds",
			"Input should be less than or equal to 1.5",
		},
		{"default", lock.Limits{MaxTTL: maxTTL, DefaultTTL: 30 * time.Second}, fields{}, 30 * time.Second, "", ""},
		{
			"default equal to the maximum",
			lock.Limits{MaxTTL: time.Minute, DefaultTTL: time.Minute},
			fields{},
			time.Minute, "", "",
		},
		{"not the default", both, fields{"ttl_seconds": 50}, 50 * time.Second, "", ""},
		{
			"a minimum above the default", both,
			fields{"min_hold_seconds": 31},
			0, "min_hold_seconds",
			"Input should be less than or equal to ttl_seconds",
		},
		{"a minimum as the default", both, fields{"min_hold_seconds": 30}, 30 * time.Second, "", ""},
		{
			"a minimum beyond the maximum",
			lock.Limits{MaxTTL: maxTTL},
			fields{"min_hold_seconds": 4e9},
			0,
			"min_hold_seconds", "Input should be less than or equal to 3155760000",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBothWithin(t, withLimits(test.limits), func(t *testing.T, s *server) {
				a := s.acquireWith(t, "r", "p", test.body)
				if test.field != "" {
					wantFault(t, a, test.field, test.detail)
					s.wantNothingLocked(t)
					return
				}
				got := dataOf[wire.Acquired](t, a)
				switch {
				case (got.ExpiresAt == nil) != (test.life == never):
					t.Errorf("got %+v, want a life of %v", got, test.life)
				case got.ExpiresAt != nil:
					if life := time.Time(*got.ExpiresAt).Sub(time.Time(got.LockedAt)); life != test.life {
						t.Errorf("a life of %v, want %v", life, test.life)
					}
				}
			})
		})
	}
}

// TestRenewalsRespectTheMaximum: renewals have the maximum, but no default. A renewal
// without a TTL is a mistake.
func TestRenewalsRespectTheMaximum(t *testing.T) {
	limits := lock.Limits{MaxTTL: time.Minute, DefaultTTL: 30 * time.Second}
	onBothWithin(t, withLimits(limits), func(t *testing.T, s *server) {
		s.acquire(t, "r", "p", nil).want(t, 200)
		for _, path := range []string{"/locks/renew", "/locks/renew-all"} {
			t.Run(path, func(t *testing.T) {
				renew := func(ttl any) answer {
					return s.post(t, path, fields{"resource_name": "r", "process_id": "p", "ttl_seconds": ttl})
				}
				wantFault(t, renew(60.1), "ttl_seconds", "Input should be less than or equal to 60")
				wantFault(t, renew(nil), "ttl_seconds", "Field required") // fields omits nil
				null := "Field required: locks that never expire are not allowed, the longest TTL is 60 seconds"
				if path == "/locks/renew-all" {
					null = "Input should be a valid number"
				}
				wantFault(t, renew(json.RawMessage("null")), "ttl_seconds", null)
				before := *s.status(t, "r").Renewals
				renew(60).want(t, 200)
				got := s.status(t, "r")
				if *got.Renewals != before+1 || !cmp.Equal(60.0, *got.ExpiresInSeconds, s.equalHolds()) {
					t.Errorf("after %d renewals: %+v", before, got)
				}
			})
		}
	})
}

// wantFault fails the test unless the body has exactly this fault.
func wantFault(t *testing.T, a answer, field, message string) {
	t.Helper()
	got := decode[wire.ValidationFailure](t, a.want(t, 422).body).Detail
	if len(got) != 1 || fmt.Sprint(got[0].Loc) != fmt.Sprintf("[body %s]", field) || got[0].Msg != message {
		t.Errorf("got %s, want only the fault %s: %s", a.body, field, message)
	}
}
