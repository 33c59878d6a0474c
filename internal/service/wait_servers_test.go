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
		deaf bool
		at   time.Duration
	}{
		{"at once when it is told", false, time.Second},
		// Server 2 began at 0 and looks every seven seconds.
		{"at the next look when the notification is lost", true, usual.Recheck},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				one, two := d.startServer(t, usual), d.startServer(t, usual)
				one.hold("a", 0)
				b := two.queue(lock.Request{ProcessID: "b"})
				if test.deaf {
					two.dropHints()
				}
				advance(time.Second)
				one.release("a")
				refused := one.ask(lock.Request{ProcessID: "c"}) // newcomers do not overtake meanwhile
				var held *lock.HeldError
				if !errors.As(refused.err, &held) {
					t.Fatalf("got %+v, %v, want a HeldError", refused.grant.Hold, refused.err)
				}
				if test.deaf {
					wantEqual(t, "refusal", &lock.HeldError{Resource: "r", Next: "b", Waiters: 1, Now: time.Now()}, held)
				}
				advance(test.at - time.Second)
				b.wantGranted(test.at)
			})
		})
	}
}

func TestExpiryOfAHoldRenewedOnAnotherServerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		two.hold("a", 5*time.Second)
		b := one.queue(lock.Request{ProcessID: "b"})
		advance(4 * time.Second)
		if _, err := two.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: 8 * time.Second}); err != nil {
			t.Fatal(err)
		}
		advance(8*time.Second - 1)
		b.wantWaiting() // the timer of server 1 came too early and was set anew
		advance(1)
		b.wantGranted(12 * time.Second)
	})
}

// Server 2 dies: when its lease is over, its waiters are passed over without anybody asking.
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
			t.Errorf("swept %d, %v, want 0: its place is kept for so long", n, err)
		}
		advance(1)
		if n, err := one.SweepAbandoned(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("swept %d, %v, want 1", n, err)
		}
		d.wantQueue(t)
	})
}

func TestPlaceThatVanishedIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.node.Edit("r", func(r *lock.Resource) { r.Queue, r.Waiters = nil, 0 }) // as when the database was restored
		advance(fullRecheck)
		b.wantWaiting()
		d.wantQueue(t, "b")
		s.release("a")
		b.wantGranted(fullRecheck)
	})
}

// orphan is a waiter of server 1 that no request waits for: what a crash between commit and answer can leave.
func orphan(s *server, process string) {
	s.node.Edit("r", func(r *lock.Resource) {
		w := &lock.Waiter{Ticket: r.LastTicket + 1, Since: time.Now(), Request: lock.Request{Resource: "r", ProcessID: process, RequestID: "~" + process, Wait: time.Hour}, Connection: 77}
		r.Queue = append(r.Queue[:len(r.Queue):len(r.Queue)], w)
		r.LastTicket = w.Ticket
		r.Waiters++
	})
}

func TestPlaceThatNobodyWaitsInIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		orphan(s, "gone")
		d.wantQueue(t, "b", "gone")
		advance(fullRecheck - 1)
		d.wantQueue(t, "b", "gone")
		advance(1)
		d.wantQueue(t, "b")
		d.wantEvents(t, "gone", "gave_up client_gone")
		b.wantWaiting()
	})
}

func TestGrantThatNobodyWaitsForIsGivenBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		orphan(s, "gone")
		b := s.queue(lock.Request{ProcessID: "b"})
		s.release("a")
		b.wantGranted(0)
		d.wantEvents(t, "gone", "granted", "released client_gone")
	})
}
