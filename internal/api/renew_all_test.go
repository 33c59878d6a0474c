package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

func TestRenewAll(t *testing.T) {
	type owned = wire.HoldRef
	onBoth(t, func(t *testing.T, s *server) {
		expired := s.acquireAndOutlive(t, "expired", "p")
		a, b := s.hold(t, "a", "p", 300), s.hold(t, "b", "p", 200)
		endless := s.hold(t, "endless", "p", nil)
		foreign := s.hold(t, "foreign", "q", 3000)
		released := dataOf[wire.Acquired](t, s.acquireWith(t, "released", "p", fields{"min_hold_seconds": 3000}))
		s.release(t, "released", "p").want(t, 200)
		forced := s.hold(t, "forced", "p", nil)
		s.forceRelease(t, "forced", "stuck").want(t, 200)
		listed := []owned{
			{ResourceName: "a", FencingToken: a.FencingToken},
			{ResourceName: "a", FencingToken: a.FencingToken + 1}, // another run's
			{ResourceName: "never", FencingToken: 1},
			{ResourceName: "foreign", FencingToken: foreign.FencingToken},
			{ResourceName: "expired", FencingToken: expired.FencingToken},
			{ResourceName: "released", FencingToken: released.FencingToken},
			{ResourceName: "forced", FencingToken: forced.FencingToken},
			{ResourceName: "b", FencingToken: b.FencingToken},
		}
		tests := []struct {
			name          string
			holds         any
			renewed       []string
			withoutExpiry int
			lost          []owned
		}{
			{"no list", nil, []string{"a", "b"}, 1, []owned{}},
			{"an empty list", []owned{}, nil, 0, []owned{}},
			{"one of two listed", listed[:1], []string{"a"}, 0, []owned{}},
			{"another run's", listed[1:2], nil, 0, listed[1:2]},
			{
				"without expiry",
				[]owned{{ResourceName: "endless", FencingToken: endless.FencingToken}},
				nil, 1,
				[]owned{},
			},
			{"some are lost, in the order of the list", listed, []string{"a", "b"}, 0, listed[1:7]},
			{
				"one is listed twice",
				[]owned{listed[2], listed[0], listed[2], listed[0]},
				[]string{"a"},
				0,
				[]owned{listed[2], listed[2]},
			},
		}
		renewals := map[string]int{}
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				s.clock.advance(10 * time.Second)
				ttl := 600 + i
				a := s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": ttl, "holds": test.holds})
				want := wire.RenewedAll{
					ProcessID: "p", Renewed: len(test.renewed), WithoutExpiry: test.withoutExpiry,
					Lost: test.lost,
				}
				if diff := cmp.Diff(want, dataOf[wire.RenewedAll](t, a)); diff != "" {
					t.Error("renewed (-want +got):\n" + diff)
				}
				wantMessage(t, a,
					fmt.Sprintf("Renewed %d lock%s of process 'p'", len(test.renewed), plural(len(test.renewed))))
				for _, name := range test.renewed {
					renewals[name]++
					if got := s.status(t, name); !cmp.Equal(float64(ttl), *got.ExpiresInSeconds, s.equalHolds()) {
						t.Errorf("%s after the renewal: %+v", name, got)
					}
				}
				for _, name := range []string{"a", "b", "endless", "foreign", "released"} {
					if got := s.status(t, name); *got.Renewals != renewals[name] ||
						(got.ExpiresAt == nil) != (name == "endless") {
						t.Errorf("%s after %d renewals: %+v", name, renewals[name], got)
					}
				}
			})
		}
		if diff := cmp.Diff([]string{"a", "b", "endless", "foreign", "released"},
			sorted(s.lockedNames(t))); diff != "" {
			t.Error("locked (-want +got):\n" + diff)
		}
		// For a process that holds nothing the renewal succeeds and reports the lost
		// holds.
		got := dataOf[wire.RenewedAll](t,
			s.post(t, "/locks/renew-all", fields{"process_id": "other", "ttl_seconds": 60, "holds": listed[:1]}))
		if diff := cmp.Diff(wire.RenewedAll{ProcessID: "other", Lost: listed[:1]}, got); diff != "" {
			t.Error("of another process (-want +got):\n" + diff)
		}
	})
}

func TestReleaseAll(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		releaseAll := func(process string, want int) {
			t.Helper()
			a := s.delete(t, "/locks/release-all", "process_id", process)
			all := wire.ReleasedAll{ProcessID: process, Released: want, Lost: []wire.HoldRef{}}
			if diff := cmp.Diff(all, dataOf[wire.ReleasedAll](t, a)); diff != "" {
				t.Error("released (-want +got):\n" + diff)
			}
			wantMessage(t, a, fmt.Sprintf("Released %d lock%s of process '%s'", want, plural(want), process))
		}
		releaseAll("p", 0)
		s.acquireAndOutlive(t, "expired", "p") // it has expired
		s.hold(t, "a", "p", 300)
		s.hold(t, "b", "p", nil)
		s.acquireWith(t, "minimum", "p", fields{"min_hold_seconds": 3000}).want(t, 200)
		s.hold(t, "foreign", "q", nil)
		s.hold(t, "other case", "P", nil)
		releaseAll("p", 3)
		if diff := cmp.Diff([]string{"foreign", "minimum", "other case"}, sorted(s.lockedNames(t))); diff != "" {
			t.Error("still locked (-want +got):\n" + diff)
		}
		if got := s.status(t, "minimum"); got.ReleasedAt == nil {
			t.Errorf("kept by its minimum: %+v", got)
		}
		releaseAll("p", 0) // a repeated call is harmless
		s.release(t, "a", "p").wantCode(t, 404, wire.CodeAlreadyReleased)
		s.hold(t, "b", "q", nil)
	})
}

// plural returns the ending of a noun.
func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// TestReleaseListed: with a list only its holds end, each by its own token.
func TestReleaseListed(t *testing.T) {
	type owned = wire.HoldRef
	onBoth(t, func(t *testing.T, s *server) {
		expired := s.acquireAndOutlive(t, "expired", "p")
		a, b := s.hold(t, "a", "p", 300), s.hold(t, "b", "p", nil)
		foreign := s.hold(t, "foreign", "q", nil)
		release := func(what string, holds any, want wire.ReleasedAll) {
			t.Helper()
			answer := s.post(t, "/locks/release-all", fields{"process_id": "p", "holds": holds})
			want.ProcessID = "p"
			if diff := cmp.Diff(want, dataOf[wire.ReleasedAll](t, answer)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			wantMessage(t, answer,
				fmt.Sprintf("Released %d lock%s of process 'p'", want.Released, plural(want.Released)))
		}
		before := s.state(t)
		none := []owned{}
		release("an empty list", none, wire.ReleasedAll{Lost: none})
		wrong := []owned{
			{ResourceName: "a", FencingToken: a.FencingToken + 1},
			{ResourceName: "foreign", FencingToken: foreign.FencingToken},
		}
		release("another run's, and another's", wrong, wire.ReleasedAll{Lost: wrong})
		if diff := cmp.Diff(before, s.state(t)); s.driver == store.SQLite && diff != "" {
			t.Error("what was not released has changed (-before +after):\n" + diff)
		}
		mine, lost := owned{ResourceName: "b", FencingToken: b.FencingToken}, owned{
			ResourceName: "expired",
			FencingToken: expired.FencingToken,
		}
		release("one, and one that was lost", []owned{lost, mine}, wire.ReleasedAll{Released: 1, Lost: []owned{lost}})
		release("once more", []owned{lost, mine}, wire.ReleasedAll{Lost: []owned{lost, mine}})
		if diff := cmp.Diff([]string{"a", "foreign"}, sorted(s.lockedNames(t))); diff != "" {
			t.Error("still locked (-want +got):\n" + diff)
		}
		release("all that is left", nil, wire.ReleasedAll{Released: 1, Lost: none})
	})
}

// TestManyHolds: more holds than one transaction renews or releases.
func TestManyHolds(t *testing.T) {
	const many = 1203
	onBoth(t, func(t *testing.T, s *server) {
		// Databases may order these names other than by their bytes. None may be skipped
		// between two transactions.
		names := numbered("r", many-6)
		names = append(names, "É", "é", "R0001", " ", "ÿ", "\U0010ffff")
		holds := s.acquireMany(t, names, "p", "", 3000*time.Second)
		s.hold(t, "foreign", "q", nil)
		listed := make([]wire.HoldRef, 0, 600) // as many as fit into a body
		for _, h := range holds[:600] {
			listed = append(listed, wire.HoldRef{ResourceName: h.ResourceName, FencingToken: h.FencingToken})
		}
		listed[599].FencingToken--
		got := dataOf[wire.RenewedAll](t,
			s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": 600, "holds": listed}))
		if diff := cmp.Diff(wire.RenewedAll{ProcessID: "p", Renewed: 599, Lost: listed[599:]}, got); diff != "" {
			t.Error("renewed (-want +got):\n" + diff)
		}
		for _, l := range s.allLocked(t).Locks {
			if (l.ExpiresAt == nil) != (l.ResourceName == "foreign") {
				t.Errorf("after the renewal: %+v", l)
			}
		}
		all := dataOf[wire.RenewedAll](t, s.post(t, "/locks/renew-all", fields{"process_id": "p", "ttl_seconds": 600}))
		if diff := cmp.Diff(wire.RenewedAll{ProcessID: "p", Renewed: many, Lost: []wire.HoldRef{}}, all); diff != "" {
			t.Error("renewed all (-want +got):\n" + diff)
		}
		some := dataOf[wire.ReleasedAll](t, s.post(t, "/locks/release-all", fields{"process_id": "p", "holds": listed}))
		if diff := cmp.Diff(wire.ReleasedAll{ProcessID: "p", Released: 599, Lost: listed[599:]}, some); diff != "" {
			t.Error("released some (-want +got):\n" + diff)
		}
		if got := dataOf[wire.ReleasedAll](t,
			s.delete(t, "/locks/release-all", "process_id", "p")); got.Released != many-599 {
			t.Errorf("released %d of %d", got.Released, many-599)
		}
		if diff := cmp.Diff([]string{"foreign"}, s.lockedNames(t)); diff != "" {
			t.Error("still locked (-want +got):\n" + diff)
		}
	})
}

// TestHeartbeatKeepsTheMinimum: a renewal does not free a resource before its minimum has
// passed.
func TestHeartbeatKeepsTheMinimum(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range []string{"one", "all"} {
			s.acquireWith(t, name, name, fields{"ttl_seconds": 600, "min_hold_seconds": 300}).want(t, 200)
		}
		s.renew(t, "one", "one", 0.001, 0).want(t, 200)
		s.post(t, "/locks/renew-all", fields{"process_id": "all", "ttl_seconds": 0.001}).want(t, 200)
		for _, name := range []string{"one", "all"} {
			got := s.status(t, name)
			if !got.IsLocked || !cmp.Equal(got.ExpiresAt, got.MinHoldUntil, s.equalHolds()) {
				t.Errorf("%s: %+v", name, got)
			}
			if life := time.Time(*got.ExpiresAt).Sub(time.Time(*got.LockedAt)); life != 300*time.Second {
				t.Errorf("%s: a life of %v", name, life)
			}
		}
		if s.driver == store.SQLite {
			s.clock.advance(300 * time.Second)
			if got := s.lockedNames(t); len(got) > 0 {
				t.Errorf("still locked: %q", got)
			}
		}
	})
}
