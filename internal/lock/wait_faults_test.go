package lock_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

// soon is longer than it takes until what the database refused is tried again, and much shorter than a look at everything.
const soon = time.Second

// once has the first command of a kind fail, and nothing else.
func once[C lock.Command](s *server, f fault) {
	s.node.fail(func(c lock.Command) fault {
		if _, is := c.(C); !is {
			return fault{}
		}
		s.node.fail(nil)
		return f
	})
}

func unknown(happened bool) fault { return fault{lock.ErrOutcomeUnknown, happened} }

// outage has everything fail until it is ended with fail(nil).
func (s *server) outage(err error) { s.node.fail(func(lock.Command) fault { return fault{err: err} }) }

func TestCommandThatFailsIsAnsweredAndLeavesNothing(t *testing.T) {
	tests := []struct {
		name  string
		fault fault
		held  bool
		told  []string
	}{
		{"unavailable", fault{err: lock.ErrUnavailable}, true, nil},
		{"overloaded", fault{err: lock.ErrOverloaded}, true, nil},
		{"unknown, and it had a place", unknown(true), true, []string{"queued", "gave_up client_gone"}},
		{"unknown, and it had no place", unknown(false), true, nil},
		{"unknown, and it had a hold", unknown(true), false, []string{"acquired", "released client_gone"}},
		{"unknown, and it had no hold", unknown(false), false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				if test.held {
					s.hold("a", 0)
				}
				once[lock.Acquire](s, test.fault)
				s.ask(lock.Acquire{ProcessID: "b", Wait: time.Hour}).wantError(test.fault.err)
				pass(soon)
				d.wantQueue(t)
				d.wantTold(t, "b", test.told...)
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
				s := d.serve(t, 1, rarely())
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b"})
				c := s.queue(lock.Acquire{ProcessID: "c"})
				pass(time.Second)
				once[lock.Release](s, unknown(test.happened))
				_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
				if !errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want %v", err, lock.ErrOutcomeUnknown)
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
				d.wantTold(t, "b", "queued", "granted")
			})
		})
	}
}

// Nobody may believe in a grant of which it is not known whether it happened.
func TestExpiryWhoseRecordIsUnknownIsTriedAgain(t *testing.T) {
	for _, happened := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.serve(t, 1, rarely())
			s.hold("a", time.Second)
			b := s.queue(lock.Acquire{ProcessID: "b", TTL: time.Hour})
			once[lock.Settle](s, unknown(happened))
			pass(time.Second)
			b.wantGranted(time.Second)
			d.wantHolder(t, "b")
			d.wantTold(t, "a", "acquired", "expired")
			d.wantTold(t, "b", "queued", "granted")
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
				s := newDatabase().serve(t, 1, rarely())
				s.hold("a", 10*time.Second)
				b := s.queue(lock.Acquire{ProcessID: "b"})
				once[lock.Renew](s, unknown(test.happened))
				_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: 2 * time.Second})
				if !errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want %v", err, lock.ErrOutcomeUnknown)
				}
				pass(test.at - 1)
				b.wantWaiting()
				pass(1)
				b.wantGranted(test.at)
			})
		})
	}
}

// Whoever says that hints may have been lost says it once.
func TestLookThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.serve(t, 1, rarely()), d.serve(t, 2, rarely())
		one.hold("a", 0)
		b := two.queue(lock.Acquire{ProcessID: "b"})
		two.deaf()
		one.release("a")
		two.outage(lock.ErrUnavailable)
		two.WakeAll()
		pass(soon)
		b.wantWaiting()
		two.node.fail(nil)
		pass(soon)
		if !b.answered() || b.err != nil {
			t.Errorf("got %+v, %v, answered %t, want a hold", b.grant.Hold, b.err, b.answered())
		}
	})
}

func TestTimeoutThatCannotBeRecordedIsCaughtUp(t *testing.T) {
	tests := []struct {
		name  string
		fault fault
	}{
		{"unavailable", fault{err: lock.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", Wait: time.Second})
				once[lock.Leave](s, test.fault)
				pass(time.Second)
				b.wantError(test.fault.err)
				pass(soon)
				d.wantQueue(t)
				if told := d.ends("b"); len(told) != 2 || !strings.HasPrefix(told[1], "gave_up ") {
					t.Errorf("history: got %q, want one end of the waiting", told)
				}
			})
		})
	}
}

func TestOutageIsCaughtUp(t *testing.T) {
	for _, err := range []error{lock.ErrUnavailable, lock.ErrOverloaded} {
		synctest.Test(t, func(t *testing.T) {
			d := newDatabase()
			s := d.serve(t, 1, usual)
			s.hold("a", 4*time.Second)
			gone := s.queue(lock.Acquire{ProcessID: "gone"})
			b := s.queue(lock.Acquire{ProcessID: "b"})
			pass(2 * time.Second)
			s.outage(err)
			gone.hangUp()
			synctest.Wait()
			if !gone.answered() {
				t.Error("the one that hung up waits for the database")
			}
			s.Wake("r", "another")
			s.WakeAll()
			pass(2 * time.Second) // a's hold expires, and nobody can tell
			b.wantWaiting()
			d.wantQueue(t, "gone", "b")
			pass(usual.Recheck) // a look at everything fails as well
			b.wantWaiting()
			s.node.fail(nil)
			pass(soon)
			if !b.answered() || b.err != nil {
				t.Fatalf("got %+v, %v, answered %t, want a hold", b.grant, b.err, b.answered())
			}
			d.wantQueue(t)
			d.wantHolder(t, "b")
			if last := d.ends("gone"); len(last) < 2 {
				t.Errorf("history of the one that hung up: %q, want its end", last)
			}
		})
	}
}

func TestPlaceIsKeptEvenIfTheDatabaseWasAwayAtTheHangUp(t *testing.T) {
	tests := []struct {
		name  string
		fault fault
	}{
		{"unavailable", fault{err: lock.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				once[lock.Leave](s, test.fault)
				b.hangUp()
				pass(soon)
				d.wantQueue(t, "-b")
			})
		})
	}
}

func TestStopGivesUpWhatIsLeftToGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		n := &node{db: d, id: 1}
		s := &server{newService(n, rarely()), n, t}
		s.Start()
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		s.outage(lock.ErrUnavailable)
		s.StopWaiting()
		synctest.Wait()
		b.wantError(lock.ErrStopping)
		d.wantQueue(t, "b")
		s.node.fail(nil)
		s.Stop() // before it would have tried again
		d.wantQueue(t)
	})
}

func TestNothingRunsAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		n := &node{db: d, id: 1}
		s := &server{newService(n, usual), n, t}
		s.Start()
		s.hold("a", time.Minute)
		s.queue(lock.Acquire{ProcessID: "b"})
		s.StopWaiting()
		synctest.Wait()
		s.Stop()
		before := n.commands()
		n.fail(func(lock.Command) fault { t.Error("it looks at the database"); return fault{} })
		pass(2 * time.Minute)
		if got := n.commands(); got != before {
			t.Errorf("%d commands after Stop, want none", got-before)
		}
	})
}

// The look at everything reads the database, and only then compares it with who is there. A request that is granted and
// answered in between is not one that nobody waits for: to take its hold away would give to the next what its client was
// told is its own.
func TestLookAtEverythingLeavesAHoldThatWasGrantedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		s.node.mu.Lock()
		s.node.looked = func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil {
				t.Error(err)
			}
			<-b.done
		}
		s.node.mu.Unlock()
		pass(usual.Recheck)
		b.wantGranted(usual.Recheck)
		d.wantHolder(t, "b")
		c.wantWaiting()
		d.wantTold(t, "b", "queued", "granted")
	})
}

// The same with one that came, was granted and answered during the look.
func TestLookAtEverythingLeavesAHoldOfARequestThatCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		s.queue(lock.Acquire{Resource: "r", ProcessID: "b"})
		var c *call
		s.node.mu.Lock()
		s.node.looking = func() { // the request queues before the look reads
			ctx := t.Context()
			c = &call{t: t, process: "c", done: make(chan struct{}), began: time.Now()}
			if _, err := s.Acquire(ctx, lock.Acquire{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			waits := make(chan struct{})
			tell := s.node.watch
			s.node.watch = func(commit lock.Commit) { tell(commit); s.node.watch = tell; close(waits) }
			go func() {
				defer close(c.done)
				c.grant, c.err = s.Acquire(ctx, lock.Acquire{Resource: "other", ProcessID: "c", Wait: time.Hour})
			}()
			<-waits
		}
		s.node.looked = func() {
			if _, err := s.Release(t.Context(), lock.Release{Resource: "other", ProcessID: "x"}); err != nil {
				t.Error(err)
			}
			<-c.done
		}
		s.node.mu.Unlock()
		pass(usual.Recheck)
		c.wantGranted(0)
		if got := d.holder("other"); got != "c" {
			t.Errorf("held by %q, want c", got)
		}
	})
}

// The same with a request that hung up in between: its place is kept already.
func TestLookAtEverythingLeavesAPlaceThatIsKeptSinceThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		s.queue(lock.Acquire{ProcessID: "c"})
		s.node.mu.Lock()
		s.node.looked = func() {
			b.hangUp()
			<-b.done
		}
		s.node.mu.Unlock()
		pass(usual.Recheck)
		d.wantQueue(t, "-b", "c")
	})
}

// However many hints come while the database is away, it is tried again at a steady pace.
func TestOutageIsNotMetWithMoreAndMoreAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.outage(lock.ErrUnavailable)
		for range 50 {
			s.Wake("r")
			pass(time.Millisecond)
		}
		before := s.node.commands()
		if before > 2 {
			t.Errorf("%d attempts within 50 ms of hints, want no more than one or two", before)
		}
		pass(2 * time.Second)
		if got := s.node.commands() - before; got < 5 || got > 20 {
			t.Errorf("%d attempts in two seconds without hints, want about ten", got)
		}
	})
}

// A request that has to ask again and is refused then has a place still, which must go with it.
func TestRequestThatCannotAskAgainLeavesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		s.node.fail(func(c lock.Command) fault {
			if _, releases := c.(lock.Release); releases {
				return unknown(false) // which makes b ask again
			}
			return fault{err: lock.ErrUnavailable}
		})
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"})
		if !errors.Is(err, lock.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, lock.ErrOutcomeUnknown)
		}
		synctest.Wait()
		s.node.fail(nil)
		if !b.answered() { // it may also go on waiting
			s.release("a")
			b.wantGranted(0)
			return
		}
		pass(soon)
		d.wantQueue(t)
	})
}

// The client's first connection is half open: it came back, and is connected now. What becomes of the first connection
// must not cost it its turn, as it would if the first took the place back and then hung up.
func TestConnectionThatWasReplacedDoesNotCostTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		again := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		first.wantSuperseded()
		pass(lookAtAll + time.Second)
		d.wantQueue(t, "b", "c")
		s.release("a")
		again.wantGranted(lookAtAll + time.Second)
		c.wantWaiting()
	})
}

// wantSuperseded fails unless it has been told that a later request has its place.
func (c *call) wantSuperseded() {
	c.t.Helper()
	var refusal *lock.HeldError
	if !c.answered() || !errors.As(c.err, &refusal) || !refusal.Superseded || refusal.TimedOut {
		c.t.Fatalf("%q: got %+v, %v, answered %t, want it superseded", c.process, c.grant.Hold, c.err, c.answered())
	}
}

// The client of a request that waits under a request_id may come back whatever it was answered: its place is kept.
func TestPlaceIsKeptEvenIfTheDatabaseWasAwayAtTheTimeout(t *testing.T) {
	tests := []struct {
		name  string
		fault fault
	}{
		{"unavailable", fault{err: lock.ErrUnavailable}},
		{"unknown, and it happened", unknown(true)},
		{"unknown, and it did not happen", unknown(false)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id", Wait: time.Second})
				once[lock.Leave](s, test.fault)
				pass(time.Second)
				b.wantError(test.fault.err)
				pass(soon)
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
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		s.node.fail(func(c lock.Command) fault {
			if ask, acquires := c.(lock.Acquire); acquires && ask.Again {
				return fault{err: lock.ErrUnavailable}
			}
			return fault{}
		})
		tell := s.node.watch
		s.node.watch = func(c lock.Commit) { // as if the news of its grant were lost
			c.Granted = nil
			tell(c)
		}
		s.node.batch = func() { _, _ = s.node.transact(lock.Release{Resource: "r", ProcessID: "a"}, fault{}) }
		b := s.queue(lock.Acquire{ProcessID: "b"})
		d.wantHolder(t, "b")
		pass(lookAtAll + soon)
		b.wantError(lock.ErrUnavailable)
		d.wantHolder(t, "")
	})
}
