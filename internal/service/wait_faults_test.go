package service_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

// retryTime is longer than the interval at which the server retries after a failure of
// the database, and much shorter than the one between rechecks.
const retryTime = time.Second

var unavailable = memstore.Fault{Err: service.ErrUnavailable}

// failOnce makes the first command of the type C fail. All others succeed.
func failOnce[C lock.Command](s *server, f memstore.Fault) {
	s.node.SetFault(func(c lock.Command) memstore.Fault {
		if _, is := c.(C); !is {
			return memstore.Fault{}
		}
		s.node.SetFault(nil)
		return f
	})
}

// failAll makes every command and every read fail until the fault is set to nil.
func (s *server) failAll(err error) {
	s.node.SetFault(func(lock.Command) memstore.Fault { return memstore.Fault{Err: err} })
}

// errUnknown states that the outcome is unknown, whatever its cause states.
var errUnknown = fmt.Errorf("%w: %w", service.ErrOutcomeUnknown, service.ErrUnavailable)

// unknownOutcome returns the fault of a command whose outcome the server does not learn.
func unknownOutcome(committed bool) memstore.Fault {
	return memstore.Fault{Err: errUnknown, Committed: committed}
}

func TestFailedAcquireLeavesNothing(t *testing.T) {
	tests := []struct {
		name   string
		fault  memstore.Fault
		held   bool // by another process
		events []string
	}{
		{"unavailable", unavailable, true, nil},
		{"overloaded", memstore.Fault{Err: service.ErrOverloaded}, true, nil},
		{"unknown, and it was queued", unknownOutcome(true), true, []string{"queued", "gave_up client_gone"}},
		{"unknown, and it was not queued", unknownOutcome(false), true, nil},
		{"unknown, and it was granted", unknownOutcome(true), false, []string{"acquired", "released client_gone"}},
		{"unknown, and it was not granted", unknownOutcome(false), false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				if test.held {
					s.hold("a", 0)
				}
				failOnce[lock.Acquire](s, test.fault)
				s.request(lock.Request{ProcessID: "b", Wait: time.Hour}).wantError(test.fault.Err)
				advance(retryTime)
				d.wantQueue(t)
				d.wantEvents(t, "b", test.events...)
			})
		})
	}
}

func TestUnknownOutcomeOfARelease(t *testing.T) {
	tests := []struct {
		name      string
		committed bool
		holder    string
	}{
		{"committed", true, "b"},
		{"not committed", false, "a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b"})
				c := s.queue(lock.Request{ProcessID: "c"})
				advance(time.Second)
				failOnce[lock.Release](s, unknownOutcome(test.committed))
				_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
				if !errors.Is(err, service.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
				}
				synctest.Wait()
				d.wantHolder(t, test.holder)
				if !test.committed {
					b.wantWaiting()
					d.wantQueue(t, "b", "c")
					s.release("a")
				}
				b.wantGranted(time.Second)
				c.wantWaiting()
				d.wantEvents(t, "b", "queued", "granted")
			})
		})
	}
}

// A waiter that may have been granted the resource is answered only when its grant is
// certain.
func TestUnknownOutcomeOfAnExpiry(t *testing.T) {
	for _, committed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.startServer(t, noRecheck())
			s.hold("a", time.Second)
			b := s.queue(lock.Request{ProcessID: "b", TTL: time.Hour})
			failOnce[lock.ExpireAndGrant](s, unknownOutcome(committed))
			advance(time.Second)
			b.wantGranted(time.Second)
			d.wantHolder(t, "b")
			d.wantEvents(t, "a", "acquired", "expired")
			d.wantEvents(t, "b", "queued", "granted")
		})
	}
}

// The report of a renewal whose outcome is unknown does not show the expiry, so no timer
// may rely on it.
func TestUnknownOutcomeOfARenewal(t *testing.T) {
	tests := []struct {
		name      string
		ttl       time.Duration // of the renewal
		committed bool
		at        time.Duration // the hand-over
	}{
		{"to an earlier time, committed", 2 * time.Second, true, 2 * time.Second},
		{"to an earlier time, not committed", 2 * time.Second, false, 10 * time.Second},
		{"to a later time, committed", time.Minute, true, time.Minute},
		{"to a later time, not committed", time.Minute, false, 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDatabase().startServer(t, noRecheck())
				s.hold("a", 10*time.Second)
				b := s.queue(lock.Request{ProcessID: "b"})
				failOnce[lock.Renew](s, unknownOutcome(test.committed))
				_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: test.ttl})
				if !errors.Is(err, service.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
				}
				advance(test.at - 1)
				b.wantWaiting()
				advance(1)
				b.wantGranted(test.at)
			})
		})
	}
}

// If the outcome of a retry by the client is unknown, its earlier request is not refused
// as superseded: it may still have the place.
func TestUnknownOutcomeOfASupersedingAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		failOnce[lock.Acquire](s, unknownOutcome(false))
		s.request(lock.Request{ProcessID: "b", RequestID: "id", Wait: time.Hour}).wantError(errUnknown)
		advance(retryTime)
		first.wantWaiting()
		d.wantQueue(t, "b")
		s.release("a")
		first.wantGranted(retryTime)
	})
}

// One call of WakeAll suffices, even if the database is not available when it comes.
func TestFailedReadIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		one.hold("a", 0)
		b := two.queue(lock.Request{ProcessID: "b"})
		two.dropHints()
		one.release("a")
		two.failAll(service.ErrUnavailable)
		two.WakeAll()
		advance(retryTime)
		b.wantWaiting()
		two.node.SetFault(nil)
		advance(retryTime)
		if !b.answered() || b.err != nil {
			t.Errorf("got %+v, %v, answered %t, want a hold", b.grant.Hold, b.err, b.answered())
		}
	})
}

// If the command that ends a wait fails, the server ends the wait later. With a
// request_id the place is kept: the client can retry, whatever its answer was.
func TestFailedEndOfAWaitIsRetried(t *testing.T) {
	faults := map[string]memstore.Fault{
		"unavailable":                unavailable,
		"unknown, and committed":     unknownOutcome(true),
		"unknown, and not committed": unknownOutcome(false),
	}
	ends := []struct {
		reason string
		end    func(*server, *call, memstore.Fault)
	}{
		{"wait_timeout", func(s *server, b *call, f memstore.Fault) {
			failOnce[lock.TimeOut](s, f)
			advance(time.Second)
			b.wantError(f.Err)
		}},
		{"client_gone", func(s *server, b *call, f memstore.Fault) {
			failOnce[lock.Disconnect](s, f)
			b.disconnect()
			synctest.Wait()
			b.wantError(service.ErrClientGone)
		}},
	}
	for _, end := range ends {
		for faultName, fault := range faults {
			for _, requestID := range []string{"", "id"} {
				t.Run(end.reason+"/"+faultName+"/request_id "+requestID, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						d := newDatabase()
						s := d.startServer(t, noRecheck())
						s.hold("a", 0)
						b := s.queue(lock.Request{ProcessID: "b", RequestID: requestID, Wait: time.Second})
						end.end(s, b, fault)
						advance(retryTime)
						if requestID != "" {
							d.wantQueue(t, "-b")
							d.wantEvents(t, "b", "queued")
							return
						}
						d.wantQueue(t)
						d.wantEvents(t, "b", "queued", "gave_up "+end.reason)
					})
				})
			}
		}
	}
}

func TestServingResumesAfterAnOutage(t *testing.T) {
	for _, err := range []error{service.ErrUnavailable, service.ErrOverloaded} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.startServer(t, usual)
			s.hold("a", 4*time.Second)
			gone := s.queue(lock.Request{ProcessID: "gone"})
			b := s.queue(lock.Request{ProcessID: "b"})
			advance(2 * time.Second)
			s.failAll(err)
			gone.disconnect()
			synctest.Wait()
			if !gone.answered() {
				t.Error("the request of a disconnected client waits for the database")
			}
			s.Wake("r")
			s.Wake("another")
			s.WakeAll()
			advance(2 * time.Second) // the hold of a expires
			b.wantWaiting()
			d.wantQueue(t, "gone", "b")
			advance(usual.Recheck) // the recheck fails, too
			b.wantWaiting()
			s.node.SetFault(nil)
			advance(retryTime)
			if !b.answered() || b.err != nil {
				t.Fatalf("got %+v, %v, answered %t, want a hold", b.grant, b.err, b.answered())
			}
			d.wantQueue(t)
			d.wantHolder(t, "b")
			if events := d.history("gone"); len(events) < 2 {
				t.Errorf("history of the disconnected client: got %q, want the end of its wait", events)
			}
		})
	}
}

// However many hints come during an outage, the server retries at a constant rate.
func TestRetryRateDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.failAll(service.ErrUnavailable)
		for range 50 {
			s.Wake("r")
			advance(time.Millisecond)
		}
		before := s.node.commands()
		if before > 2 {
			t.Errorf("%d attempts within 50 ms of hints, want at most two", before)
		}
		advance(2 * time.Second)
		if got := s.node.commands() - before; got < 5 || got > 20 {
			t.Errorf("%d attempts in two seconds without hints, want about ten", got)
		}
	})
}

func TestStopCompletesPendingWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.newServer(t, noRecheck())
		s.Start()
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.failAll(service.ErrUnavailable)
		s.StopWaiting()
		synctest.Wait()
		b.wantError(service.ErrStopping)
		d.wantQueue(t, "b")
		s.node.SetFault(nil)
		s.Stop() // before the next retry
		d.wantQueue(t)
	})
}

func TestNothingRunsAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.newServer(t, usual)
		s.Start()
		s.hold("a", time.Minute)
		s.queue(lock.Request{ProcessID: "b"})
		s.StopWaiting()
		synctest.Wait()
		s.Stop()
		before := s.node.commands()
		s.node.SetFault(func(lock.Command) memstore.Fault {
			t.Error("the server used the database after Stop")
			return memstore.Fault{}
		})
		advance(2 * time.Minute)
		s.wantIdle(before)
	})
}

// A waiter that has to execute its acquire again, and fails, still has a place. The place
// is removed.
func TestFailedRetryLeavesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if _, releases := c.(lock.Release); releases {
				return unknownOutcome(false) // b may have been granted the resource, so it retries
			}
			return unavailable
		})
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
		if !errors.Is(err, service.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
		}
		synctest.Wait()
		s.node.SetFault(nil)
		b.wantError(service.ErrUnavailable)
		advance(retryTime)
		d.wantQueue(t)
	})
}

// A request that was queued and granted in one transaction does not learn that it had a
// place. If it has to execute its acquire again, and fails, its hold is released.
func TestFailedRetryLeavesNoHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if acquire, acquires := c.(lock.Acquire); acquires && acquire.Requeued {
				return unavailable
			}
			return memstore.Fault{}
		})
		observe := s.node.observe
		s.node.observe = func(c service.Commit) { // the report of the grant is lost
			c.Granted = nil
			observe(c)
		}
		s.node.sameBatch = []lock.Command{lock.Release{Resource: "r", ProcessID: "a"}}
		b := s.queue(lock.Request{ProcessID: "b"})
		d.wantHolder(t, "b")
		advance(fullRecheck + retryTime)
		b.wantError(service.ErrUnavailable)
		d.wantHolder(t, "")
	})
}

// A request that retries after an unknown outcome and finds its hold had waited for it.
// If its client disconnects, the hold is released and the place is kept.
func TestDisconnectDuringARetryThatFindsTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			switch c.(type) {
			case lock.Release:
				return unknownOutcome(true)
			case lock.Acquire:
				b.disconnect()
			}
			return memstore.Fault{}
		})
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
		if !errors.Is(err, service.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
		}
		synctest.Wait()
		b.wantError(service.ErrClientGone)
		d.wantHolder(t, "")
		d.wantQueue(t, "-b")
		d.wantEvents(t, "b", "queued", "granted", "released client_gone")
	})
}
