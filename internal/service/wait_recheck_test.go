package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// The look at everything reads the database, and only then compares it with who is there. A request that is granted and
// answered in between is not one that nobody waits for: to take its hold away would give to the next what its client was
// told is its own.
func TestLookAtEverythingLeavesAHoldThatWasGrantedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		c := s.queue(lock.Request{ProcessID: "c"})
		s.node.mu.Lock()
		s.node.afterReads = func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil {
				t.Error(err)
			}
			<-b.done
		}
		s.node.mu.Unlock()
		advance(usual.Recheck)
		b.wantGranted(usual.Recheck)
		d.wantHolder(t, "b")
		c.wantWaiting()
		d.wantEvents(t, "b", "queued", "granted")
	})
}

// The same with one that came, was granted and answered during the look.
func TestLookAtEverythingLeavesAHoldOfARequestThatCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		s.queue(lock.Request{Resource: "r", ProcessID: "b"})
		var c *call
		s.node.mu.Lock()
		s.node.beforeReads = func() { // the request queues before the look reads
			ctx := t.Context()
			c = &call{t: t, process: "c", done: make(chan struct{}), began: time.Now()}
			if _, err := s.Acquire(ctx, lock.Request{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			waits := make(chan struct{})
			tell := s.node.observe
			s.node.observe = func(commit service.Commit) { tell(commit); s.node.observe = tell; close(waits) }
			go func() {
				defer close(c.done)
				c.grant, c.err = s.Acquire(ctx, lock.Request{Resource: "other", ProcessID: "c", Wait: time.Hour})
			}()
			<-waits
		}
		s.node.afterReads = func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			<-c.done
		}
		s.node.mu.Unlock()
		advance(usual.Recheck)
		c.wantGranted(0)
		if got := d.holder("other"); got != "c" {
			t.Errorf("held by %q, want c", got)
		}
	})
}

// The same with a request that hung up in between: its place is kept already.
func TestLookAtEverythingLeavesAPlaceThatIsKeptSinceThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		s.queue(lock.Request{ProcessID: "c"})
		s.node.mu.Lock()
		s.node.afterReads = func() {
			b.disconnect()
			<-b.done
		}
		s.node.mu.Unlock()
		advance(usual.Recheck)
		d.wantQueue(t, "-b", "c")
	})
}
