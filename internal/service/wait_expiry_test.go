package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Its turn comes at the very moment when its time is over: nobody else has been before it, so it counts, whichever of the
// two timers is the first.
func TestExpiryAtTheMomentOfTheTimeoutIsAGrant(t *testing.T) {
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

// Expiry needs no sweeper: a timer runs for the holder's end.
func TestExpiryHandsOverAtExactlyItsMoment(t *testing.T) {
	tests := []struct {
		name  string
		renew time.Duration // after two seconds; 0: not at all
		at    time.Duration
	}{
		{"as granted", 0, 5 * time.Second},
		{"after a renewal to later", 30 * time.Second, 32 * time.Second},
		{"after a renewal to sooner", time.Second, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				begun := time.Now()
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Request{ProcessID: "b"})
				advance(2 * time.Second)
				if test.renew > 0 {
					if _, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: test.renew}); err != nil {
						t.Fatal(err)
					}
				}
				advance(time.Until(begun.Add(test.at - 1)))
				b.wantWaiting()
				advance(1)
				g := b.wantGranted(test.at)
				if !g.Hold.LockedAt.Equal(begun.Add(test.at)) {
					t.Errorf("granted at %v, want %v", g.Hold.LockedAt, begun.Add(test.at))
				}
				d.wantEvents(t, "a", "acquired", "expired")
			})
		})
	}
}

func TestMinimumDelaysTheHandOverToExactlyItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		if _, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "a", MinHold: 4 * time.Second}); err != nil {
			t.Fatal(err)
		}
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

// A timer that was set for a hold must not be needed, nor do harm, when the hold has ended before.
func TestTimersGoOnFromHoldToHold(t *testing.T) {
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

// A timer that is of no use any more costs nothing.
func TestTimerEndsWithItsReason(t *testing.T) {
	tests := []struct {
		name string
		end  func(s *server, b *call)
	}{
		{"the next hold never expires", func(s *server, _ *call) { s.release("a") }},
		{"nobody is connected any more", func(_ *server, b *call) { b.disconnect(); synctest.Wait() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDatabase().startServer(t, noRecheck())
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				if test.name == "the next hold never expires" {
					s.queue(lock.Request{ProcessID: "c"})
				}
				advance(time.Second)
				test.end(s, b)
				before := s.node.commands()
				advance(time.Minute)
				s.wantIdle(before)
			})
		})
	}
}

// The moment of a commit is some time ago when the news of it comes: the timer is not late by that.
func TestTimerCountsFromTheMomentOfTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDatabase().startServer(t, noRecheck())
		s.hold("a", 5*time.Second)
		tell := s.node.observe
		s.node.observe = func(c service.Commit) {
			s.node.observe = tell
			<-time.After(time.Second)
			tell(c)
		}
		b := s.queue(lock.Request{ProcessID: "b"})
		advance(5*time.Second - 1)
		b.wantWaiting()
		advance(1)
		b.wantGranted(5 * time.Second)
	})
}

func TestLookAtEverythingChangesNothingWhenAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, usual), d.startServer(t, usual)
		one.hold("a", 0)
		one.queue(lock.Request{ProcessID: "b"})
		two.queue(lock.Request{ProcessID: "c", RequestID: "id"})
		beforeOne, beforeTwo := one.node.commands(), two.node.commands()
		advance(3 * usual.Recheck)
		one.wantIdle(beforeOne)
		two.wantIdle(beforeTwo)
		d.wantQueue(t, "b", "c")
	})
}
