package service_test

import (
	"context"
	"errors"
	"maps"
	"slices"
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
		ProcessID: "p", Token: t0Token, LockedAt: t0, ExpiresAt: after(time.Minute), Connection: granted.Hold.Connection,
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

func TestStatusAndOwner(t *testing.T) {
	released := heldBy("p1", after(1))
	released.Holds[0].ReleasedAt = after(-1)
	tests := []struct {
		name        string
		stored      lock.Resource
		held, owned bool
	}{
		{"held forever", heldBy("p1", time.Time{}), true, true},
		{"held for a while", heldBy("p1", after(1)), true, true},
		{"released, kept by its minimum", released, true, false},
		{"expired at this very moment", heldBy("p1", t0), false, false},
		{"released", freed(100), false, false},
		{"unknown", named("other", heldBy("p1", time.Time{})), false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := newService(newMemory(test.stored)).Status(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			want := func(wanted bool) (h lock.Hold) {
				if wanted {
					h = test.stored.Holds[0]
				}
				return h
			}
			holder, held := found.Resource.Holder(found.At)
			owner, owned := found.Owner()
			if held != test.held || owned != test.owned {
				t.Errorf("held %t, owned %t, want %t and %t", held, owned, test.held, test.owned)
			}
			wantEqual(t, "holder", want(test.held), holder)
			if owned {
				wantEqual(t, "owner", want(test.owned), owner)
			}
			wantEqual(t, "time of the snapshot", t0, found.At) // for the time that is left
		})
	}
}

func TestSweepExpired(t *testing.T) {
	m := newMemory(named("a", heldBy("p", t0)), named("live", heldBy("p", after(1))), named("b", heldBy("p", t0)),
		named("c", heldBy("p", t0)), named("forever", heldBy("p", time.Time{})))
	for _, want := range []int{2, 1, 0} {
		got, err := newService(m).SweepExpired(t.Context(), 2)
		if err != nil || got != want {
			t.Fatalf("got %d, %v, want %d", got, err, want)
		}
	}
	wantEqual(t, "commands", []lock.Command{ // none for an empty sweep: it would cost a transaction
		lock.ExpireAndGrant{Names: []string{"a", "b"}}, lock.ExpireAndGrant{Names: []string{"c"}},
	}, m.executed)
	for _, r := range m.sorted() {
		if want := r.Name == "live" || r.Name == "forever"; (len(r.Holds) > 0) != want {
			t.Errorf("%q is held: %t, want %t", r.Name, !want, want)
		}
	}
}

func TestSweepIdle(t *testing.T) {
	m := newMemory(named("a", freed(1)), named("held", heldBy("p", time.Time{})), named("b", freed(2)),
		named("busy", freed(3)), named("c", freed(4)))
	m.now = after(time.Minute + time.Hour + 1) // freed ones have just been idle for an hour
	m.beforeExecute = func() {
		// Somebody acquires and releases it between the look that found it idle and the command.
		if !slices.Contains(m.executed[len(m.executed)-1].Needs().Resources, "busy") {
			return
		}
		busy := m.resources["busy"]
		busy.EndedAt = m.now
		m.resources["busy"] = busy
	}
	type sweep struct {
		Deleted int
		Next    int64
	}
	var got []sweep
	for next := int64(0); len(got) == 0 || next != 0; {
		forgotten, following, err := newService(m).SweepIdle(t.Context(), next, 2, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, sweep{forgotten, following})
		next = following
	}
	wantEqual(t, "sweeps", []sweep{{1, 2}, {1, 4}, {1, 0}}, got)
	left := slices.Sorted(maps.Keys(m.resources))
	wantEqual(t, "left", []string{"busy", "held"}, left)

	m.executed = nil
	if forgotten, next, err := newService(m).SweepIdle(t.Context(), 0, 1, time.Hour); forgotten != 0 || next != 2 || err != nil {
		t.Errorf("a window without idle rows: got %d, %d, %v, want to go on after 2", forgotten, next, err)
	}
	if m.executed != nil {
		t.Errorf("executed %v for nothing", m.executed)
	}
}

func TestStoreErrorsAreGivenAsTheyAre(t *testing.T) {
	calls := []struct {
		name string
		call func(context.Context, *service.Service) error
		look bool // whether it looks before, or instead of, executing a command
		acts bool
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
				return errors.New("held in spite of the error")
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
			return s.List(ctx, service.ListFilter{}, func(int, time.Time) error { return nil }, func(lock.Resource) error { return nil })
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
			forgotten, _, err := s.SweepIdle(ctx, 0, 10, 0)
			if forgotten != 0 {
				return errors.New("forgot in spite of the error")
			}
			return err
		}, true, true},
	}
	for _, test := range calls {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory(named("r", heldBy("p", time.Time{})), named("gone", heldBy("p", t0)), named("idle", lock.Resource{}))
			m.readErr = errRead
			if err := test.call(t.Context(), newService(m)); test.look && !errors.Is(err, errRead) {
				t.Errorf("a look failed: got %v, want %v", err, errRead)
			}
			if test.look && m.executed != nil {
				t.Errorf("executed %v after a failed look", m.executed)
			}
			m.readErr, m.executeErr, m.arguments = nil, service.ErrUnavailable, nil
			if err := test.call(t.Context(), newService(m)); test.acts && !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("a command failed: got %v, want %v", err, service.ErrUnavailable)
			}
		})
	}
}
