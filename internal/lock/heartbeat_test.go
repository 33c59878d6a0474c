package lock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
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
		call func(context.Context, *lock.Service) (int, error)
		done func(lock.Hold, bool) bool
	}{
		{
			"renew", func(ctx context.Context, s *lock.Service) (int, error) {
				renewed, lost, err := s.RenewAll(ctx, "p", time.Hour, nil)
				if len(lost) > 0 {
					err = fmt.Errorf("lost %v although nothing was listed", lost)
				}
				return renewed, err
			},
			func(h lock.Hold, held bool) bool {
				return held && h.ExpiresAt.Equal(after(time.Hour)) && h.Renewals == 1
			},
		},
		{
			"release", func(ctx context.Context, s *lock.Service) (int, error) { return s.ReleaseAll(ctx, "p") },
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
				n, err := call.call(t.Context(), service(m))
				if err != nil || n != test.holds {
					t.Fatalf("got %d, %v, want %d", n, err, test.holds)
				}
				var chunks []int
				var names []string
				for _, c := range m.executed {
					chunks = append(chunks, len(c.Resources()))
					names = append(names, c.Resources()...)
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
				wantEqual(t, "pages", pages, m.asked)
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

func TestFailureBetweenChunks(t *testing.T) {
	m, own := manyHeld(501)
	m.before = func() { m.stuck = lock.ErrUnavailable } // from the second transaction on
	listed := []lock.Owned{{Resource: own[0], Token: 100}, {Resource: own[500], Token: 100}}
	renewed, _, err := service(m).RenewAll(t.Context(), "p", time.Hour, listed)
	if renewed != 500 || !errors.Is(err, lock.ErrUnavailable) {
		t.Errorf("renewed %d, %v, want 500 and %v", renewed, err, lock.ErrUnavailable)
	}
	m, _ = manyHeld(501)
	m.before = func() { m.stuck = lock.ErrUnavailable }
	if released, err := service(m).ReleaseAll(t.Context(), "p"); released != 500 || !errors.Is(err, lock.ErrUnavailable) {
		t.Errorf("released %d, %v, want 500 and %v", released, err, lock.ErrUnavailable)
	}
}

// What HeldBy names may have ended since, and what it found may be over: only what was changed counts.
func TestAllCountsWhatItChanged(t *testing.T) {
	stored := []lock.Resource{
		named("a", heldBy("p1", time.Time{})), named("expired", heldBy("p1", t0)), named("kept", kept()),
		named("stolen", heldBy("p1", time.Time{})), named("z", heldBy("p1", time.Time{})),
	}
	steal := func(m *memory) *memory {
		m.before = func() { m.resources["stolen"] = named("stolen", heldBy("p2", time.Time{})) }
		return m
	}
	renewed, _, err := service(steal(newMemory(stored...))).RenewAll(t.Context(), "p1", time.Minute, nil)
	if renewed != 2 || err != nil {
		t.Errorf("renewed %d, %v, want 2", renewed, err)
	}
	m := steal(newMemory(stored...))
	released, err := service(m).ReleaseAll(t.Context(), "p1")
	if released != 2 || err != nil {
		t.Errorf("released %d, %v, want 2", released, err)
	}
	wantEqual(t, "events", []lock.EventKind{lock.Released, lock.Released}, kindsOf(m.events))
}

func TestRenewAllTellsWhatIsLost(t *testing.T) {
	b := named("b", heldBy("p1", after(time.Minute)))
	b.Token, b.Holds[0].Token = 200, 200
	m := newMemory(
		named("a", heldBy("p1", time.Time{})), b, named("expired", heldBy("p1", t0)),
		named("another's", heldBy("p2", time.Time{})), named("kept", kept()), named("free", freed(100)),
	)
	own := func(name string, token int64) lock.Owned { return lock.Owned{Resource: name, Token: token} }
	tests := []struct {
		name         string
		listed, lost []lock.Owned
	}{
		{"nothing listed", nil, nil},
		{"all there", []lock.Owned{own("b", 200), own("a", 100)}, nil},
		{"not all listed", []lock.Owned{own("a", 100)}, nil},
		{"expired", []lock.Owned{own("expired", 100), own("a", 100)}, []lock.Owned{own("expired", 100)}},
		{"another's, with its token", []lock.Owned{own("another's", 100)}, []lock.Owned{own("another's", 100)}},
		{"released within its minimum", []lock.Owned{own("kept", 100)}, []lock.Owned{own("kept", 100)}},
		{"released", []lock.Owned{own("free", 100)}, []lock.Owned{own("free", 100)}},
		{"never seen", []lock.Owned{own("new", 1)}, []lock.Owned{own("new", 1)}},
		{"acquired anew since", []lock.Owned{own("a", 99)}, []lock.Owned{own("a", 99)}},
		{"the token of another name", []lock.Owned{own("a", 200), own("b", 100)}, []lock.Owned{own("a", 200), own("b", 100)}},
		{
			"in the order of the list",
			[]lock.Owned{own("new", 2), own("b", 200), own("free", 100), own("a", 100), own("expired", 100)},
			[]lock.Owned{own("new", 2), own("free", 100), own("expired", 100)},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m.asked = nil
			listed := append([]lock.Owned{}, test.listed...)
			renewed, lost, err := service(m).RenewAll(t.Context(), "p1", time.Minute, listed)
			if renewed != 2 || err != nil { // listing changes nothing about what is renewed
				t.Errorf("renewed %d, %v, want 2", renewed, err)
			}
			if len(lost)+len(test.lost) > 0 {
				wantEqual(t, "lost", test.lost, lost)
			}
			if len(listed) > 0 {
				wantEqual(t, "the caller's list", test.listed, listed)
			}
		})
	}
}

func TestRenewAllFindsWhatIsListedInEveryChunk(t *testing.T) {
	m, own := manyHeld(1203)
	var listed []lock.Owned
	for _, name := range own {
		listed = append(listed, lock.Owned{Resource: name, Token: 100})
	}
	gone := lock.Owned{Resource: "gone", Token: 100}
	renewed, lost, err := service(m).RenewAll(t.Context(), "p", time.Hour, append(listed, gone))
	if renewed != 1203 || err != nil {
		t.Errorf("renewed %d, %v, want 1203", renewed, err)
	}
	wantEqual(t, "lost", []lock.Owned{gone}, lost)
}
