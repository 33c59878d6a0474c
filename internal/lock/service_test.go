package lock_test

import (
	"cmp"
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

// memory is the smallest Store: a map and a clock that stands still until the test moves it.
type memory struct {
	now       time.Time
	resources map[string]lock.Resource
	executed  []lock.Command
	looks     int    // calls of Find, Held, Expired and Idle
	before    func() // what another server does just before a command
	broken    error  // what every look answers
	stuck     error  // what every command answers
}

func newMemory(resources ...lock.Resource) *memory {
	m := &memory{now: t0, resources: map[string]lock.Resource{}}
	for i, r := range resources {
		r.ID = int64(i + 1)
		m.resources[r.Name] = r
	}
	return m
}

func (m *memory) sorted() []lock.Resource {
	return slices.SortedFunc(maps.Values(m.resources), func(a, b lock.Resource) int { return cmp.Compare(a.ID, b.ID) })
}

func (m *memory) Execute(_ context.Context, c lock.Command) (lock.Outcome, error) {
	m.executed = append(m.executed, c)
	if m.stuck != nil {
		return lock.Outcome{}, m.stuck
	}
	if m.before != nil {
		m.before()
	}
	var states []lock.Resource
	for _, name := range c.Resources() {
		r := m.resources[name]
		r.Name = name
		states = append(states, r)
	}
	out, err := c.Decide(m.now, states)
	for _, r := range out.Changed {
		m.resources[r.Name] = r
		if r.Forgotten {
			delete(m.resources, r.Name)
		}
	}
	return out, err
}

func (m *memory) Find(_ context.Context, name string) (lock.Resource, time.Time, error) {
	m.looks++
	r := m.resources[name]
	r.Name = name
	return r, m.now, m.broken
}

func (m *memory) Held(context.Context) ([]lock.Resource, time.Time, error) {
	m.looks++
	var held []lock.Resource
	for _, r := range m.sorted() {
		if len(r.Holds) > 0 {
			held = append(held, r)
		}
	}
	return held, m.now, m.broken
}

func (m *memory) Expired(_ context.Context, limit int) ([]string, error) {
	m.looks++
	var names []string
	for _, r := range m.sorted() {
		if _, held := r.Holder(m.now); !held && len(r.Holds) > 0 && len(names) < limit {
			names = append(names, r.Name)
		}
	}
	return names, m.broken
}

func (m *memory) Idle(_ context.Context, afterID int64, window int, idle time.Duration) ([]string, time.Time, int64, error) {
	m.looks++
	var names []string
	cutoff := m.now.Add(-idle)
	for _, r := range m.sorted() {
		if r.ID <= afterID {
			continue
		}
		if window == 0 {
			return names, cutoff, afterID, m.broken
		}
		if len(r.Holds) == 0 && r.EndedAt.Before(cutoff) {
			names = append(names, r.Name)
		}
		afterID = r.ID
		window--
	}
	return names, cutoff, 0, m.broken
}

func service(store lock.Store) *lock.Service {
	return lock.NewService(store, lock.Limits{MaxTTL: time.Hour})
}

// named gives a resource another name.
func named(name string, r lock.Resource) lock.Resource {
	r.Name = name
	return r
}

func TestServiceAcquireAndRelease(t *testing.T) {
	m := newMemory()
	s := service(m)
	granted, err := s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Hold{ProcessID: "p", Token: t0Token, LockedAt: t0, ExpiresAt: after(time.Minute)}
	wantEqual(t, "granted", want, granted.Hold)

	_, err = s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "q"})
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	wantEqual(t, "holder", want, held.Holder)

	released, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "released", want, released.Hold)
	var refusal *lock.NotHeldError
	if _, err = s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p"}); !errors.As(err, &refusal) {
		t.Errorf("got %v, want a NotHeldError", err)
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		name   string
		stored lock.Resource
		want   bool
	}{
		{"held forever", heldBy("p1", time.Time{}), true},
		{"held for a while", heldBy("p1", after(1)), true},
		{"expired at this very moment", heldBy("p1", t0), false},
		{"released", freed(100), false},
		{"unknown", named("other", heldBy("p1", time.Time{})), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hold, held, err := service(newMemory(test.stored)).Status(t.Context(), "r")
			if err != nil || held != test.want {
				t.Fatalf("got %t, %v, want %t", held, err, test.want)
			}
			var want lock.Hold
			if test.want {
				want = test.stored.Holds[0]
			}
			wantEqual(t, "hold", want, hold)
		})
	}
}

func TestAllLockedHidesExpiredHolds(t *testing.T) {
	z, gone, a := named("z", heldBy("p1", time.Time{})), named("gone", heldBy("p2", t0)), named("a", heldBy("p3", after(1)))
	m := newMemory(z, gone, freed(100), a)
	locked, err := service(m).AllLocked(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "locked", []lock.Locked{
		{ID: 1, Resource: "z", Hold: z.Holds[0]}, // by id, not by name
		{ID: 4, Resource: "a", Hold: a.Holds[0]},
	}, locked)

	m.resources = nil
	// The HTTP API writes it as JSON, where nil would be null.
	if locked, err = service(m).AllLocked(t.Context()); err != nil || locked == nil || len(locked) != 0 {
		t.Errorf("got %#v, %v, want an empty list", locked, err)
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
		lock.Expire{Names: []string{"a", "b"}}, lock.Expire{Names: []string{"c"}},
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
			_, held, err := s.Status(ctx, "r")
			if held {
				return errors.New("held in spite of the error")
			}
			return err
		}, true, false},
		{"all locked", func(ctx context.Context, s *lock.Service) error {
			_, err := s.AllLocked(ctx)
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
			m.broken, m.stuck = nil, lock.ErrUnavailable
			if err := test.call(t.Context(), service(m)); test.acts && !errors.Is(err, lock.ErrUnavailable) {
				t.Errorf("a command failed: got %v, want %v", err, lock.ErrUnavailable)
			}
		})
	}
}

func TestInvalidErrorTellsEveryFault(t *testing.T) {
	_, err := service(newMemory()).Acquire(t.Context(), lock.Acquire{ProcessID: strings.Repeat("é", 256), TTL: 2 * time.Hour})
	want := "resource_name: String should have at least 1 character; " +
		"process_id: String should have at most 255 characters; " +
		"ttl_seconds: Input should be less than or equal to 3600"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
