package lock_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

var errBroken = errors.New("broken")

// named gives a resource another name.
func named(name string, r lock.Resource) lock.Resource {
	r.Name = name
	return r
}

func kindsOf(events []lock.Event) []lock.EventKind {
	var kinds []lock.EventKind
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestServiceAcquireAndRelease(t *testing.T) {
	m := newMemory()
	s := service(m)
	granted, err := s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Hold{
		ProcessID: "p", Token: t0Token, LockedAt: t0, ExpiresAt: after(time.Minute), Connection: granted.Hold.Connection,
	}
	wantEqual(t, "granted", want, granted.Hold)

	_, err = s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"})
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	wantEqual(t, "refusal", &lock.HeldError{Resource: "r", Holder: want, Now: t0}, held)

	released, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "released", want, released.Hold)
	var refusal *lock.NotHeldError
	if _, err = s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"}); !errors.As(err, &refusal) {
		t.Errorf("got %v, want a NotHeldError", err)
	}
	wantEqual(t, "kinds of events", []lock.EventKind{lock.Acquired, lock.Released}, kindsOf(m.events))
}

func TestStatusAndCurrent(t *testing.T) {
	released := heldBy("p1", after(1))
	released.Holds[0].ReleasedAt = after(-1)
	tests := []struct {
		name          string
		stored        lock.Resource
		held, current bool
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
			s := service(newMemory(test.stored))
			status := func(ctx context.Context, name string) (lock.Hold, bool, time.Time, error) {
				r, now, err := s.Status(ctx, name)
				hold, held := r.Holder(now)
				return hold, held, now, err
			}
			looks := []struct {
				name string
				look func(context.Context, string) (lock.Hold, bool, time.Time, error)
				want bool
			}{{"status", status, test.held}, {"current", s.Current, test.current}}
			for _, look := range looks {
				hold, held, now, err := look.look(t.Context(), "r")
				if err != nil || held != look.want {
					t.Fatalf("%s: got %t, %v, want %t", look.name, held, err, look.want)
				}
				var want lock.Hold
				if look.want {
					want = test.stored.Holds[0]
				}
				wantEqual(t, look.name, want, hold)
				wantEqual(t, "moment of the "+look.name, t0, now) // for the time that is left
			}
		})
	}
}

func TestSweepExpired(t *testing.T) {
	m := newMemory(named("a", heldBy("p", t0)), named("live", heldBy("p", after(1))), named("b", heldBy("p", t0)),
		named("c", heldBy("p", t0)), named("forever", heldBy("p", time.Time{})))
	for _, want := range []int{2, 1, 0} {
		got, err := service(m).SweepExpired(t.Context(), 2)
		if err != nil || got != want {
			t.Fatalf("got %d, %v, want %d", got, err, want)
		}
	}
	wantEqual(t, "commands", []lock.Command{ // none for an empty sweep: it would cost a transaction
		lock.Settle{Names: []string{"a", "b"}}, lock.Settle{Names: []string{"c"}},
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
	m.before = func() {
		// Somebody acquires and releases it between the look that found it idle and the command.
		if !slices.Contains(m.executed[len(m.executed)-1].Resources(), "busy") {
			return
		}
		busy := m.resources["busy"]
		busy.EndedAt = m.now
		m.resources["busy"] = busy
	}
	type sweep struct {
		Forgotten int
		Next      int64
	}
	var got []sweep
	for next := int64(0); len(got) == 0 || next != 0; {
		forgotten, following, err := service(m).SweepIdle(t.Context(), next, 2, time.Hour)
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
	if forgotten, next, err := service(m).SweepIdle(t.Context(), 0, 1, time.Hour); forgotten != 0 || next != 2 || err != nil {
		t.Errorf("a window without idle rows: got %d, %d, %v, want to go on after 2", forgotten, next, err)
	}
	if m.executed != nil {
		t.Errorf("executed %v for nothing", m.executed)
	}
}

func TestStoreErrorsAreGivenAsTheyAre(t *testing.T) {
	calls := []struct {
		name string
		call func(context.Context, *lock.Service) error
		look bool // whether it looks before, or instead of, executing a command
		acts bool
	}{
		{"acquire", func(ctx context.Context, s *lock.Service) error {
			_, err := s.Acquire(ctx, lock.Acquire{Resource: "r", ProcessID: "p"})
			return err
		}, false, true},
		{"release", func(ctx context.Context, s *lock.Service) error {
			_, err := s.Release(ctx, lock.Release{Resource: "r", ProcessID: "p"})
			return err
		}, false, true},
		{"status", func(ctx context.Context, s *lock.Service) error {
			r, now, err := s.Status(ctx, "r")
			if len(r.Holds) > 0 || !now.IsZero() {
				return errors.New("held in spite of the error")
			}
			return err
		}, true, false},
		{"current", func(ctx context.Context, s *lock.Service) error {
			hold, current, _, err := s.Current(ctx, "r")
			if current || hold != (lock.Hold{}) {
				return errors.New("held in spite of the error")
			}
			return err
		}, true, false},
		{"renew", func(ctx context.Context, s *lock.Service) error {
			_, err := s.Renew(ctx, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
			return err
		}, false, true},
		{"force-release", func(ctx context.Context, s *lock.Service) error {
			_, err := s.ForceRelease(ctx, lock.ForceRelease{Resource: "r", Reason: "it hangs"})
			return err
		}, false, true},
		{"renew all", func(ctx context.Context, s *lock.Service) error {
			_, err := s.RenewAll(ctx, "p", time.Minute, nil)
			return err
		}, true, true},
		{"release all", func(ctx context.Context, s *lock.Service) error {
			_, _, err := s.ReleaseAll(ctx, "p", nil)
			return err
		}, true, true},
		{"list", func(ctx context.Context, s *lock.Service) error {
			return s.List(ctx, lock.ListFilter{}, func(int, time.Time) error { return nil }, func(lock.Resource) error { return nil })
		}, true, false},
		{"history", func(ctx context.Context, s *lock.Service) error {
			_, err := s.History(ctx, lock.HistoryFilter{})
			return err
		}, true, false},
		{"sweep events", func(ctx context.Context, s *lock.Service) error {
			_, err := s.SweepEvents(ctx, time.Hour, 10)
			return err
		}, true, false},
		{"sweep expired", func(ctx context.Context, s *lock.Service) error {
			_, err := s.SweepExpired(ctx, 10)
			return err
		}, true, true},
		{"sweep idle", func(ctx context.Context, s *lock.Service) error {
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
			m.broken = errBroken
			if err := test.call(t.Context(), service(m)); test.look && !errors.Is(err, errBroken) {
				t.Errorf("a look failed: got %v, want %v", err, errBroken)
			}
			if test.look && m.executed != nil {
				t.Errorf("executed %v after a failed look", m.executed)
			}
			m.broken, m.stuck, m.asked = nil, lock.ErrUnavailable, nil
			if err := test.call(t.Context(), service(m)); test.acts && !errors.Is(err, lock.ErrUnavailable) {
				t.Errorf("a command failed: got %v, want %v", err, lock.ErrUnavailable)
			}
		})
	}
}

func TestInvalidErrorTellsEveryFault(t *testing.T) {
	_, err := limited(newMemory()).Acquire(t.Context(), lock.Acquire{ProcessID: strings.Repeat("é", 256), TTL: 2 * time.Hour})
	want := "resource_name: String should have at least 1 character; " +
		"process_id: String should have at most 255 characters; " +
		"ttl_seconds: Input should be less than or equal to 3600"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
