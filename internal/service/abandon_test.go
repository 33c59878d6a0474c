package service_test

import (
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestAbandonEndsAnUndeliveredHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		g := s.request(lock.Request{ProcessID: "a", Wait: time.Hour}).wantGranted(0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.Abandon(g)
		synctest.Wait()
		b.wantGranted(0)
		d.wantEvents(t, "a", "acquired", "released client_gone")
		s.Abandon(g) // the hold has ended
		synctest.Wait()
		d.wantHolder(t, "b")
		before := s.node.commands()
		advance(retryTime)
		s.wantIdle(before)
	})
}

// A client with a request_id can retry, so Abandon keeps a hold that was granted at once.
// The minimum of an undelivered hold is ignored.
func TestAbandonKeepsAHoldWithARequestID(t *testing.T) {
	tests := []struct {
		name    string
		request lock.Request
		stays   bool
	}{
		{"does not wait", lock.Request{MinHold: time.Hour}, false},
		{"may wait", lock.Request{Wait: time.Hour, MinHold: time.Hour}, false},
		{"does not wait, with a request_id", lock.Request{RequestID: "id"}, true},
		{"may wait, with a request_id", lock.Request{RequestID: "id", Wait: time.Hour}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				test.request.ProcessID = "a"
				g := s.request(test.request).wantGranted(0)
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

// The hold of a request that had waited ends. With a request_id its place is kept.
func TestAbandonOfARequestThatHadWaited(t *testing.T) {
	for requestID, queue := range map[string][]string{"": nil, "id": {"-b"}} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.startServer(t, noRecheck())
			s.hold("a", 0)
			b := s.queue(lock.Request{ProcessID: "b", RequestID: requestID})
			s.release("a")
			s.Abandon(b.wantGranted(0))
			synctest.Wait()
			d.wantHolder(t, "")
			d.wantQueue(t, queue...)
		})
	}
}

// Abandoning the answer to a retry that found the hold does not end the hold: the first
// answer may have arrived.
func TestAbandonOfARepeatedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		s.release("a")
		first.wantGranted(0)
		retry := s.request(lock.Request{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		if !retry.Repeated || first.grant.Repeated {
			t.Errorf("repeated: %t and %t, want false and true", first.grant.Repeated, retry.Repeated)
		}
		s.Abandon(retry)
		s.Abandon(first.grant)
		synctest.Wait()
		d.wantHolder(t, "b")
	})
}

// A retry that finds its place and is granted the resource at once has waited. If its
// client disconnects too, the place is kept again.
func TestAbandonOfARetryThatHadWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b", RequestID: "id"}).disconnect()
		synctest.Wait()
		s.release("a")
		retry := s.request(lock.Request{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		s.Abandon(retry)
		synctest.Wait()
		d.wantHolder(t, "")
		d.wantQueue(t, "-b")
	})
}
