package service_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

// The earlier of two requests with one request_id is told at once, whatever the later one does and wherever it is, and
// acquires nothing any more: nobody looks at the database at regular times here.
func TestSupersededAtOnce(t *testing.T) {
	later := map[string]func(t *testing.T, d *database, other *server){
		"the later one waits": func(t *testing.T, d *database, other *server) {
			other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
			d.wantQueue(t, "b")
		},
		"the later one waits and gives up": func(_ *testing.T, _ *database, other *server) {
			other.queue(lock.Request{ProcessID: "b", RequestID: "id"}).disconnect()
			synctest.Wait()
		},
		"the later one is granted the resource and releases it": func(t *testing.T, d *database, other *server) {
			again := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
			other.release("a")
			again.wantGranted(0)
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

// When no notification arrives, a superseded request finds out by itself, and acquires nothing although the resource is
// free by then.
func TestSupersededWithoutNotifications(t *testing.T) {
	for name, finished := range map[string]bool{"the later one waits": false, "the later one has come and gone": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s, other := d.startServer(t, usual), d.startServer(t, usual)
				s.node.Notify(s.Wake, nil)
				other.node.Notify(other.Wake, nil)
				s.hold("a", 0)
				first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				again := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				if !finished {
					advance(fullRecheck)
					first.wantSuperseded()
					return
				}
				other.release("a")
				again.wantGranted(0)
				other.release("b")
				advance(fullRecheck)
				if !first.answered() || !errors.As(first.err, new(*lock.PlaceLostError)) {
					t.Fatalf("got %+v, %v, want its place to be lost", first.grant.Hold, first.err)
				}
				d.wantHolder(t, "")
			})
		})
	}
}

// The end of a superseded request's time is not told as a timeout behind its own process.
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
				again := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				if granted {
					other.release("a")
					again.wantGranted(0)
				}
				advance(time.Second)
				first.wantSuperseded()
			})
		})
	}
}

// wantSuperseded fails unless it has been told that a later request has its place.
func (c *call) wantSuperseded() {
	c.t.Helper()
	var refusal *lock.HeldError
	if !c.answered() || !errors.As(c.err, &refusal) || refusal.Kind != lock.Superseded {
		c.t.Fatalf("%q: got %+v, %v, answered %t, want it superseded", c.process, c.grant.Hold, c.err, c.answered())
	}
}
