package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestAbandonEndsAHoldThatNobodyWasToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		g := s.ask(lock.Request{ProcessID: "a", Wait: time.Hour}).wantGranted(0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.Abandon(g)
		synctest.Wait()
		b.wantGranted(0)
		d.wantEvents(t, "a", "acquired", "released client_gone")
		s.Abandon(g) // long over
		synctest.Wait()
		d.wantHolder(t, "b")
		before := s.node.commands()
		advance(soon)
		s.wantIdle(before)
	})
}

// Who can come back keeps its hold, unless it had to wait for it: then it keeps its place. The minimum of a hold that
// nobody was told of does not count.
func TestAbandonOfARequest(t *testing.T) {
	tests := []struct {
		name    string
		request lock.Request
		stays   bool
	}{
		{"that does not wait", lock.Request{MinHold: time.Hour}, false},
		{"that may wait", lock.Request{Wait: time.Hour, MinHold: time.Hour}, false},
		{"that does not wait, with a request_id", lock.Request{RequestID: "id"}, true},
		{"that may wait, with a request_id", lock.Request{RequestID: "id", Wait: time.Hour}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				test.request.ProcessID = "a"
				g := s.ask(test.request).wantGranted(0)
				before := s.node.commands()
				s.Abandon(g)
				synctest.Wait()
				if !test.stays {
					d.wantHolder(t, "")
					d.wantEvents(t, "a", "acquired", "released client_gone")
					return
				}
				d.wantHolder(t, "a")
				s.wantIdle(before)
			})
		})
	}
}

// A repeat that finds the hold takes nothing away when its client has gone as well: the first answer may have arrived.
func TestAbandonOfARepeatedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		s.release("a")
		first.wantGranted(0)
		again := s.ask(lock.Request{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		if !again.Repeated || first.grant.Repeated {
			t.Errorf("repeated: %t and %t, want false and true", first.grant.Repeated, again.Repeated)
		}
		s.Abandon(again)
		s.Abandon(first.grant)
		synctest.Wait()
		d.wantHolder(t, "b")
	})
}

// A request with a request_id that comes back to its place and is granted it at once has waited: when its client is gone
// as well, the place is kept again.
func TestAbandonOfARequestThatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b", RequestID: "id"}).disconnect()
		synctest.Wait()
		s.release("a")
		back := s.ask(lock.Request{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		s.Abandon(back)
		synctest.Wait()
		d.wantHolder(t, "")
		d.wantQueue(t, "-b")
	})
}
