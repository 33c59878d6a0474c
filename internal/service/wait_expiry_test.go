package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// If the hold expires exactly when the wait ends, the request is granted, whichever of
// the two timers fires first.
func TestExpiryAtTheTimeoutIsAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 3*time.Second)
		b := s.queue(lock.Request{ProcessID: "b", Wait: 3 * time.Second})
		advance(3 * time.Second)
		b.wantGranted(3 * time.Second)
		d.wantEvents(t, "b", "queued", "granted")
	})
}

// The hand-over after an expiry needs no sweeper: a timer runs until the hold expires.
func TestExpiryHandsOverAtExactlyItsTime(t *testing.T) {
	tests := []struct {
		name  string
		renew time.Duration // the TTL of a renewal after two seconds; 0: there is none
		at    time.Duration
	}{
		{"not renewed", 0, 5 * time.Second},
		{"renewed to a later time", 30 * time.Second, 32 * time.Second},
		{"renewed to an earlier time", time.Second, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				started := time.Now()
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Request{ProcessID: "b"})
				advance(2 * time.Second)
				if test.renew > 0 {
					renewal := lock.Renew{Resource: "r", ProcessID: "a", TTL: test.renew}
					if _, err := s.Renew(t.Context(), renewal); err != nil {
						t.Fatal(err)
					}
				}
				advance(time.Until(started.Add(test.at - 1)))
				b.wantWaiting()
				advance(1)
				g := b.wantGranted(test.at)
				if !g.Hold.LockedAt.Equal(started.Add(test.at)) {
					t.Errorf("granted at %v, want %v", g.Hold.LockedAt, started.Add(test.at))
				}
				d.wantEvents(t, "a", "acquired", "expired")
			})
		})
	}
}

func TestMinimumHoldDelaysTheHandOverToExactlyItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.request(lock.Request{ProcessID: "a", MinHold: 4 * time.Second}).wantGranted(0)
		b := s.queue(lock.Request{ProcessID: "b"})
		advance(time.Second)
		s.release("a")
		b.wantWaiting()
		advance(3*time.Second - 1)
		b.wantWaiting()
		advance(1)
		b.wantGranted(4 * time.Second)
	})
}

// When a hold ends before its timer fires, the timer is set to the expiry of the next
// hold.
func TestTimerFollowsTheCurrentHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 5*time.Second)
		b := s.queue(lock.Request{ProcessID: "b", TTL: 20 * time.Second})
		c := s.queue(lock.Request{ProcessID: "c"})
		advance(time.Second)
		s.release("a")
		b.wantGranted(time.Second)
		before := s.node.commands()
		advance(20*time.Second - 1)
		c.wantWaiting()
		s.wantIdle(before)
		advance(1)
		c.wantGranted(21 * time.Second)
	})
}

// A timer that has become useless executes no command.
func TestUselessTimerIsStopped(t *testing.T) {
	tests := []struct {
		name string
		end  func(s *server, b *call)
	}{
		{"the next hold never expires", func(s *server, _ *call) {
			s.queue(lock.Request{ProcessID: "c"})
			s.release("a")
		}},
		{"no waiter is connected any more", func(_ *server, b *call) {
			b.disconnect()
			synctest.Wait()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDatabase().startServer(t, noRecheck())
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				advance(time.Second)
				test.end(s, b)
				before := s.node.commands()
				advance(time.Minute)
				s.wantIdle(before)
			})
		})
	}
}

// The observer learns of a commit some time after the timestamp of the commit. The timer
// is not late by that delay.
func TestTimerCountsFromTheTimeOfTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDatabase().startServer(t, noRecheck())
		s.hold("a", 5*time.Second)
		observe := s.node.observe
		s.node.observe = func(c service.Commit) {
			s.node.observe = observe
			<-time.After(time.Second)
			observe(c)
		}
		b := s.queue(lock.Request{ProcessID: "b"})
		advance(5*time.Second - 1)
		b.wantWaiting()
		advance(1)
		b.wantGranted(5 * time.Second)
	})
}
