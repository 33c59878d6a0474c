package service_test

import (
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// Who asks for a resource that refused somebody before is refused on a look, with the answer that a command would have given;
// anything else is decided by a command.
func TestRefusalOnALook(t *testing.T) {
	m := newMemory()
	s := newService(m)
	ask := func(process, request string, wait time.Duration) error {
		t.Helper()
		_, err := s.Acquire(t.Context(), lock.Request{
			Resource: "r", ProcessID: process, RequestID: request, TTL: time.Minute, Wait: wait,
		})
		return err
	}
	wantHeldBy := func(process string, err error) {
		t.Helper()
		var held *lock.HeldError
		if !errors.As(err, &held) || held.Holder.ProcessID != process || !held.Now.Equal(m.now) {
			t.Errorf("got %v, want to be refused because of %s at %v", err, process, m.now)
		}
	}
	wantCommands := func(what string, want int) {
		t.Helper()
		if got := len(m.executed); got != want {
			t.Errorf("%s: %d commands so far, want %d", what, got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ask("holder", "name", 0))
	wantHeldBy("holder", ask("a", "", 0))
	wantCommands("the first refusal", 2)
	m.now = after(time.Second)
	wantHeldBy("holder", ask("b", "", 0))
	wantHeldBy("holder", ask("holder", "", 0))
	wantCommands("more refusals", 2)

	must(ask("holder", "name", 0)) // it repeats its own request
	wantCommands("a repeated request", 3)
	wantHeldBy("holder", ask("c", "", 0))
	wantCommands("the first refusal after it", 4)
	m.readErr = errRead
	if err := ask("c", "", 0); !errors.Is(err, errRead) {
		t.Errorf("got %v, want the look's error", err)
	}
	m.readErr = nil
	wantHeldBy("holder", ask("c", "", 0))
	wantCommands("a look that fails, and one that does not", 4)

	m.now = after(time.Minute)
	must(ask("d", "", 0))
	wantCommands("after the expiry", 5)
	reads := m.readCount
	_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "d"})
	must(err)
	must(ask("e", "", 0))
	if m.readCount != reads {
		t.Error("a resource that was free last time is looked at before it is asked for")
	}
}
