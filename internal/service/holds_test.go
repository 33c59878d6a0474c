package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// manyHeld returns a store with the given number of holds of the process p, and the names
// of their resources in order. The process q has as many holds between them. The ids
// descend as the names ascend.
func manyHeld(holds int) (m *memory, own []string) {
	var resources []lock.Resource
	for i := range holds {
		name := fmt.Sprintf("%06d", holds-i)
		for _, process := range []string{"p", "q"} {
			resources = append(resources, named(name+" "+process, heldBy(process, after(time.Minute))))
		}
		own = append(own, fmt.Sprintf("%06d p", i+1))
	}
	return newMemory(resources...), own
}

// A process may have any number of holds. One transaction changes at most 500 of them, so
// that no other command waits long.
func TestAllHoldsInChunks(t *testing.T) {
	calls := []struct {
		name string
		call func(context.Context, *service.Service) (int, error)
		done func(lock.Hold, bool) bool
	}{
		{
			"renew", func(ctx context.Context, s *service.Service) (int, error) {
				done, err := s.RenewAll(ctx, service.RenewAll{ProcessID: "p", TTL: time.Hour})
				if len(done.Lost) > 0 {
					err = fmt.Errorf("lost %v although nothing was listed", done.Lost)
				}
				return done.Renewed, err
			},
			func(h lock.Hold, held bool) bool {
				return held && h.ExpiresAt.Equal(after(time.Hour)) && h.Renewals == 1
			},
		},
		{
			"release", func(ctx context.Context, s *service.Service) (int, error) {
				done, err := s.ReleaseAll(ctx, service.ReleaseAll{ProcessID: "p"})
				if len(done.Lost) > 0 {
					err = fmt.Errorf("lost %v although nothing was listed", done.Lost)
				}
				return done.Released, err
			},
			func(_ lock.Hold, held bool) bool { return !held },
		},
	}
	tests := []struct {
		holds  int
		chunks []int
		pages  int
	}{
		{0, nil, 1},
		{1, []int{1}, 1},
		{499, []int{499}, 1},
		{500, []int{500}, 2}, // another page may follow a full one
		{501, []int{500, 1}, 2},
		{1203, []int{500, 500, 203}, 3},
	}
	for _, call := range calls {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s %d", call.name, test.holds), func(t *testing.T) {
				m, own := manyHeld(test.holds)
				n, err := call.call(t.Context(), newService(m))
				if err != nil || n != test.holds {
					t.Fatalf("got %d, %v, want %d", n, err, test.holds)
				}
				var chunks []int
				var names []string
				for _, c := range m.executed {
					chunks = append(chunks, len(c.Needs().Resources))
					names = append(names, c.Needs().Resources...)
				}
				wantEqual(t, "names in each transaction", test.chunks, chunks)
				wantEqual(t, "names", own, names)
				var pages []any
				for i := range test.pages { // a page starts after a name, so changes in between shift nothing
					arguments := page{Process: "p", Limit: 500}
					if i > 0 {
						arguments.After = own[i*500-1]
					}
					pages = append(pages, arguments)
				}
				wantEqual(t, "pages", pages, m.arguments)
				for name, r := range m.resources {
					if hold, held := r.Holder(t0); name[len(name)-1] == 'p' && !call.done(hold, held) {
						t.Errorf("%q was not changed: %+v", name, hold)
					} else if name[len(name)-1] == 'q' && (!held || hold != heldBy("q", after(time.Minute)).Holds[0]) {
						t.Errorf("%q of another process was changed: %+v", name, hold)
					}
				}
			})
		}
	}
}

// What was committed before the failure stays, and is counted. The call can be repeated.
func TestFailureBetweenChunks(t *testing.T) {
	for _, test := range []struct {
		name   string
		listed func(own []string) []lock.HoldRef
	}{
		{"all", func([]string) []lock.HoldRef { return nil }},
		{"listed", listedOf},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, own := manyHeld(501)
			m.beforeExecute = func() { m.executeErr = service.ErrUnavailable } // of the second transaction
			renewal := service.RenewAll{ProcessID: "p", TTL: time.Hour, Holds: test.listed(own)}
			done, err := newService(m).RenewAll(t.Context(), renewal)
			if done.Renewed != 500 || !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("renewed %d, %v, want 500 and %v", done.Renewed, err, service.ErrUnavailable)
			}
			m, own = manyHeld(501)
			m.beforeExecute = func() { m.executeErr = service.ErrUnavailable }
			release := service.ReleaseAll{ProcessID: "p", Holds: test.listed(own)}
			released, err := newService(m).ReleaseAll(t.Context(), release)
			if released.Released != 500 || !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("released %d, %v, want 500 and %v", released.Released, err, service.ErrUnavailable)
			}
			m.executeErr, m.beforeExecute, m.arguments = nil, nil, nil
			released, err = newService(m).ReleaseAll(t.Context(), release)
			if released.Released != 1 || err != nil {
				t.Errorf("released %d when repeated, %v, want 1", released.Released, err)
			}
			if listed := test.listed(own); listed != nil {
				wantEqual(t, "lost when repeated", listed[:500], released.Lost)
			}
		})
	}
}

// listedOf returns the holds of manyHeld as a list for a request.
func listedOf(own []string) []lock.HoldRef {
	var listed []lock.HoldRef
	for _, name := range own {
		listed = append(listed, lock.HoldRef{Resource: name, Token: 100})
	}
	return listed
}

// HeldBy may return resources whose holds have expired or end before the command. Only
// the changed holds count.
func TestAllCountsOnlyWhatItChanged(t *testing.T) {
	stored := []lock.Resource{
		named("a", heldBy("p1", after(time.Hour))), named("expired", heldBy("p1", t0)),
		named("forever", heldBy("p1", time.Time{})), named("kept", kept()),
		named("taken", heldBy("p1", after(time.Hour))), named("z", heldBy("p1", after(time.Hour))),
	}
	store := func() *memory { // just before the command, "taken" gets another holder
		m := newMemory(stored...)
		m.beforeExecute = func() { m.resources["taken"] = named("taken", heldBy("p2", time.Time{})) }
		return m
	}
	done, err := newService(store()).RenewAll(t.Context(), service.RenewAll{ProcessID: "p1", TTL: time.Minute})
	if done.Renewed != 2 || done.Endless != 1 || err != nil {
		t.Errorf("got %+v, %v, want 2 renewed and 1 endless", done, err)
	}
	m := store()
	released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p1"})
	if released.Released != 3 || err != nil {
		t.Errorf("released %d, %v, want 3", released.Released, err)
	}
	wantEqual(t, "events", slices.Repeat([]lock.EventKind{lock.EventReleased}, 3), kindsOf(m.events))
}

// A list restricts the call to its holds, each by its own token.
func TestListedHolds(t *testing.T) {
	b := named("b", heldBy("p1", after(time.Minute)))
	b.Token, b.Holds[0].Token = 200, 200
	ref := func(name string, token int64) lock.HoldRef { return lock.HoldRef{Resource: name, Token: token} }
	type refs = []lock.HoldRef
	tests := []struct {
		name             string
		listed, lost     refs
		renewed, endless int
	}{
		{"no list", nil, nil, 2, 1},
		{"an empty list", refs{}, nil, 0, 0},
		{"all held", refs{ref("b", 200), ref("forever", 100), ref("a", 100)}, nil, 2, 1},
		{"not all listed", refs{ref("a", 100)}, nil, 1, 0},
		{"endless", refs{ref("forever", 100)}, nil, 0, 1},
		{"endless, with another token", refs{ref("forever", 99)}, refs{ref("forever", 99)}, 0, 0},
		{"expired", refs{ref("expired", 100), ref("a", 100)}, refs{ref("expired", 100)}, 1, 0},
		{"of another process, with its token", refs{ref("another's", 100)}, refs{ref("another's", 100)}, 0, 0},
		{"released before its minimum", refs{ref("kept", 100)}, refs{ref("kept", 100)}, 0, 0},
		{"released", refs{ref("free", 100)}, refs{ref("free", 100)}, 0, 0},
		{"never held", refs{ref("new", 1)}, refs{ref("new", 1)}, 0, 0},
		{"with the token of an earlier hold", refs{ref("a", 99)}, refs{ref("a", 99)}, 0, 0},
		{"with each other's tokens", refs{ref("a", 200), ref("b", 100)}, refs{ref("a", 200), ref("b", 100)}, 0, 0},
		{"two tokens for one resource", refs{ref("a", 99), ref("a", 100)}, refs{ref("a", 99)}, 1, 0},
		{"one listed twice", refs{ref("a", 100), ref("a", 100)}, nil, 1, 0},
		{"a lost one listed twice", refs{ref("new", 1), ref("new", 1)}, refs{ref("new", 1), ref("new", 1)}, 0, 0},
		{
			"lost in the order of the list",
			refs{ref("new", 2), ref("b", 200), ref("free", 100), ref("a", 100), ref("expired", 100)},
			refs{ref("new", 2), ref("free", 100), ref("expired", 100)},
			2, 0,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stored := func() *memory {
				return newMemory(
					named("a", heldBy("p1", after(time.Minute))), b, named("expired", heldBy("p1", t0)),
					named("forever", heldBy("p1", time.Time{})),
					named("another's", heldBy("p2", time.Time{})), named("kept", kept()), named("free", freed(100)),
				)
			}
			m := stored()
			listed := slices.Clone(test.listed)
			renewal := service.RenewAll{ProcessID: "p1", TTL: time.Hour, Holds: listed}
			done, err := newService(m).RenewAll(t.Context(), renewal)
			if err != nil {
				t.Fatal(err)
			}
			want := service.Renewed{Renewed: test.renewed, Endless: test.endless, Lost: test.lost}
			if diff := cmp.Diff(want, done, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("renewed (-want +got):\n%s", diff)
			}
			wantEqual(t, "the caller's list", test.listed, listed)
			changed := 0
			for name, r := range m.resources {
				if before := stored().resources[name]; !cmp.Equal(before, r) {
					changed++
					if !r.Holds[0].ExpiresAt.Equal(after(time.Hour)) || before.Holds[0].ExpiresAt.IsZero() {
						t.Errorf("%q is %+v, was %+v", name, r.Holds[0], before.Holds[0])
					}
				}
			}
			wantEqual(t, "changed", test.renewed, changed)

			m = stored()
			released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p1", Holds: listed})
			if err != nil || released.Released != test.renewed+test.endless {
				t.Errorf("released %d, %v, want %d", released.Released, err, test.renewed+test.endless)
			}
			if diff := cmp.Diff(test.lost, released.Lost, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			wantEqual(t, "releases", released.Released, len(m.events))
			if test.listed != nil && len(m.arguments) > 0 {
				t.Errorf("the call read %v although the holds were listed", m.arguments)
			}
		})
	}
}

func TestListedHoldsInEveryChunk(t *testing.T) {
	m, own := manyHeld(1203)
	gone := lock.HoldRef{Resource: "gone", Token: 100}
	listed := append(listedOf(own), gone)
	done, err := newService(m).RenewAll(t.Context(), service.RenewAll{ProcessID: "p", TTL: time.Hour, Holds: listed})
	if done.Renewed != 1203 || err != nil {
		t.Errorf("renewed %d, %v, want 1203", done.Renewed, err)
	}
	wantEqual(t, "lost", []lock.HoldRef{gone}, done.Lost)
	released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p", Holds: listed})
	if released.Released != 1203 || err != nil {
		t.Errorf("released %d, %v, want 1203", released.Released, err)
	}
	wantEqual(t, "lost", []lock.HoldRef{gone}, released.Lost)
	for _, c := range m.executed {
		if n := len(c.Needs().Resources); n > 500 {
			t.Errorf("%d names in one transaction", n)
		}
	}
}
