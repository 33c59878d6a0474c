package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

func TestRechecksDoNothingWithoutFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, usual), d.startServer(t, usual)
		one.hold("a", 0)
		one.queue(lock.Request{ProcessID: "b"})
		two.queue(lock.Request{ProcessID: "c", RequestID: "id"})
		beforeOne, beforeTwo := one.node.commands(), two.node.commands()
		advance(fullRecheck)
		one.wantIdle(beforeOne)
		two.wantIdle(beforeTwo)
		d.wantQueue(t, "b", "c")
	})
}

// A full recheck reads the database first and compares the result with the registered
// requests afterwards. A request that was granted and answered in between is no orphan:
// its client has the hold, so the recheck must not end it.
func TestFullRecheckKeepsAHoldGrantedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		c := s.queue(lock.Request{ProcessID: "c"})
		s.node.onFullRead(nil, func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil {
				t.Error(err)
			}
			<-b.done
		})
		advance(fullRecheck)
		b.wantGranted(fullRecheck)
		d.wantHolder(t, "b")
		c.wantWaiting()
		d.wantEvents(t, "b", "queued", "granted")
	})
}

// The same for a request that started just before the read and was answered just after
// it.
func TestFullRecheckKeepsAHoldOfARequestThatStartedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"})
		var c *call
		s.node.onFullRead(func() {
			ctx := t.Context()
			c = &call{t: t, process: "c", done: make(chan struct{})}
			if _, err := s.Acquire(ctx, lock.Request{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			queued := make(chan struct{})
			observe := s.node.observe
			s.node.observe = func(commit service.Commit) { observe(commit); s.node.observe = observe; close(queued) }
			go func() {
				defer close(c.done)
				c.grant, c.err = s.Acquire(ctx, lock.Request{Resource: "other", ProcessID: "c", Wait: time.Hour})
			}()
			<-queued
		}, func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			<-c.done
		})
		advance(fullRecheck)
		c.wantGranted(0)
		if got := d.holder("other"); got != "c" {
			t.Errorf("held by %q, want c", got)
		}
	})
}

// The same for a request whose client disconnected in between: its place stays kept.
func TestFullRecheckKeepsAPlaceDetachedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		s.queue(lock.Request{ProcessID: "c"})
		s.node.onFullRead(nil, func() {
			b.disconnect()
			<-b.done
		})
		advance(fullRecheck)
		d.wantQueue(t, "-b", "c")
	})
}

// A request whose first command is in progress has no place yet. A full recheck does not
// make it execute its acquire again.
func TestFullRecheckIgnoresARequestThatIsNotQueuedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		proceed := make(chan struct{})
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if _, acquires := c.(lock.Acquire); acquires {
				<-proceed
			}
			return memstore.Fault{}
		})
		s.request(lock.Request{ProcessID: "b", Wait: time.Hour})
		before := s.node.commands()
		advance(fullRecheck)
		close(proceed)
		synctest.Wait()
		d.wantQueue(t, "b")
		s.wantIdle(before)
	})
}
