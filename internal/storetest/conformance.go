package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

func testAcquireIsStored(t *testing.T, db Database) {
	s := db.open(t)
	before := time.Now().Add(-time.Minute)
	out := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", TTL: 90 * time.Second}})

	got, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out.Resource, got.Resource); diff != "" {
		t.Errorf("stored state differs from the outcome (-outcome +stored):\n%s", diff)
	}
	if out.Resource.ID == 0 {
		t.Error("the outcome has no row id")
	}
	if got := out.Hold.ExpiresAt.Sub(out.Hold.LockedAt); got != 90*time.Second {
		t.Errorf("expires %v after it was locked", got)
	}
	if got.At.Before(out.Now) || out.Now.Before(before) || out.Now.After(time.Now().Add(time.Minute)) {
		t.Errorf("odd times: acquire at %v, read at %v", out.Now, got.At)
	}
}

// Names, process ids and times that a careless encoding would change come back as they were.
func testTextSurvives(t *testing.T, db Database) {
	names := []string{
		"plain", `'; DROP TABLE resource_locks; --`, `quote " backslash \ percent % underscore _ question ? at @name`,
		"日本語 🔒 é é", "<script>&amp;", "  spaces  ", "{json: [true, null]}", "\u2028\u2029\ufeff", "CASE", "case",
	}
	s := db.open(t)
	for _, name := range names {
		execute(t, s, lock.Acquire{Request: lock.Request{Resource: name, ProcessID: name + "!"}})
	}
	var got []string
	for _, r := range held(t, s, service.ListFilter{}) {
		if r.Holds[0].ProcessID != r.Name+"!" {
			t.Errorf("%q is held by %q", r.Name, r.Holds[0].ProcessID)
		}
		got = append(got, r.Name)
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("held names (-want +got):\n%s", diff)
	}
}

func testRefusalsChangeNothing(t *testing.T, db Database) {
	s := db.open(t)
	held := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}})

	var heldError *lock.HeldError
	if _, err := s.Execute(t.Context(), lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "q"}}); !errors.As(err, &heldError) {
		t.Fatalf("acquire of a held resource: %v", err)
	}
	if diff := cmp.Diff(&held.Hold, heldError.Holder); diff != "" {
		t.Errorf("holder in the refusal (-want +got):\n%s", diff)
	}
	var notHeld *lock.NotHeldError
	for _, c := range []lock.Release{{Resource: "r", ProcessID: "q"}, {Resource: "never seen", ProcessID: "q"}} {
		if _, err := s.Execute(t.Context(), c); !errors.As(err, &notHeld) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	got, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(held.Resource, got.Resource); diff != "" {
		t.Errorf("state after refusals (-want +got):\n%s", diff)
	}
	if unseen, err := s.Find(t.Context(), "never seen"); err != nil || unseen.Resource.ID != 0 {
		t.Errorf("a refused release left a row: %+v, %v", unseen, err)
	}
}

func testReleaseKeepsRowAndToken(t *testing.T, db Database) {
	s := db.open(t)
	first := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}})
	released := execute(t, s, lock.Release{Resource: "r", ProcessID: "p"})

	got, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	want := lock.Resource{
		ID: first.Resource.ID, Name: "r", Token: first.Hold.Token, Last: first.Hold, EndedAt: released.Now,
	}
	if diff := cmp.Diff(want, got.Resource, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("released resource (-want +got):\n%s", diff)
	}
	second := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p"}})
	if second.Resource.ID != first.Resource.ID || second.Hold.Token <= first.Hold.Token {
		t.Errorf("second hold: row %d after %d, token %d after %d",
			second.Resource.ID, first.Resource.ID, second.Hold.Token, first.Hold.Token)
	}
}

// Many clients on few resources: nobody ever holds together with somebody else, and tokens grow in the order of the holds.
func testExclusionUnderLoad(t *testing.T, db Database) {
	const clients, rounds, resources = 24, 40, 3
	stores := db.servers(t, 3)
	var mu sync.Mutex
	holder := map[string]string{}
	last := map[string]int64{}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			s := stores[client%len(stores)]
			process := fmt.Sprint("client ", client)
			for round := range rounds {
				name := fmt.Sprint("resource ", (client+round)%resources)
				out, err := s.Execute(context.Background(), lock.Acquire{Request: lock.Request{Resource: name, ProcessID: process}})
				var held *lock.HeldError
				if errors.As(err, &held) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := holder[name]; other != "" {
					t.Errorf("%s got %s while %s holds it", process, name, other)
				}
				if out.Hold.Token <= last[name] {
					t.Errorf("%s: token %d after %d", name, out.Hold.Token, last[name])
				}
				holder[name], last[name] = process, out.Hold.Token
				mu.Unlock()
				runtime.Gosched() // let others try while it is held
				mu.Lock()
				holder[name] = "" // before the release is sent: nobody may be granted the resource earlier
				mu.Unlock()
				if _, err := s.Execute(context.Background(), lock.Release{Resource: name, ProcessID: process}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// All servers try to insert the same new names at the same time: exactly one wins each.
func testFirstInsertIsDecidedOnce(t *testing.T, db Database) {
	const servers, names = 3, 50
	stores := db.servers(t, servers)
	var mu sync.Mutex
	wins := map[string]int{}
	var wg sync.WaitGroup
	for i, s := range stores {
		for n := range names {
			wg.Go(func() {
				name := fmt.Sprint("new ", n)
				_, err := s.Execute(context.Background(), lock.Acquire{Request: lock.Request{Resource: name, ProcessID: fmt.Sprint(i)}})
				var held *lock.HeldError
				switch {
				case err == nil:
					mu.Lock()
					wins[name]++
					mu.Unlock()
				case !errors.As(err, &held):
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for n := range names {
		if got := wins[fmt.Sprint("new ", n)]; got != 1 {
			t.Errorf("new %d was granted %d times", n, got)
		}
	}
}

func testSweep(t *testing.T, db Database) {
	s := db.open(t)
	sweeps := service.New(s, service.Config{Limits: lock.Limits{MaxTTL: lock.LongestTTL}}, slog.New(slog.DiscardHandler))
	for i := range 5 {
		execute(t, s, lock.Acquire{Request: lock.Request{Resource: fmt.Sprint("short ", i), ProcessID: "p", TTL: time.Microsecond}})
	}
	kept := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "long", ProcessID: "p", TTL: time.Hour}})
	token := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "released", ProcessID: "p"}}).Hold.Token
	execute(t, s, lock.Release{Resource: "released", ProcessID: "p"})

	for _, want := range []int{2, 2, 1, 0} {
		if got, err := sweeps.SweepExpired(t.Context(), 2); err != nil || got != want {
			t.Fatalf("swept %d, %v, want %d", got, err, want)
		}
	}
	if got := held(t, s, service.ListFilter{}); len(got) != 1 || got[0].Token != kept.Hold.Token {
		t.Errorf("held after the sweep: %+v", got)
	}

	if forgotten, next, err := sweeps.SweepIdle(t.Context(), 0, 100, time.Hour); err != nil || forgotten != 0 || next != 0 {
		t.Errorf("forgot %d that ended just now, next %d, %v", forgotten, next, err)
	}
	total, after := 0, int64(0)
	for range 4 { // 7 rows in windows of 2
		forgotten, next, err := sweeps.SweepIdle(t.Context(), after, 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		total, after = total+forgotten, next
	}
	if total != 6 || after != 0 {
		t.Errorf("forgot %d, next %d, want 6 and 0", total, after)
	}
	if r, err := s.Find(t.Context(), "released"); err != nil || r.Resource.ID != 0 {
		t.Errorf("the resource was not deleted: %+v, %v", r, err)
	}
	// A name that comes back starts above every deleted token, whatever the clock says.
	again := execute(t, s, lock.Acquire{Request: lock.Request{Resource: "brand new", ProcessID: "p"}})
	if again.Hold.Token <= token {
		t.Errorf("token %d after the deleted %d", again.Hold.Token, token)
	}
}
