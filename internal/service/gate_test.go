package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// operations are all commands and reads of a caller, each with an invalid request.
var operations = []struct {
	name   string
	call   func(context.Context, *service.Service) error
	faults []string
}{
	{"acquire", func(ctx context.Context, s *service.Service) error {
		_, err := s.Acquire(ctx, lock.Request{ProcessID: "p", TTL: time.Hour + 1})
		return err
	}, []string{"[resource_name] not_empty", "[ttl_seconds] maximum"}},
	{"acquire that may wait", func(ctx context.Context, s *service.Service) error {
		_, err := s.Acquire(ctx, lock.Request{Resource: "r", ProcessID: "p", TTL: time.Minute, Wait: 2 * time.Hour})
		return err
	}, []string{"[wait_seconds] maximum"}},
	{"release", func(ctx context.Context, s *service.Service) error {
		_, err := s.Release(ctx, lock.Release{Resource: "r", Token: -1})
		return err
	}, []string{"[process_id] not_empty", "[fencing_token] positive"}},
	{"renew", func(ctx context.Context, s *service.Service) error {
		_, err := s.Renew(ctx, lock.Renew{Resource: "r", ProcessID: "p"})
		return err
	}, []string{"[ttl_seconds] expiry_required"}},
	{"force-release", func(ctx context.Context, s *service.Service) error {
		_, err := s.ForceRelease(ctx, lock.ForceRelease{Resource: "r"})
		return err
	}, []string{"[reason] not_empty"}},
	{"renew all", func(ctx context.Context, s *service.Service) error {
		_, err := s.RenewAll(ctx, service.RenewAll{Holds: []lock.HoldRef{{Resource: "r"}, {}}})
		return err
	}, []string{"[process_id] not_empty", "[ttl_seconds] required", "[holds 1 resource_name] not_empty"}},
	{"renew all, TTL too long", func(ctx context.Context, s *service.Service) error {
		_, err := s.RenewAll(ctx, service.RenewAll{ProcessID: "p", TTL: time.Hour + 1})
		return err
	}, []string{"[ttl_seconds] maximum"}},
	{"release all", func(ctx context.Context, s *service.Service) error {
		_, err := s.ReleaseAll(ctx, service.ReleaseAll{Holds: []lock.HoldRef{{Resource: "\n"}}})
		return err
	}, []string{"[process_id] not_empty", "[holds 0 resource_name] no_control_character"}},
	{"status", func(ctx context.Context, s *service.Service) error {
		_, err := s.Status(ctx, "")
		return err
	}, []string{"[resource_name] not_empty"}},
	{"queue", func(ctx context.Context, s *service.Service) error {
		_, err := s.Queue(ctx, "\xff", 0, 10)
		return err
	}, []string{"[resource_name] utf8"}},
	{"list", func(ctx context.Context, s *service.Service) error {
		return s.List(ctx, service.ListFilter{Prefix: "\n", ProcessID: "\t"}, nil, nil)
	}, []string{"[prefix] no_control_character", "[process_id] no_control_character"}},
	{"history", func(ctx context.Context, s *service.Service) error {
		_, err := s.History(ctx, service.HistoryFilter{Resource: "\n", ProcessID: "\t", Since: t0, Until: t0})
		return err
	}, []string{"[resource_name] no_control_character", "[process_id] no_control_character", "[until] later_than"}},
}

// An invalid request is refused with every fault and does not reach the store.
func TestInvalidRequestsDoNotReachTheStore(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			m := newMemory()
			err := op.call(t.Context(), limited(m))
			var invalid *lock.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			var faults []string
			for _, f := range invalid.Faults {
				faults = append(faults, fmt.Sprint(f.Path, " ", f.Rule))
			}
			if !slices.Equal(faults, op.faults) {
				t.Errorf("faults: got %q, want %q", faults, op.faults)
			}
			if m.executed != nil || m.readCount != 0 {
				t.Errorf("the store executed %v and was read %d times", m.executed, m.readCount)
			}
		})
	}
}

func TestDefaultTTL(t *testing.T) {
	tests := []struct {
		name                       string
		byDefault, requested, want time.Duration // 0: the hold never expires
	}{
		{"none", 0, 0, 0},
		{"none, and a TTL in the request", 0, time.Second, time.Second},
		{"for a request without a TTL", time.Minute, 0, time.Minute},
		{"not for a request with a shorter TTL", time.Minute, time.Second, time.Second},
		{"not for a request with a longer TTL", time.Minute, time.Hour, time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := withLimits(newMemory(), lock.Limits{MaxTTL: lock.LongestTTL, DefaultTTL: test.byDefault})
			granted, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", TTL: test.requested})
			if err != nil {
				t.Fatal(err)
			}
			var want time.Time
			if test.want != 0 {
				want = after(test.want)
			}
			wantEqual(t, "expiry", want, granted.Hold.ExpiresAt)
		})
	}
	t.Run("satisfies a limit that requires a TTL", func(t *testing.T) {
		s := withLimits(newMemory(), lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute})
		if _, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p"}); err != nil {
			t.Error(err)
		}
	})
}
