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

// TestAcquireIsStored tests that a read returns the state that the command returned.
func TestAcquireIsStored(t *testing.T, db Database) {
	s := db.open(t)
	before := time.Now().Add(-time.Minute)
	out := acquire(t, s, "r", "p", 90*time.Second)

	got, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out.Resource, got.Resource); diff != "" {
		t.Errorf("state (-outcome +stored):\n%s", diff)
	}
	if out.Resource.ID == 0 {
		t.Error("the outcome has no row id")
	}
	if got := out.Hold.ExpiresAt.Sub(out.Hold.LockedAt); got != 90*time.Second {
		t.Errorf("the hold expires %v after LockedAt, want 90s", got)
	}
	if got.At.Before(out.Now) || out.Now.Before(before) || out.Now.After(time.Now().Add(time.Minute)) {
		t.Errorf("implausible times: acquire at %v, read at %v", out.Now, got.At)
	}
}

// TestTextSurvives tests that names and process ids with special characters are stored
// unchanged.
func TestTextSurvives(t *testing.T, db Database) {
	names := []string{
		"plain", `'; DROP TABLE resource_locks; --`, `quote " backslash \ percent % underscore _ question ? at @name`,
		"日本語 🔒 é é", "<script>&amp;", "  spaces  ", "{json: [true, null]}", "\u2028\u2029\ufeff",
		"CASE", "case",
	}
	s := db.open(t)
	for _, name := range names {
		acquire(t, s, name, name+"!", 0)
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

// TestRefusalsChangeNothing tests that a refused command changes no state and creates no
// row.
func TestRefusalsChangeNothing(t *testing.T, db Database) {
	s := db.open(t)
	held := acquire(t, s, "r", "p", 0)

	var heldError *lock.HeldError
	other := lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "q"}}
	if _, err := s.Execute(t.Context(), other); !errors.As(err, &heldError) {
		t.Fatalf("acquire of a held resource: got %v, want a HeldError", err)
	}
	if diff := cmp.Diff(&held.Hold, heldError.Holder); diff != "" {
		t.Errorf("holder in the refusal (-want +got):\n%s", diff)
	}
	var notHeld *lock.NotHeldError
	for _, c := range []lock.Release{{Resource: "r", ProcessID: "q"}, {Resource: "never held", ProcessID: "q"}} {
		if _, err := s.Execute(t.Context(), c); !errors.As(err, &notHeld) {
			t.Errorf("%+v: got %v, want a NotHeldError", c, err)
		}
	}
	got, err := s.Find(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(held.Resource, got.Resource); diff != "" {
		t.Errorf("state after refusals (-want +got):\n%s", diff)
	}
	if unused, err := s.Find(t.Context(), "never held"); err != nil || unused.Resource.ID != 0 {
		t.Errorf("after a refused release: got %+v, %v, want no row", unused, err)
	}
}

// TestReleaseKeepsRowAndToken tests that the row of a released resource stays, so the
// next token is greater.
func TestReleaseKeepsRowAndToken(t *testing.T, db Database) {
	s := db.open(t)
	first := acquire(t, s, "r", "p", 0)
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
	second := acquire(t, s, "r", "p", 0)
	if second.Resource.ID != first.Resource.ID || second.Hold.Token <= first.Hold.Token {
		t.Errorf("second hold: got row %d after %d and token %d after %d, want the same row and a greater token",
			second.Resource.ID, first.Resource.ID, second.Hold.Token, first.Hold.Token)
	}
}

// TestExclusionUnderLoad tests that many clients compete for few resources. No two hold
// the same one, and the tokens of a resource grow in the order of its holds.
func TestExclusionUnderLoad(t *testing.T, db Database) {
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
				request := lock.Request{Resource: name, ProcessID: process}
				out, err := s.Execute(context.Background(), lock.Acquire{Request: request})
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
					t.Errorf("%s was granted %s, which %s holds", process, name, other)
				}
				if out.Hold.Token <= last[name] {
					t.Errorf("%s: token %d after %d", name, out.Hold.Token, last[name])
				}
				holder[name], last[name] = process, out.Hold.Token
				mu.Unlock()
				runtime.Gosched() // other clients try while it is held
				mu.Lock()
				holder[name] = "" // before the release, after which another client may get the resource
				mu.Unlock()
				release := lock.Release{Resource: name, ProcessID: process}
				if _, err := s.Execute(context.Background(), release); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestFirstInsertIsDecidedOnce tests that all servers acquire the same new resources at
// the same time. Each resource is granted once.
func TestFirstInsertIsDecidedOnce(t *testing.T, db Database) {
	const servers, names = 3, 50
	stores := db.servers(t, servers)
	var mu sync.Mutex
	grants := map[string]int{}
	var wg sync.WaitGroup
	for i, s := range stores {
		for n := range names {
			wg.Go(func() {
				name := fmt.Sprint("new ", n)
				request := lock.Request{Resource: name, ProcessID: fmt.Sprint(i)}
				_, err := s.Execute(context.Background(), lock.Acquire{Request: request})
				var held *lock.HeldError
				switch {
				case err == nil:
					mu.Lock()
					grants[name]++
					mu.Unlock()
				case !errors.As(err, &held):
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for n := range names {
		if got := grants[fmt.Sprint("new ", n)]; got != 1 {
			t.Errorf("new %d was granted %d times, want once", n, got)
		}
	}
}

// TestSweep tests that the sweeps of the service end expired holds and delete idle
// resources, a limited number at a time.
func TestSweep(t *testing.T, db Database) {
	s := db.open(t)
	cfg := service.Config{Limits: lock.Limits{MaxTTL: lock.LongestTTL}}
	sweeps := service.New(s, cfg, slog.New(slog.DiscardHandler))
	for i := range 5 {
		acquire(t, s, fmt.Sprint("short ", i), "p", time.Microsecond)
	}
	long := acquire(t, s, "long", "p", time.Hour)
	token := acquire(t, s, "released", "p", 0).Hold.Token
	release(t, s, "released", "p")

	for _, want := range []int{2, 2, 1, 0} {
		if got, err := sweeps.SweepExpired(t.Context(), 2); err != nil || got != want {
			t.Fatalf("swept %d, %v, want %d", got, err, want)
		}
	}
	if got := held(t, s, service.ListFilter{}); len(got) != 1 || got[0].Token != long.Hold.Token {
		t.Errorf("held after the sweep: got %+v, want only %+v", got, long.Hold)
	}

	deleted, next, err := sweeps.SweepIdle(t.Context(), 0, 100, time.Hour)
	if err != nil || deleted != 0 || next != 0 {
		t.Errorf("deleted %d resources that are not idle for an hour, next %d, %v", deleted, next, err)
	}
	total, after := 0, int64(0)
	for range 4 { // 7 rows in windows of 2
		deleted, next, err := sweeps.SweepIdle(t.Context(), after, 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		total, after = total+deleted, next
	}
	if total != 6 || after != 0 {
		t.Errorf("deleted %d, next %d, want 6 and 0", total, after)
	}
	if r, err := s.Find(t.Context(), "released"); err != nil || r.Resource.ID != 0 {
		t.Errorf("got %+v, %v, want no row", r, err)
	}
	// The tokens of a new row are greater than those of every deleted row, whatever the
	// clock shows.
	if got := acquire(t, s, "new", "p", 0).Hold.Token; got <= token {
		t.Errorf("the token %d of a new row is not greater than the deleted %d", got, token)
	}
}
