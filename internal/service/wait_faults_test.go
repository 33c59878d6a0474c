package service_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

// soon is longer than it takes until what the database refused is tried again, and much shorter than a look at everything.
const soon = time.Second

// once has the first command of a kind fail, and nothing else.
func once[C lock.Command](s *server, f memstore.Fault) {
	s.node.SetFault(func(c lock.Command) memstore.Fault {
		if _, is := c.(C); !is {
			return memstore.Fault{}
		}
		s.node.SetFault(nil)
		return f
	})
}

func unknown(committed bool) memstore.Fault {
	return memstore.Fault{Err: service.ErrOutcomeUnknown, Committed: committed}
}

// outage has everything fail until it is ended with fail(nil).
func (s *server) outage(err error) {
	s.node.SetFault(func(lock.Command) memstore.Fault { return memstore.Fault{Err: err} })
}

func TestCommandThatFailsIsAnsweredAndLeavesNothing(t *testing.T) {
	tests := []struct {
		name  string
		fault memstore.Fault
		held  bool
		told  []string
	}{
		{"unavailable", memstore.Fault{Err: service.ErrUnavailable}, true, nil},
		{"overloaded", memstore.Fault{Err: service.ErrOverloaded}, true, nil},
		{"unknown, and it had a place", unknown(true), true, []string{"queued", "gave_up client_gone"}},
		{"unknown, and it had no place", unknown(false), true, nil},
		{"unknown, and it had a hold", unknown(true), false, []string{"acquired", "released client_gone"}},
		{"unknown, and it had no hold", unknown(false), false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				if test.held {
					s.hold("a", 0)
				}
				once[lock.Acquire](s, test.fault)
				s.ask(lock.Request{ProcessID: "b", Wait: time.Hour}).wantError(test.fault.Err)
				advance(soon)
				d.wantQueue(t)
				d.wantEvents(t, "b", test.told...)
			})
		})
	}
}

func TestReleaseWhoseOutcomeIsUnknown(t *testing.T) {
	tests := []struct {
		name     string
		happened bool
		holder   string
	}{
		{"and it happened", true, "b"},
		{"and it did not happen", false, "a"},
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
				once[lock.Release](s, unknown(test.happened))
				_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
				if !errors.Is(err, service.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
				}
				synctest.Wait()
				d.wantHolder(t, test.holder)
				if !test.happened {
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

// Nobody may believe in a grant of which it is not known whether it happened.
func TestExpiryWhoseRecordIsUnknownIsTriedAgain(t *testing.T) {
	for _, happened := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.startServer(t, noRecheck())
			s.hold("a", time.Second)
			b := s.queue(lock.Request{ProcessID: "b", TTL: time.Hour})
			once[lock.ExpireAndGrant](s, unknown(happened))
			advance(time.Second)
			b.wantGranted(time.Second)
			d.wantHolder(t, "b")
			d.wantEvents(t, "a", "acquired", "expired")
			d.wantEvents(t, "b", "queued", "granted")
		})
	}
}

// Its timer may be wrong: what the commit said of the expiry may not be so.
func TestRenewalWhoseOutcomeIsUnknown(t *testing.T) {
	tests := []struct {
		name     string
		happened bool
		at       time.Duration
	}{
		{"and it happened", true, 2 * time.Second},
		{"and it did not happen", false, 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDatabase().startServer(t, noRecheck())
				s.hold("a", 10*time.Second)
				b := s.queue(lock.Request{ProcessID: "b"})
				once[lock.Renew](s, unknown(test.happened))
				_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: 2 * time.Second})
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

// Whoever says that hints may have been lost says it once.
func TestLookThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.startServer(t, noRecheck()), d.startServer(t, noRecheck())
		one.hold("a", 0)
		b := two.queue(lock.Request{ProcessID: "b"})
		two.dropHints()
		one.release("a")
		two.outage(service.ErrUnavailable)
		two.WakeAll()
		advance(soon)
		b.wantWaiting()
		two.node.SetFault(nil)
		advance(soon)
		if !b.answered() || b.err != nil {
			t.Errorf("got %+v, %v, answered %t, want a hold", b.grant.Hold, b.err, b.answered())
		}
	})
}

func TestTimeoutThatCannotBeRecordedIsCaughtUp(t *testing.T) {
	tests := []struct {
		name  string
		fault memstore.Fault
	}{
		{"unavailable", memstore.Fault{Err: service.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", Wait: time.Second})
				once[lock.TimeOut](s, test.fault)
				advance(time.Second)
				b.wantError(test.fault.Err)
				advance(soon)
				d.wantQueue(t)
				if told := d.waits("b"); len(told) != 2 || !strings.HasPrefix(told[1], "gave_up ") {
					t.Errorf("history: got %q, want one end of the waiting", told)
				}
			})
		})
	}
}

func TestOutageIsCaughtUp(t *testing.T) {
	for _, err := range []error{service.ErrUnavailable, service.ErrOverloaded} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.startServer(t, usual)
			s.hold("a", 4*time.Second)
			gone := s.queue(lock.Request{ProcessID: "gone"})
			b := s.queue(lock.Request{ProcessID: "b"})
			advance(2 * time.Second)
			s.outage(err)
			gone.disconnect()
			synctest.Wait()
			if !gone.answered() {
				t.Error("the one that hung up waits for the database")
			}
			s.Wake("r")
			s.Wake("another")
			s.WakeAll()
			advance(2 * time.Second) // a's hold expires, and nobody can tell
			b.wantWaiting()
			d.wantQueue(t, "gone", "b")
			advance(usual.Recheck) // a look at everything fails as well
			b.wantWaiting()
			s.node.SetFault(nil)
			advance(soon)
			if !b.answered() || b.err != nil {
				t.Fatalf("got %+v, %v, answered %t, want a hold", b.grant, b.err, b.answered())
			}
			d.wantQueue(t)
			d.wantHolder(t, "b")
			if last := d.waits("gone"); len(last) < 2 {
				t.Errorf("history of the one that hung up: %q, want its end", last)
			}
		})
	}
}

func TestPlaceIsKeptEvenIfTheDatabaseWasAwayAtTheHangUp(t *testing.T) {
	tests := []struct {
		name  string
		fault memstore.Fault
	}{
		{"unavailable", memstore.Fault{Err: service.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
				once[lock.Disconnect](s, test.fault)
				b.disconnect()
				advance(soon)
				d.wantQueue(t, "-b")
			})
		})
	}
}

func TestStopGivesUpWhatIsLeftToGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.newServer(t, noRecheck())
		s.Start()
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.outage(service.ErrUnavailable)
		s.StopWaiting()
		synctest.Wait()
		b.wantError(service.ErrStopping)
		d.wantQueue(t, "b")
		s.node.SetFault(nil)
		s.Stop() // before it would have tried again
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
		s.node.SetFault(func(lock.Command) memstore.Fault { t.Error("it looks at the database"); return memstore.Fault{} })
		advance(2 * time.Minute)
		if got := s.node.commands(); got != before {
			t.Errorf("%d commands after Stop, want none", got-before)
		}
	})
}

// However many hints come while the database is away, it is tried again at a steady pace.
func TestOutageIsNotMetWithMoreAndMoreAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.outage(service.ErrUnavailable)
		for range 50 {
			s.Wake("r")
			advance(time.Millisecond)
		}
		before := s.node.commands()
		if before > 2 {
			t.Errorf("%d attempts within 50 ms of hints, want no more than one or two", before)
		}
		advance(2 * time.Second)
		if got := s.node.commands() - before; got < 5 || got > 20 {
			t.Errorf("%d attempts in two seconds without hints, want about ten", got)
		}
	})
}

// A request that has to ask again and is refused then has a place still, which must go with it.
func TestRequestThatCannotAskAgainLeavesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if _, releases := c.(lock.Release); releases {
				return unknown(false) // which makes b ask again
			}
			return memstore.Fault{Err: service.ErrUnavailable}
		})
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
		if !errors.Is(err, service.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, service.ErrOutcomeUnknown)
		}
		synctest.Wait()
		s.node.SetFault(nil)
		if !b.answered() { // it may also go on waiting
			s.release("a")
			b.wantGranted(0)
			return
		}
		advance(soon)
		d.wantQueue(t)
	})
}

// The client's first connection is half open: it came back, and is connected now. What becomes of the first connection
// must not cost it its turn, as it would if the first took the place back and then hung up.
func TestConnectionThatWasReplacedDoesNotCostTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		again := s.queue(lock.Request{ProcessID: "b", RequestID: "id"})
		c := s.queue(lock.Request{ProcessID: "c"})
		first.wantSuperseded()
		advance(fullRecheck + time.Second)
		d.wantQueue(t, "b", "c")
		s.release("a")
		again.wantGranted(fullRecheck + time.Second)
		c.wantWaiting()
	})
}

// The client of a request that waits under a request_id may come back whatever it was answered: its place is kept.
func TestPlaceIsKeptEvenIfTheDatabaseWasAwayAtTheTimeout(t *testing.T) {
	tests := []struct {
		name  string
		fault memstore.Fault
	}{
		{"unavailable", memstore.Fault{Err: service.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", RequestID: "id", Wait: time.Second})
				once[lock.TimeOut](s, test.fault)
				advance(time.Second)
				b.wantError(test.fault.Err)
				advance(soon)
				d.wantQueue(t, "-b")
			})
		})
	}
}

// A request that was queued and granted in one transaction does not learn its place. If it has to ask again and cannot,
// its hold must not outlive it.
func TestRequestThatCannotAskAgainLeavesNoHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, usual)
		s.hold("a", 0)
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if ask, acquires := c.(lock.Acquire); acquires && ask.Requeued {
				return memstore.Fault{Err: service.ErrUnavailable}
			}
			return memstore.Fault{}
		})
		tell := s.node.observe
		s.node.observe = func(c service.Commit) { // as if the news of its grant were lost
			c.Granted = nil
			tell(c)
		}
		s.node.sameBatch = []lock.Command{lock.Release{Resource: "r", ProcessID: "a"}}
		b := s.queue(lock.Request{ProcessID: "b"})
		d.wantHolder(t, "b")
		advance(fullRecheck + soon)
		b.wantError(service.ErrUnavailable)
		d.wantHolder(t, "")
	})
}
