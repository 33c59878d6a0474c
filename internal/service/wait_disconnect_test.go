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

func TestDisconnectRemovesThePlaceAtOnce(t *testing.T) {
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

// If the client disconnects between the commit of its grant and the report of the commit,
// the next waiter is granted the resource at once.
func TestDisconnectRacingWithTheGrantReleasesTheHold(t *testing.T) {
	tests := []struct {
		name      string
		requestID string
		queue     []string
	}{
		{"without a request_id", "", nil},
		{"with a request_id its place is kept", "id", []string{"-b"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: test.requestID})
				c := s.queue(lock.Request{ProcessID: "c"})
				advance(time.Second)
				observe := s.node.observe
				s.node.observe = func(commit service.Commit) {
					if len(commit.Granted) > 0 && commit.Granted[0].Hold.ProcessID == "b" {
						b.disconnect()
					}
					observe(commit)
				}
				s.release("a")
				if !b.answered() || b.err == nil {
					t.Fatalf("got %+v, %v, want an error", b.grant.Hold, b.err)
				}
				c.wantGranted(time.Second)
				d.wantHolder(t, "c")
				d.wantQueue(t, test.queue...)
				d.wantEvents(t, "b", "queued", "granted", "released client_gone")
			})
		})
	}
}

// If the client disconnects while its acquire is executed, the acquire is undone when it
// has been executed. With a request_id the client can retry, so its hold or its place
// stays.
func TestDisconnectDuringTheFirstCommand(t *testing.T) {
	tests := []struct {
		name      string
		held      bool // by another process
		requestID string
		events    []string
	}{
		{"granted", false, "", []string{"acquired", "released client_gone"}},
		{"granted, with a request_id", false, "id", []string{"acquired"}},
		{"queued", true, "", []string{"queued", "gave_up client_gone"}},
		{"queued, with a request_id", true, "id", []string{"queued"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				if test.held {
					s.hold("a", 0)
				}
				started, proceed := make(chan struct{}), make(chan struct{})
				s.node.SetFault(func(c lock.Command) memstore.Fault {
					if _, acquires := c.(lock.Acquire); acquires {
						close(started)
						<-proceed
					}
					return memstore.Fault{}
				})
				b := s.request(lock.Request{ProcessID: "b", Wait: time.Hour, RequestID: test.requestID})
				<-started
				b.disconnect()
				synctest.Wait()
				b.wantWaiting() // the outcome of the command decides what has to be undone
				close(proceed)
				synctest.Wait()
				granted := !test.held && test.requestID != ""
				if !b.answered() || (b.err == nil) != granted {
					t.Fatalf("got %+v, %v, want it granted: %t", b.grant.Hold, b.err, granted)
				}
				d.wantEvents(t, "b", test.events...)
			})
		})
	}
}

func TestPlaceIsKeptForARetry(t *testing.T) {
	tests := []struct {
		name  string
		after time.Duration // the client retries
		other bool          // it retries on another server
		first string        // the process that is granted the resource first
	}{
		{"at once", 0, false, "b"},
		{"a nanosecond before KeepPlace ends", usual.KeepPlace - 1, false, "b"},
		{"when KeepPlace ends", usual.KeepPlace, false, "c"},
		{"on another server", time.Second, true, "b"},
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
				queuedAt := time.Now()
				c := s.queue(lock.Request{ProcessID: "c"})
				b.disconnect()
				synctest.Wait()
				d.wantQueue(t, "-b", "c")
				d.wantEvents(t, "b", "queued")
				advance(test.after)
				retry := other.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				s.release("a")
				d.wantHolder(t, test.first)
				if test.first == "b" {
					g := retry.wantGranted(0)
					if !g.Hold.QueuedAt.Equal(queuedAt) {
						t.Errorf("queued at %v, want %v", g.Hold.QueuedAt, queuedAt)
					}
					c.wantWaiting()
				} else {
					c.wantGranted(test.after)
					retry.wantWaiting()
				}
			})
		})
	}
}

func TestKeptPlaceDelaysNoWaiter(t *testing.T) {
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

func TestStopWaitingAnswersEveryRequest(t *testing.T) {
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
		s.request(lock.Request{ProcessID: "e", Wait: time.Minute}).wantError(service.ErrStopping)
		d.wantEvents(t, "e")
		// A retry on another server finds the place. The first server still executes
		// requests that do not wait.
		other := d.startServer(t, noRecheck())
		retry := other.queue(lock.Request{ProcessID: "c", RequestID: "id"})
		s.release("a")
		retry.wantGranted(0)
	})
}

// A grant whose report comes after StopWaiting is released.
func TestStopWaitingRacingWithAGrantReleasesTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		observe := s.node.observe
		delayed := make(chan service.Commit, 1)
		s.node.observe = func(c service.Commit) {
			if len(c.Granted) > 0 {
				delayed <- c
			}
		}
		s.release("a")
		s.StopWaiting()
		synctest.Wait()
		b.wantError(service.ErrStopping)
		d.wantHolder(t, "")
		s.node.observe = observe
		observe(<-delayed)
		synctest.Wait()
		d.wantEvents(t, "b", "queued", "granted", "released server_stopping")
	})
}
