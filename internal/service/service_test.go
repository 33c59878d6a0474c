package service_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

var errRead = errors.New("read failed")

func TestServiceAcquireAndRelease(t *testing.T) {
	m := newMemory()
	s := newService(m)
	granted, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Hold{
		ProcessID: "p", Token: t0Token, LockedAt: t0, ExpiresAt: after(time.Minute),
		Connection: granted.Hold.Connection,
	}
	wantEqual(t, "granted", want, granted.Hold)

	_, err = s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "q"})
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	wantEqual(t, "refusal", &lock.HeldError{Resource: "r", Holder: &want, Now: t0}, held)

	released, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "released", want, released.Hold)
	var refusal *lock.NotHeldError
	if _, err = s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"}); !errors.As(err, &refusal) {
		t.Errorf("got %v, want a NotHeldError", err)
	}
	wantEqual(t, "kinds of events", []lock.EventKind{lock.EventAcquired, lock.EventReleased}, kindsOf(m.events))
}

func TestStoreErrorsAreReturnedUnchanged(t *testing.T) {
	calls := []struct {
		name string
		call func(context.Context, *service.Service) error

		reads    bool // before it executes a command, or instead
		executes bool
	}{
		{"acquire", func(ctx context.Context, s *service.Service) error {
			_, err := s.Acquire(ctx, lock.Request{Resource: "r", ProcessID: "p"})
			return err
		}, false, true},
		{"release", func(ctx context.Context, s *service.Service) error {
			_, err := s.Release(ctx, lock.Release{Resource: "r", ProcessID: "p"})
			return err
		}, false, true},
		{"status", func(ctx context.Context, s *service.Service) error {
			found, err := s.Status(ctx, "r")
			if len(found.Resource.Holds) > 0 || !found.At.IsZero() {
				return errors.New("a snapshot came with the error")
			}
			return err
		}, true, false},
		{"renew", func(ctx context.Context, s *service.Service) error {
			_, err := s.Renew(ctx, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
			return err
		}, false, true},
		{"force-release", func(ctx context.Context, s *service.Service) error {
			_, err := s.ForceRelease(ctx, lock.ForceRelease{Resource: "r", Reason: "it hangs"})
			return err
		}, false, true},
		{"renew all", func(ctx context.Context, s *service.Service) error {
			_, err := s.RenewAll(ctx, service.RenewAll{ProcessID: "p", TTL: time.Minute})
			return err
		}, true, true},
		{"release all", func(ctx context.Context, s *service.Service) error {
			_, err := s.ReleaseAll(ctx, service.ReleaseAll{ProcessID: "p"})
			return err
		}, true, true},
		{"list", func(ctx context.Context, s *service.Service) error {
			begin := func(int, time.Time) error { return nil }
			return s.List(ctx, service.ListFilter{}, begin, func(lock.Resource) error { return nil })
		}, true, false},
		{"history", func(ctx context.Context, s *service.Service) error {
			_, err := s.History(ctx, service.HistoryFilter{})
			return err
		}, true, false},
		{"sweep events", func(ctx context.Context, s *service.Service) error {
			_, err := s.SweepEvents(ctx, time.Hour, 10)
			return err
		}, true, false},
		{"sweep expired", func(ctx context.Context, s *service.Service) error {
			_, err := s.SweepExpired(ctx, 10)
			return err
		}, true, true},
		{"sweep idle", func(ctx context.Context, s *service.Service) error {
			deleted, _, err := s.SweepIdle(ctx, 0, 10, 0)
			if deleted != 0 {
				return errors.New("a count came with the error")
			}
			return err
		}, true, true},
	}
	for _, test := range calls {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory(
				named("r", heldBy("p", time.Time{})), named("expired", heldBy("p", t0)), named("idle", lock.Resource{}),
			)
			m.readErr = errRead
			if err := test.call(t.Context(), newService(m)); test.reads && !errors.Is(err, errRead) {
				t.Errorf("a read failed: got %v, want %v", err, errRead)
			}
			if test.reads && m.executed != nil {
				t.Errorf("executed %v after a failed read", m.executed)
			}
			m.readErr, m.executeErr, m.arguments = nil, service.ErrUnavailable, nil
			if err := test.call(t.Context(), newService(m)); test.executes && !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("a command failed: got %v, want %v", err, service.ErrUnavailable)
			}
		})
	}
}
