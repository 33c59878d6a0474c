package service_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
)

// An acquire of a resource that recently refused another one is refused on a snapshot,
// with the answer that a command would have given. A command decides everything else.
func TestRefusalOnASnapshot(t *testing.T) {
	m := newMemory()
	s := newService(m)
	acquire := func(process, requestID string) error {
		t.Helper()
		_, err := s.Acquire(t.Context(), lock.Request{
			Resource: "r", ProcessID: process, RequestID: requestID, TTL: time.Minute,
		})
		return err
	}
	wantHeldBy := func(process string, err error) {
		t.Helper()
		var held *lock.HeldError
		if !errors.As(err, &held) || held.Holder.ProcessID != process || !held.Now.Equal(m.now) {
			t.Errorf("got %v, want a refusal because %s holds it at %v", err, process, m.now)
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
	must(acquire("holder", "id"))
	wantHeldBy("holder", acquire("a", ""))
	wantCommands("the first refusal", 2)
	m.now = after(time.Second)
	wantHeldBy("holder", acquire("b", ""))
	wantHeldBy("holder", acquire("holder", ""))
	wantCommands("further refusals", 2)

	must(acquire("holder", "id"))
	wantCommands("an idempotent retry", 3)
	wantHeldBy("holder", acquire("c", ""))
	wantCommands("the first refusal after it", 4)
	m.readErr = errRead
	if err := acquire("c", ""); !errors.Is(err, errRead) {
		t.Errorf("got %v, want the error of the read", err)
	}
	m.readErr = nil
	wantHeldBy("holder", acquire("c", ""))
	wantCommands("a read that fails, and one that succeeds", 4)

	m.now = after(time.Minute)
	must(acquire("d", ""))
	wantCommands("an acquire after the expiry", 5)
	reads := m.readCount
	_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "d"})
	must(err)
	must(acquire("e", ""))
	if m.readCount != reads {
		t.Error("an acquire of a resource that was free last time reads it first")
	}
}

// An acquire that may wait and will probably be queued may share a transaction. It does
// not when the resource is free, nor after a delay that was of no use.
func TestAcquireThatWillBeQueuedIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDatabase().startServer(t, noRecheck())
		execute := func(process string, took time.Duration) {
			t.Helper()
			s.node.SetFault(func(lock.Command) memstore.Fault {
				<-time.After(took)
				return memstore.Fault{}
			})
			c := s.request(lock.Request{ProcessID: process, Wait: time.Hour})
			advance(took)
			c.wantGranted(took)
			s.node.SetFault(nil)
			s.release(process)
		}
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"}) // no acquire has been refused yet
		s.queue(lock.Request{ProcessID: "c"})
		s.release("a")
		s.release("b")
		s.release("c")
		execute("d", time.Millisecond)
		execute("e", 2*time.Millisecond)
		execute("f", 0)
		delay := time.Millisecond
		wantEqual(t, "max delays", []time.Duration{0, delay, delay, delay, 0}, s.node.maxDelays)
	})
}
