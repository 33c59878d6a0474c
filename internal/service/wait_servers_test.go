package service_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestHandOverAcrossServers(t *testing.T) {
	tests := []struct {
		name string
		lost bool // the notification
		at   time.Duration
	}{
		{"at once after a notification", false, time.Second},
		{"at the next recheck if the notification is lost", true, usual.Recheck},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				one, two := d.startServer(t, usual), d.startServer(t, usual)
				one.hold("a", 0)
				b := two.queue(lock.Request{ProcessID: "b"})
				if test.lost {
					two.dropHints()
				}
				advance(time.Second)
				one.release("a")
				newcomer := one.request(lock.Request{ProcessID: "c"})
				var held *lock.HeldError
				if !errors.As(newcomer.err, &held) {
					t.Fatalf("a newcomer got %+v, %v, want a HeldError", newcomer.grant.Hold, newcomer.err)
				}
				if test.lost {
					want := &lock.HeldError{Resource: "r", Next: "b", Waiters: 1, Now: time.Now()}
					wantEqual(t, "refusal", want, held)
				}
				advance(test.at - time.Second)
				b.wantGranted(test.at)
			})
		})
	}
}

// If a notification is lost, any transaction of the waiter's server that reads the free
// resource grants it to the waiter.
func TestLostNotificationIsMadeUpByALaterTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		one.hold("a", 0)
		b := two.queue(lock.Request{ProcessID: "b"})
		two.dropHints()
		one.release("a")
		b.wantWaiting()
		two.request(lock.Request{ProcessID: "c"})
		b.wantGranted(0)
	})
}

func TestExpiryOfAHoldRenewedOnAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		two.hold("a", 5*time.Second)
		b := one.queue(lock.Request{ProcessID: "b"})
		advance(4 * time.Second)
		renewal := lock.Renew{Resource: "r", ProcessID: "a", TTL: 8 * time.Second}
		if _, err := two.Renew(t.Context(), renewal); err != nil {
			t.Fatal(err)
		}
		advance(8*time.Second - 1)
		b.wantWaiting() // server one's timer fired at the old expiry and was set again
		advance(1)
		b.wantGranted(12 * time.Second)
	})
}

// When the lease of a dead server ends, its waiters are passed over without any request.
func TestWaitersOfADeadServerArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		one.hold("a", 0)
		lost := two.queue(lock.Request{ProcessID: "lost", RequestID: "id"})
		c := one.queue(lock.Request{ProcessID: "c"})
		two.dropHints()
		two.node.EndLease(time.Now().Add(2 * time.Second))
		one.release("a")
		c.wantWaiting()
		advance(2*time.Second - 1)
		c.wantWaiting()
		advance(1)
		c.wantGranted(2 * time.Second)
		lost.wantWaiting()
		d.wantQueue(t, "lost")
		advance(usual.KeepPlace - 1)
		if n, err := one.SweepAbandoned(t.Context(), 10); n != 0 || err != nil {
			t.Errorf("swept %d, %v, want 0: the place is still kept", n, err)
		}
		advance(1)
		if n, err := one.SweepAbandoned(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("swept %d, %v, want 1", n, err)
		}
		d.wantQueue(t)
	})
}

// A waiter without a place, as after the restore of an old backup, is queued again.
func TestLostPlaceIsQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.node.Edit("r", func(r *lock.Resource) { r.Queue, r.Waiters = nil, 0 })
		advance(fullRecheck)
		b.wantWaiting()
		d.wantQueue(t, "b")
		s.release("a")
		b.wantGranted(fullRecheck)
	})
}

// addOrphan adds a local waiter without a request to the queue of "r". A crash between
// commit and answer can leave one.
func addOrphan(s *server, process string) {
	s.node.Edit("r", func(r *lock.Resource) {
		r.LastTicket++
		r.Waiters++
		r.Queue = append(r.Queue[:len(r.Queue):len(r.Queue)], &lock.Waiter{
			Ticket: r.LastTicket, Since: time.Now(), Connection: 77,
			Request: lock.Request{Resource: "r", ProcessID: process, RequestID: "~" + process, Wait: time.Hour},
		})
	})
}

func TestOrphanedPlaceIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		addOrphan(s, "orphan")
		d.wantQueue(t, "b", "orphan")
		advance(fullRecheck - 1)
		d.wantQueue(t, "b", "orphan")
		advance(1)
		d.wantQueue(t, "b")
		d.wantEvents(t, "orphan", "gave_up client_gone")
		b.wantWaiting()
	})
}

func TestGrantToAnOrphanIsReleasedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		addOrphan(s, "orphan")
		b := s.queue(lock.Request{ProcessID: "b"})
		s.release("a")
		b.wantGranted(0)
		d.wantEvents(t, "orphan", "granted", "released client_gone")
	})
}
