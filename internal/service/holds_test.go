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

// manyHeld are holds of a process, with as many of another one between them. Ids run against the order of the names.
func manyHeld(holds int) (m *memory, own []string) {
	var resources []lock.Resource
	for i := range holds {
		name := fmt.Sprintf("%06d", holds-i)
		resources = append(resources, named(name+" p", heldBy("p", after(time.Minute))), named(name+" q", heldBy("q", after(time.Minute))))
		own = append(own, fmt.Sprintf("%06d p", i+1))
	}
	return newMemory(resources...), own
}

// A process may have any number of holds; one transaction touches some of them, so that nobody waits long behind it.
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
		{500, []int{500}, 2}, // a full page may not be the last
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
				for i := range test.pages { // the keys are names: what changes meanwhile shifts nothing
					asked := page{Process: "p", Limit: 500}
					if i > 0 {
						asked.After = own[i*500-1]
					}
					pages = append(pages, asked)
				}
				wantEqual(t, "pages", pages, m.arguments)
				for name, r := range m.resources {
					if hold, held := r.Holder(t0); name[len(name)-1] == 'p' && !call.done(hold, held) {
						t.Errorf("%q was left out: %+v", name, hold)
					} else if name[len(name)-1] == 'q' && (!held || hold != heldBy("q", after(time.Minute)).Holds[0]) {
						t.Errorf("%q of another process was touched: %+v", name, hold)
					}
				}
			})
		}
	}
}

// What was done before the failure stays done, and is counted. The call can be repeated.
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
			m.beforeExecute = func() { m.executeErr = service.ErrUnavailable } // from the second transaction on
			done, err := newService(m).RenewAll(t.Context(), service.RenewAll{ProcessID: "p", TTL: time.Hour, Holds: test.listed(own)})
			if done.Renewed != 500 || !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("renewed %d, %v, want 500 and %v", done.Renewed, err, service.ErrUnavailable)
			}
			m, own = manyHeld(501)
			m.beforeExecute = func() { m.executeErr = service.ErrUnavailable }
			released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p", Holds: test.listed(own)})
			if released.Released != 500 || !errors.Is(err, service.ErrUnavailable) {
				t.Errorf("released %d, %v, want 500 and %v", released.Released, err, service.ErrUnavailable)
			}
			m.executeErr, m.beforeExecute, m.arguments = nil, nil, nil
			released, err = newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p", Holds: test.listed(own)})
			if released.Released != 1 || err != nil {
				t.Errorf("released %d when repeated, %v, want 1", released.Released, err)
			}
			if listed := test.listed(own); listed != nil {
				wantEqual(t, "lost when repeated", listed[:500], released.Lost)
			}
		})
	}
}

// listedOf lists the holds of manyHeld.
func listedOf(own []string) []lock.HoldRef {
	var listed []lock.HoldRef
	for _, name := range own {
		listed = append(listed, lock.HoldRef{Resource: name, Token: 100})
	}
	return listed
}

// What HeldBy names may have ended since, and what it found may be over: only what was changed counts.
func TestAllCountsWhatItChanged(t *testing.T) {
	stored := []lock.Resource{
		named("a", heldBy("p1", after(time.Hour))), named("expired", heldBy("p1", t0)), named("forever", heldBy("p1", time.Time{})),
		named("kept", kept()), named("stolen", heldBy("p1", after(time.Hour))), named("z", heldBy("p1", after(time.Hour))),
	}
	steal := func(m *memory) *memory {
		m.beforeExecute = func() { m.resources["stolen"] = named("stolen", heldBy("p2", time.Time{})) }
		return m
	}
	done, err := newService(steal(newMemory(stored...))).RenewAll(t.Context(), service.RenewAll{ProcessID: "p1", TTL: time.Minute})
	if done.Renewed != 2 || done.Endless != 1 || err != nil {
		t.Errorf("got %+v, %v, want 2 renewed and 1 without expiry", done, err)
	}
	m := steal(newMemory(stored...))
	released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p1"})
	if released.Released != 3 || err != nil {
		t.Errorf("released %d, %v, want 3", released.Released, err)
	}
	wantEqual(t, "events", []lock.EventKind{lock.EventReleased, lock.EventReleased, lock.EventReleased}, kindsOf(m.events))
}

// With a list, only its holds are touched, each by its own token.
func TestListedHolds(t *testing.T) {
	b := named("b", heldBy("p1", after(time.Minute)))
	b.Token, b.Holds[0].Token = 200, 200
	own := func(name string, token int64) lock.HoldRef { return lock.HoldRef{Resource: name, Token: token} }
	tests := []struct {
		name               string
		listed, lost       []lock.HoldRef
		renewed, untouched int // untouched: without expiry
	}{
		{"no list", nil, nil, 2, 1},
		{"an empty list", []lock.HoldRef{}, nil, 0, 0},
		{"all there", []lock.HoldRef{own("b", 200), own("forever", 100), own("a", 100)}, nil, 2, 1},
		{"not all listed", []lock.HoldRef{own("a", 100)}, nil, 1, 0},
		{"without expiry", []lock.HoldRef{own("forever", 100)}, nil, 0, 1},
		{"without expiry, with another token", []lock.HoldRef{own("forever", 99)}, []lock.HoldRef{own("forever", 99)}, 0, 0},
		{"expired", []lock.HoldRef{own("expired", 100), own("a", 100)}, []lock.HoldRef{own("expired", 100)}, 1, 0},
		{"another's, with its token", []lock.HoldRef{own("another's", 100)}, []lock.HoldRef{own("another's", 100)}, 0, 0},
		{"released within its minimum", []lock.HoldRef{own("kept", 100)}, []lock.HoldRef{own("kept", 100)}, 0, 0},
		{"released", []lock.HoldRef{own("free", 100)}, []lock.HoldRef{own("free", 100)}, 0, 0},
		{"never seen", []lock.HoldRef{own("new", 1)}, []lock.HoldRef{own("new", 1)}, 0, 0},
		{"acquired anew since", []lock.HoldRef{own("a", 99)}, []lock.HoldRef{own("a", 99)}, 0, 0},
		{"the token of another name", []lock.HoldRef{own("a", 200), own("b", 100)}, []lock.HoldRef{own("a", 200), own("b", 100)}, 0, 0},
		{"two tokens for one name", []lock.HoldRef{own("a", 99), own("a", 100)}, []lock.HoldRef{own("a", 99)}, 1, 0},
		{"one listed twice", []lock.HoldRef{own("a", 100), own("a", 100)}, nil, 1, 0},
		{"one lost listed twice", []lock.HoldRef{own("new", 1), own("new", 1)}, []lock.HoldRef{own("new", 1), own("new", 1)}, 0, 0},
		{
			"in the order of the list",
			[]lock.HoldRef{own("new", 2), own("b", 200), own("free", 100), own("a", 100), own("expired", 100)},
			[]lock.HoldRef{own("new", 2), own("free", 100), own("expired", 100)},
			2,
			0,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stored := func() *memory {
				return newMemory(
					named("a", heldBy("p1", after(time.Minute))), b, named("expired", heldBy("p1", t0)), named("forever", heldBy("p1", time.Time{})),
					named("another's", heldBy("p2", time.Time{})), named("kept", kept()), named("free", freed(100)),
				)
			}
			m := stored()
			listed := slices.Clone(test.listed)
			done, err := newService(m).RenewAll(t.Context(), service.RenewAll{ProcessID: "p1", TTL: time.Hour, Holds: listed})
			if err != nil {
				t.Fatal(err)
			}
			want := service.Renewed{Renewed: test.renewed, Endless: test.untouched, Lost: test.lost}
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
			if err != nil || released.Released != test.renewed+test.untouched {
				t.Errorf("released %d, %v, want %d", released.Released, err, test.renewed+test.untouched)
			}
			if diff := cmp.Diff(test.lost, released.Lost, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			wantEqual(t, "releases", released.Released, len(m.events))
			if test.listed != nil && len(m.arguments) > 0 {
				t.Errorf("asked which holds there are: %v", m.arguments)
			}
		})
	}
}

func TestListedHoldsInEveryChunk(t *testing.T) {
	m, own := manyHeld(1203)
	listed := listedOf(own)
	gone := lock.HoldRef{Resource: "gone", Token: 100}
	done, err := newService(m).RenewAll(t.Context(), service.RenewAll{ProcessID: "p", TTL: time.Hour, Holds: append(listed, gone)})
	if done.Renewed != 1203 || err != nil {
		t.Errorf("renewed %d, %v, want 1203", done.Renewed, err)
	}
	wantEqual(t, "lost", []lock.HoldRef{gone}, done.Lost)
	released, err := newService(m).ReleaseAll(t.Context(), service.ReleaseAll{ProcessID: "p", Holds: append(listed, gone)})
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
