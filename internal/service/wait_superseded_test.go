package service_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

// Of two requests with one request_id, the earlier one is refused at once and acquires
// nothing more. This depends neither on what the later one does nor on its server, nor on
// rechecks.
func TestSupersededAtOnce(t *testing.T) {
	later := map[string]func(t *testing.T, d *database, other *server){
		"the later one waits": func(t *testing.T, d *database, other *server) {
			other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
			d.wantQueue(t, "b")
		},
		"the later one waits and disconnects": func(_ *testing.T, _ *database, other *server) {
			other.queue(lock.Request{ProcessID: "b", RequestID: "id"}).disconnect()
			synctest.Wait()
		},
		"the later one is granted the resource and releases it": func(t *testing.T, d *database, other *server) {
			retry := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
			other.release("a")
			retry.wantGranted(0)
			other.release("b")
			d.wantHolder(t, "")
		},
	}
	for name, then := range later {
		for servers := 1; servers <= 2; servers++ {
			t.Run(fmt.Sprintf("%s, on %d servers", name, servers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDatabase()
					s := d.startServer(t, noRecheck())
					other := s
					if servers == 2 {
						other = d.startServer(t, noRecheck())
					}
					s.hold("a", 0)
					first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
					then(t, d, other)
					first.wantSuperseded()
				})
			})
		}
	}
}

// Without notifications, a full recheck ends the wait of a superseded request. The
// request acquires nothing, even if the resource is free by then.
func TestSupersededWithoutNotifications(t *testing.T) {
	for name, ended := range map[string]bool{"the later one waits": false, "the later one has released it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s, other := d.startServer(t, usual), d.startServer(t, usual)
				s.node.Notify(s.Wake, nil)
				other.node.Notify(other.Wake, nil)
				s.hold("a", 0)
				first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				retry := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				if !ended {
					advance(fullRecheck)
					first.wantSuperseded()
					return
				}
				other.release("a")
				retry.wantGranted(0)
				other.release("b")
				advance(fullRecheck)
				if !first.answered() || !errors.As(first.err, new(*lock.PlaceLostError)) {
					t.Fatalf("got %+v, %v, want a PlaceLostError", first.grant.Hold, first.err)
				}
				d.wantHolder(t, "")
			})
		})
	}
}

// A superseded request whose wait ends is refused as superseded, not as timed out behind
// its own process.
func TestSupersededAtTheTimeout(t *testing.T) {
	for name, granted := range map[string]bool{"the later one waits": false, "the later one has the hold": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s, other := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
				s.node.Notify(s.Wake, nil)
				other.node.Notify(other.Wake, nil)
				s.hold("a", 0)
				first := s.queue(lock.Request{ProcessID: "b", RequestID: "id", Wait: time.Second})
				retry := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				if granted {
					other.release("a")
					retry.wantGranted(0)
				}
				advance(time.Second)
				first.wantSuperseded()
			})
		})
	}
}

// A client may retry although its first connection is still open. There is one place and
// one grant. The end of the first connection does not end the hold, and a further retry
// finds it.
func TestRequestThatWaitsTwiceIsGrantedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		second := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		d.wantQueue(t, "b")
		s.release("a")
		g := second.wantGranted(0)
		first.disconnect()
		synctest.Wait()
		d.wantHolder(t, "b")
		d.wantEvents(t, "b", "queued", "granted")
		third := s.request(lock.Request{ProcessID: "b", RequestID: "id", Wait: time.Hour}).wantGranted(0)
		if third.Hold.Token != g.Hold.Token {
			t.Errorf("the retry has the token %d, want %d", third.Hold.Token, g.Hold.Token)
		}
		d.wantEvents(t, "b", "queued", "granted")
	})
}

// A superseded connection must not take the place back. If it did and then disconnected,
// the client would lose its turn.
func TestSupersededConnectionDoesNotCostTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		retry := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		c := s.queue(lock.Request{ProcessID: "c"})
		first.wantSuperseded()
		advance(fullRecheck + time.Second)
		d.wantQueue(t, "b", "c")
		s.release("a")
		retry.wantGranted(fullRecheck + time.Second)
		c.wantWaiting()
	})
}
