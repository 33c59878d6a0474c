package service_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

func TestHangUpTakesThePlaceAwayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		c := s.queue(lock.Request{ProcessID: "c"})
		b.disconnect()
		synctest.Wait()
		b.wantError(context.Canceled)
		d.wantQueue(t, "c")
		d.wantEvents(t, "b", "queued", "gave_up client_gone")
		s.release("a")
		c.wantGranted(0)
	})
}

// The hold goes to the next waiter at once, whoever learns first that they crossed.
func TestHangUpThatCrossesWithTheGrantGivesTheHoldBackAtOnce(t *testing.T) {
	tests := []struct {
		name  string
		named string
		queue []string
		told  []string
	}{
		{"without a request id", "", nil, []string{"queued", "granted", "released client_gone"}},
		{"under a request id its place is kept", "id", []string{"-b"}, []string{"queued", "granted", "released client_gone"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: test.named})
				c := s.queue(lock.Request{ProcessID: "c"})
				advance(time.Second)
				granted := s.node.observe
				s.node.observe = func(commit service.Commit) { // the client hangs up between the commit and its news
					if len(commit.Granted) > 0 && commit.Granted[0].Hold.ProcessID == "b" {
						b.disconnect()
					}
					granted(commit)
				}
				s.release("a")
				if !b.answered() || b.err == nil {
					t.Fatalf("got %+v, %v, want an error", b.grant.Hold, b.err)
				}
				c.wantGranted(time.Second)
				d.wantHolder(t, "c")
				d.wantQueue(t, test.queue...)
				d.wantEvents(t, "b", test.told...)
			})
		})
	}
}

// What a request that may wait has got by then is given back, unless its client can come back for it.
func TestHangUpDuringTheFirstCommand(t *testing.T) {
	tests := []struct {
		name  string
		held  bool
		named string
		told  []string
	}{
		{"a hold", false, "", []string{"acquired", "released client_gone"}},
		{"a hold, with a request_id", false, "id", []string{"acquired"}},
		{"a place", true, "", []string{"queued", "gave_up client_gone"}},
		{"a place, with a request_id", true, "id", []string{"queued"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				if test.held {
					s.hold("a", 0)
				}
				began, goOn := make(chan struct{}), make(chan struct{})
				s.node.SetFault(func(c lock.Command) memstore.Fault {
					if _, acquires := c.(lock.Acquire); acquires {
						close(began)
						<-goOn
					}
					return memstore.Fault{}
				})
				b := s.ask(lock.Request{ProcessID: "b", Wait: time.Hour, RequestID: test.named})
				<-began
				b.disconnect()
				synctest.Wait()
				b.wantWaiting() // what it gets must not be lost from sight
				close(goOn)
				synctest.Wait()
				keeps := !test.held && test.named != ""
				if !b.answered() || (b.err == nil) != keeps {
					t.Fatalf("got %+v, %v", b.grant.Hold, b.err)
				}
				d.wantEvents(t, "b", test.told...)
			})
		})
	}
}

func TestPlaceIsKeptForARequestThatComesBack(t *testing.T) {
	tests := []struct {
		name  string
		away  time.Duration
		other bool // it comes back to another server
		first string
	}{
		{"at once", 0, false, "b"},
		{"a nanosecond before its time is over", usual.KeepPlace - 1, false, "b"},
		{"when its time is over", usual.KeepPlace, false, "c"},
		{"to another server", time.Second, true, "b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				other := s
				if test.other {
					other = d.startServer(t, noRecheck())
				}
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				begun := time.Now()
				c := s.queue(lock.Request{ProcessID: "c"})
				b.disconnect()
				synctest.Wait()
				d.wantQueue(t, "-b", "c")
				d.wantEvents(t, "b", "queued")
				advance(test.away)
				again := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				s.release("a")
				d.wantHolder(t, test.first)
				if test.first == "b" {
					g := again.wantGranted(0)
					if !g.Hold.QueuedAt.Equal(begun) {
						t.Errorf("waited since %v, want %v", g.Hold.QueuedAt, begun)
					}
					c.wantWaiting()
				} else {
					c.wantGranted(test.away)
					again.wantWaiting()
				}
			})
		})
	}
}

func TestNobodyIsHeldUpByAPlaceThatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		c := s.queue(lock.Request{ProcessID: "c"})
		b.disconnect()
		synctest.Wait()
		s.release("a")
		c.wantGranted(0)
		d.wantQueue(t, "-b")
		advance(usual.KeepPlace)
		if n, err := s.SweepAbandoned(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("swept %d, %v, want 1", n, err)
		}
		d.wantQueue(t)
		d.wantEvents(t, "b", "queued", "gave_up did_not_come_back")
	})
}

// The same request may wait twice, because its client did not notice that the first connection is alive still.
func TestRequestThatWaitsTwiceIsGrantedOnceAndToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		second := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		d.wantQueue(t, "b")
		s.release("a")
		g := second.wantGranted(0)
		first.disconnect() // which has no part in it any more
		synctest.Wait()
		d.wantHolder(t, "b")
		d.wantEvents(t, "b", "queued", "granted")
		if again := s.ask(lock.Request{ProcessID: "b", RequestID: "id", Wait: time.Hour}).wantGranted(0); again.Hold.Token != g.Hold.Token {
			t.Errorf("asked again: token %d, want %d", again.Hold.Token, g.Hold.Token)
		}
		d.wantEvents(t, "b", "queued", "granted")
	})
}

func TestStopWaitingAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		c := s.queue(lock.Request{ProcessID: "c", RequestID: "id"})
		s.StopWaiting()
		s.StopWaiting() // may be called again
		synctest.Wait()
		b.wantError(service.ErrStopping)
		c.wantError(service.ErrStopping)
		d.wantQueue(t, "-c")
		d.wantEvents(t, "b", "queued", "gave_up server_stopping")
		d.wantEvents(t, "c", "queued")
		s.ask(lock.Request{ProcessID: "e", Wait: time.Minute}).wantError(service.ErrStopping)
		d.wantEvents(t, "e")
		// The place is there for another server.
		other := d.startServer(t, noRecheck())
		again := other.queue(lock.Request{ProcessID: "c", RequestID: "id"})
		if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil { // what does not wait goes on
			t.Fatal(err)
		}
		synctest.Wait()
		again.wantGranted(0)
	})
}

func TestStopWaitingCrossingWithAGrantGivesItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		tell := s.node.observe
		news := make(chan service.Commit, 1)
		s.node.observe = func(c service.Commit) { // the report of the grant is delayed
			if len(c.Granted) > 0 {
				news <- c
			}
		}
		s.release("a")
		s.StopWaiting()
		synctest.Wait()
		b.wantError(service.ErrStopping)
		d.wantHolder(t, "")
		s.node.observe = tell
		tell(<-news)
		synctest.Wait()
		d.wantEvents(t, "b", "queued", "granted", "released server_stopping")
	})
}
