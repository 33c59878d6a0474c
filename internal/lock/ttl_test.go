package lock_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// wantFaults sends a request in both ways, the check and the request itself, and compares what a client can decide by.
func wantFaults(t *testing.T, want []string, s *service.Service, m *memory, c lock.Acquire) {
	t.Helper()
	wantEqual(t, "faults of the check", want, broken(t, s.CheckAcquire(c)))
	wantUntouched(t, m)
	_, err := s.Acquire(t.Context(), c)
	wantEqual(t, "faults", want, broken(t, err))
	if want != nil {
		wantUntouched(t, m)
	}
}

func TestTTLLimits(t *testing.T) {
	hour := lock.Limits{MaxTTL: time.Hour}
	none := lock.Limits{MaxTTL: lock.LongestTTL}
	tests := []struct {
		name   string
		limits lock.Limits
		ttl    time.Duration
		want   []string
	}{
		{"the shortest", hour, 1, nil},
		{"the longest", hour, time.Hour, nil},
		{"just too long", hour, time.Hour + 1, []string{"ttl_seconds less_than_equal"}},
		{"as long as can be", hour, 1<<63 - 1, []string{"ttl_seconds less_than_equal"}},
		{"just negative", hour, -1, []string{"ttl_seconds greater_than"}},
		{"as negative as can be", hour, -1 << 63, []string{"ttl_seconds greater_than"}},
		{"never expires", none, 0, nil},
		{"the longest of all", none, lock.LongestTTL, nil},
		{"longer than the longest of all", none, lock.LongestTTL + 1, []string{"ttl_seconds less_than_equal"}},
		{"never expires, under a limit", hour, 0, []string{"ttl_seconds missing"}},
		{"never expires, under the greatest limit", lock.Limits{MaxTTL: lock.LongestTTL - 1}, 0, []string{"ttl_seconds missing"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory()
			s := service.New(m, test.limits, slog.New(slog.DiscardHandler))
			wantFaults(t, test.want, s, m, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: test.ttl}})
		})
	}
}

func TestRenewalNeedsATTL(t *testing.T) {
	hour := lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}
	none := lock.Limits{MaxTTL: lock.LongestTTL, DefaultTTL: time.Minute}
	tests := []struct {
		name   string
		limits lock.Limits
		ttl    time.Duration
		want   []string
		all    []string // of a renewal of all holds, which is for those that expire
	}{
		{"the shortest", hour, 1, nil, nil},
		{"the longest", hour, time.Hour, nil, nil},
		{"the longest of all", none, lock.LongestTTL, nil, nil},
		// There is no default: none means that the hold never expires.
		{"none", hour, 0, []string{"ttl_seconds missing"}, []string{"ttl_seconds missing"}},
		{"none, where locks may never expire", none, 0, nil, []string{"ttl_seconds missing"}},
		{"just too long", hour, time.Hour + 1, []string{"ttl_seconds less_than_equal"}, []string{"ttl_seconds less_than_equal"}},
		{"just negative", hour, -1, []string{"ttl_seconds greater_than"}, []string{"ttl_seconds greater_than"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory()
			s := service.New(m, test.limits, slog.New(slog.DiscardHandler))
			c := lock.Renew{Resource: "r", ProcessID: "p", TTL: test.ttl}
			wantEqual(t, "faults of the check", test.want, broken(t, s.CheckRenew(c)))
			wantEqual(t, "faults of the check of all", test.all, broken(t, s.CheckRenewAll("p", test.ttl, nil)))
			wantUntouched(t, m)
			wantEqual(t, "faults", test.want, broken(t, refusedOrInvalid(s.Renew(t.Context(), c))))
			if test.want != nil {
				wantUntouched(t, m)
			}
			m = newMemory()
			_, err := service.New(m, test.limits, slog.New(slog.DiscardHandler)).RenewAll(t.Context(), "p", test.ttl, nil)
			wantEqual(t, "faults of all", test.all, broken(t, err))
			if test.all != nil {
				wantUntouched(t, m)
			}
		})
	}
}

func TestDefaultTTL(t *testing.T) {
	tests := []struct {
		name          string
		byDefault     time.Duration
		ask, expected time.Duration // 0: never expires
	}{
		{"none", 0, 0, 0},
		{"none, asked for one", 0, time.Second, time.Second},
		{"for a request that names none", time.Minute, 0, time.Minute},
		{"not for a request that asks for less", time.Minute, time.Second, time.Second},
		{"not for a request that asks for more", time.Minute, time.Hour, time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := service.New(newMemory(), lock.Limits{MaxTTL: lock.LongestTTL, DefaultTTL: test.byDefault}, slog.New(slog.DiscardHandler))
			out, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", TTL: test.ask})
			if err != nil {
				t.Fatal(err)
			}
			var want time.Time
			if test.expected != 0 {
				want = after(test.expected)
			}
			wantEqual(t, "expiry", want, out.Hold.ExpiresAt)
		})
	}
	t.Run("it is enough under a limit", func(t *testing.T) {
		m := newMemory()
		s := service.New(m, lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}, slog.New(slog.DiscardHandler))
		wantFaults(t, nil, s, m, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}})
	})
}

func TestMinHoldLimits(t *testing.T) {
	hour := lock.Limits{MaxTTL: time.Hour}
	none := lock.Limits{MaxTTL: lock.LongestTTL}
	tests := []struct {
		name    string
		limits  lock.Limits
		ttl     time.Duration
		minimum time.Duration
		want    []string
	}{
		{"none", hour, time.Minute, 0, nil},
		{"the shortest", hour, time.Minute, 1, nil},
		{"as long as the TTL", hour, time.Minute, time.Minute, nil},
		{"just longer than the TTL", hour, time.Minute, time.Minute + 1, []string{"min_hold_seconds less_than_equal"}},
		{"longer than the TTL by default", lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}, 0, time.Minute + 1, []string{"min_hold_seconds less_than_equal"}},
		{"just negative", hour, time.Minute, -1, []string{"min_hold_seconds greater_than_equal"}},
		{"as negative as can be", none, 0, -1 << 63, []string{"min_hold_seconds greater_than_equal"}},
		{"the longest without expiry", none, 0, lock.LongestTTL, nil},
		{"just too long without expiry", none, 0, lock.LongestTTL + 1, []string{"min_hold_seconds less_than_equal"}},
		{"as long as can be", none, 0, 1<<63 - 1, []string{"min_hold_seconds less_than_equal"}},
		{"too long, and no TTL under a limit", hour, 0, time.Hour + 1, []string{"ttl_seconds missing", "min_hold_seconds less_than_equal"}},
		{"too long beside a TTL that is too long", hour, 2 * time.Hour, 2 * time.Hour, []string{"ttl_seconds less_than_equal", "min_hold_seconds less_than_equal"}},
		{"longer than a negative TTL is one fault", hour, -1, 1, []string{"ttl_seconds greater_than"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory()
			s := service.New(m, test.limits, slog.New(slog.DiscardHandler))
			wantFaults(t, test.want, s, m, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: test.ttl, MinHold: test.minimum}})
		})
	}
}

func TestLimitIsToldInSeconds(t *testing.T) {
	tests := []struct {
		name    string
		limit   time.Duration
		seconds string
	}{
		{"an hour", time.Hour, "3600"},
		{"a fraction", 1500 * time.Millisecond, "1.5"},
		{"the longest of all", lock.LongestTTL, "3155760000"}, // not 3.15576e+09
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := service.New(newMemory(), lock.Limits{MaxTTL: test.limit}, slog.New(slog.DiscardHandler))
			most := "Input should be less than or equal to " + test.seconds
			tooLong := []lock.Fault{{Field: "ttl_seconds", Rule: "less_than_equal", Message: most}}
			wantEqual(t, "acquire", tooLong, faultsOf(t, s.CheckAcquire(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: test.limit + 1}})))
			wantEqual(t, "renew", tooLong, faultsOf(t, s.CheckRenew(lock.Renew{Resource: "r", ProcessID: "p", TTL: test.limit + 1})))
			wantEqual(t, "renew all", tooLong, faultsOf(t, s.CheckRenewAll("p", test.limit+1, nil)))

			var want []lock.Fault
			if test.limit < lock.LongestTTL {
				want = append(want, lock.Fault{
					Field: "ttl_seconds", Rule: "missing",
					Message: "Field required: locks that never expire are not allowed, the longest TTL is " + test.seconds + " seconds",
				})
			}
			want = append(want, lock.Fault{Field: "min_hold_seconds", Rule: "less_than_equal", Message: most})
			if test.limit < lock.LongestTTL { // the same words for a renewal
				wantEqual(t, "renew without an end", want[:1], faultsOf(t, s.CheckRenew(lock.Renew{Resource: "r", ProcessID: "p"})))
			}
			wantEqual(t, "minimum", want, faultsOf(t, s.CheckAcquire(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", MinHold: test.limit + 1}})))
		})
	}
}

// faultsOf is all that is wrong, with the texts.
func faultsOf(t *testing.T, err error) []lock.Fault {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *lock.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an InvalidError", err)
	}
	return invalid.Faults
}
