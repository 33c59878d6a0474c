package lock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestFreeResourceIsGrantedToARequestThatMayWaitWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.ask(lock.Acquire{ProcessID: "a", Wait: time.Minute}).wantGranted(0)
		d.wantTold(t, "a", "acquired")
		if got := s.node.commands(); got != 1 {
			t.Errorf("%d commands, want 1", got)
		}
	})
}

func TestReleaseHandsOverInTheOrderOfComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b", Reason: "work", TTL: time.Minute})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		d.wantQueue(t, "b", "c")
		pass(time.Second)
		s.release("a")
		g := b.wantGranted(time.Second)
		now := time.Now()
		wantEqual(t, "hold", lock.Hold{
			ProcessID: "b", Token: now.UnixMicro(), LockedAt: now, ExpiresAt: now.Add(time.Minute), QueuedAt: now.Add(-time.Second),
			Connection: g.Hold.Connection, RequestID: g.Hold.RequestID, Reason: "work",
		}, g.Hold)
		if !g.Now.Equal(now) || g.ID != 1 || g.To.ProcessID != "b" {
			t.Errorf("grant of row %d at %v to %q, want row 1 at %v to b", g.ID, g.Now, g.To.ProcessID, now)
		}
		c.wantWaiting()
		d.wantQueue(t, "c")
		pass(time.Second)
		if _, err := s.ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", Reason: "it hangs"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.wantGranted(2 * time.Second)
		d.wantTold(t, "b", "queued work", "granted work", "force_released it hangs")
	})
}

// Requests without a request_id are told apart, also when the same process asks twice.
func TestEveryRequestWithoutANameHasItsOwnPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		first := s.queue(lock.Acquire{ProcessID: "a"})
		second := s.queue(lock.Acquire{ProcessID: "a"})
		d.wantQueue(t, "a", "a")
		s.release("a")
		first.wantGranted(0)
		second.wantWaiting()
		s.release("a")
		second.wantGranted(0)
	})
}

func TestWaitEndsAtExactlyItsTime(t *testing.T) {
	tests := []struct {
		name  string
		named string
		queue []string
		told  []string
		kept  time.Duration
		place int
	}{
		{"without a request id its place goes", "", nil, []string{"queued", "gave_up wait_timeout"}, 0, 0},
		{"under a request id its place is kept", "id", []string{"-b"}, []string{"queued"}, usual.KeepPlace, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				held := s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", Wait: 3 * time.Second, RequestID: test.named})
				pass(3*time.Second - 1)
				b.wantWaiting()
				pass(1)
				var refusal *lock.HeldError
				if !b.answered() || !errors.As(b.err, &refusal) {
					t.Fatalf("got %+v, %v, want a HeldError", b.grant, b.err)
				}
				want := &lock.HeldError{
					Resource: "r", Holder: held.Hold, Now: time.Now(), TimedOut: true, Waited: 3 * time.Second, Position: test.place,
				}
				if test.kept != 0 {
					want.KeptUntil = time.Now().Add(test.kept)
				}
				wantEqual(t, "refusal", want, refusal)
				d.wantQueue(t, test.queue...)
				d.wantTold(t, "b", test.told...)
			})
		})
	}
}

// The position of a kept place counts those that are connected before it, and it.
func TestPositionOfAPlaceThatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		s.queue(lock.Acquire{ProcessID: "b"})
		s.queue(lock.Acquire{ProcessID: "gone", RequestID: "id"}).hangUp()
		c := s.queue(lock.Acquire{ProcessID: "c", RequestID: "id", Wait: time.Second})
		e := s.queue(lock.Acquire{ProcessID: "e", RequestID: "id", Wait: 2 * time.Second})
		for _, want := range []struct {
			of    *call
			place int
		}{{c, 2}, {e, 2}} { // c is not connected when e ends
			pass(time.Second)
			var refusal *lock.HeldError
			if !errors.As(want.of.err, &refusal) || refusal.Position != want.place {
				t.Errorf("%q: %+v, want position %d", want.of.process, want.of.err, want.place)
			}
		}
	})
}

// The release commits just before the leave that the timeout sends.
func TestTimeoutThatCrossesWithTheGrantIsAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b", Wait: time.Second})
		news := make(chan lock.Commit, 2)
		s.node.fail(func(c lock.Command) fault {
			if _, leaves := c.(lock.Leave); leaves {
				s.node.watch = func(c lock.Commit) { news <- c } // the news comes late
				if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil {
					t.Error(err)
				}
			}
			return fault{}
		})
		pass(time.Second)
		b.wantGranted(time.Second)
		d.wantHolder(t, "b")
		d.wantTold(t, "b", "queued", "granted")
	})
}

// Its turn comes at the very moment when its time is over: nobody else has been before it, so it counts, whichever of the
// two timers is the first.
func TestExpiryAtTheMomentOfTheTimeoutIsAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 3*time.Second)
		b := s.queue(lock.Acquire{ProcessID: "b", Wait: 3 * time.Second})
		pass(3 * time.Second)
		b.wantGranted(3 * time.Second)
		d.wantTold(t, "b", "queued", "granted")
	})
}

// Expiry needs no sweeper: a timer runs for the holder's end.
func TestExpiryHandsOverAtExactlyItsMoment(t *testing.T) {
	tests := []struct {
		name  string
		renew time.Duration // after two seconds; 0: not at all
		at    time.Duration
	}{
		{"as granted", 0, 5 * time.Second},
		{"after a renewal to later", 30 * time.Second, 32 * time.Second},
		{"after a renewal to sooner", time.Second, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				begun := time.Now()
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Acquire{ProcessID: "b"})
				pass(2 * time.Second)
				if test.renew > 0 {
					if _, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: test.renew}); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Until(begun.Add(test.at - 1)))
				b.wantWaiting()
				pass(1)
				g := b.wantGranted(test.at)
				if !g.Hold.LockedAt.Equal(begun.Add(test.at)) {
					t.Errorf("granted at %v, want %v", g.Hold.LockedAt, begun.Add(test.at))
				}
				d.wantTold(t, "a", "acquired", "expired")
			})
		})
	}
}

func TestMinimumDelaysTheHandOverToExactlyItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		if _, err := s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "a", MinHold: 4 * time.Second}); err != nil {
			t.Fatal(err)
		}
		b := s.queue(lock.Acquire{ProcessID: "b"})
		pass(time.Second)
		s.release("a")
		b.wantWaiting()
		pass(3*time.Second - 1)
		b.wantWaiting()
		pass(1)
		b.wantGranted(4 * time.Second)
	})
}

// A timer that was set for a hold must not be needed, nor do harm, when the hold has ended before.
func TestTimersGoOnFromHoldToHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 5*time.Second)
		b := s.queue(lock.Acquire{ProcessID: "b", TTL: 20 * time.Second})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		pass(time.Second)
		s.release("a")
		b.wantGranted(time.Second)
		before := s.node.commands()
		pass(20*time.Second - 1)
		c.wantWaiting()
		s.wantIdle(before)
		pass(1)
		c.wantGranted(21 * time.Second)
	})
}

// A timer that is of no use any more costs nothing.
func TestTimerEndsWithItsReason(t *testing.T) {
	tests := []struct {
		name string
		end  func(s *server, b *call)
	}{
		{"the next hold never expires", func(s *server, _ *call) { s.release("a") }},
		{"nobody is connected any more", func(_ *server, b *call) { b.hangUp(); synctest.Wait() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDatabase().serve(t, 1, rarely())
				s.hold("a", 5*time.Second)
				b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				if test.name == "the next hold never expires" {
					s.queue(lock.Acquire{ProcessID: "c"})
				}
				pass(time.Second)
				test.end(s, b)
				before := s.node.commands()
				pass(time.Minute)
				s.wantIdle(before)
			})
		})
	}
}

// The moment of a commit is some time ago when the news of it comes: the timer is not late by that.
func TestTimerCountsFromTheMomentOfTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDatabase().serve(t, 1, rarely())
		s.hold("a", 5*time.Second)
		tell := s.node.watch
		s.node.watch = func(c lock.Commit) {
			s.node.watch = tell
			<-time.After(time.Second)
			tell(c)
		}
		b := s.queue(lock.Acquire{ProcessID: "b"})
		pass(5*time.Second - 1)
		b.wantWaiting()
		pass(1)
		b.wantGranted(5 * time.Second)
	})
}

func TestLookAtEverythingChangesNothingWhenAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.serve(t, 1, usual), d.serve(t, 2, usual)
		one.hold("a", 0)
		one.queue(lock.Acquire{ProcessID: "b"})
		two.queue(lock.Acquire{ProcessID: "c", RequestID: "id"})
		beforeOne, beforeTwo := one.node.commands(), two.node.commands()
		pass(3 * usual.Recheck)
		one.wantIdle(beforeOne)
		two.wantIdle(beforeTwo)
		d.wantQueue(t, "b", "c")
	})
}

func TestHangUpTakesThePlaceAwayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		b.hangUp()
		synctest.Wait()
		b.wantError(context.Canceled)
		d.wantQueue(t, "c")
		d.wantTold(t, "b", "queued", "gave_up client_gone")
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
				s := d.serve(t, 1, rarely())
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", RequestID: test.named})
				c := s.queue(lock.Acquire{ProcessID: "c"})
				pass(time.Second)
				granted := s.node.watch
				s.node.watch = func(commit lock.Commit) { // the client hangs up between the commit and its news
					if len(commit.Granted) > 0 && commit.Granted[0].Hold.ProcessID == "b" {
						b.hangUp()
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
				d.wantTold(t, "b", test.told...)
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
				s := d.serve(t, 1, rarely())
				if test.held {
					s.hold("a", 0)
				}
				began, goOn := make(chan struct{}), make(chan struct{})
				s.node.fail(func(c lock.Command) fault {
					if _, acquires := c.(lock.Acquire); acquires {
						close(began)
						<-goOn
					}
					return fault{}
				})
				b := s.ask(lock.Acquire{ProcessID: "b", Wait: time.Hour, RequestID: test.named})
				<-began
				b.hangUp()
				synctest.Wait()
				b.wantWaiting() // what it gets must not be lost from sight
				close(goOn)
				synctest.Wait()
				keeps := !test.held && test.named != ""
				if !b.answered() || (b.err == nil) != keeps {
					t.Fatalf("got %+v, %v", b.grant.Hold, b.err)
				}
				d.wantTold(t, "b", test.told...)
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
				s := d.serve(t, 1, rarely())
				other := s
				if test.other {
					other = d.serve(t, 2, rarely())
				}
				s.hold("a", 0)
				b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				begun := time.Now()
				c := s.queue(lock.Acquire{ProcessID: "c"})
				b.hangUp()
				synctest.Wait()
				d.wantQueue(t, "-b", "c")
				d.wantTold(t, "b", "queued")
				pass(test.away)
				again := other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
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
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		c := s.queue(lock.Acquire{ProcessID: "c"})
		b.hangUp()
		synctest.Wait()
		s.release("a")
		c.wantGranted(0)
		d.wantQueue(t, "-b")
		pass(usual.KeepPlace)
		if n, err := s.SweepPlaces(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("swept %d, %v, want 1", n, err)
		}
		d.wantQueue(t)
		d.wantTold(t, "b", "queued", "gave_up did_not_come_back")
	})
}

// The same request may wait twice, because its client did not notice that the first connection is alive still.
func TestRequestThatWaitsTwiceIsGrantedOnceAndToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		second := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		d.wantQueue(t, "b")
		s.release("a")
		g := second.wantGranted(0)
		first.hangUp() // which has no part in it any more
		synctest.Wait()
		d.wantHolder(t, "b")
		d.wantTold(t, "b", "queued", "granted")
		if again := s.ask(lock.Acquire{ProcessID: "b", RequestID: "id", Wait: time.Hour}).wantGranted(0); again.Hold.Token != g.Hold.Token {
			t.Errorf("asked again: token %d, want %d", again.Hold.Token, g.Hold.Token)
		}
		d.wantTold(t, "b", "queued", "granted")
	})
}

func TestStopWaitingAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		c := s.queue(lock.Acquire{ProcessID: "c", RequestID: "id"})
		s.StopWaiting()
		s.StopWaiting() // may be called again
		synctest.Wait()
		b.wantError(lock.ErrStopping)
		c.wantError(lock.ErrStopping)
		d.wantQueue(t, "-c")
		d.wantTold(t, "b", "queued", "gave_up server_stopping")
		d.wantTold(t, "c", "queued")
		s.ask(lock.Acquire{ProcessID: "e", Wait: time.Minute}).wantError(lock.ErrStopping)
		d.wantTold(t, "e")
		// The place is there for another server.
		other := d.serve(t, 2, rarely())
		again := other.queue(lock.Acquire{ProcessID: "c", RequestID: "id"})
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
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		tell := s.node.watch
		news := make(chan lock.Commit, 1)
		s.node.watch = func(c lock.Commit) { news <- c } // it comes late
		s.release("a")
		s.StopWaiting()
		synctest.Wait()
		b.wantError(lock.ErrStopping)
		d.wantHolder(t, "")
		s.node.watch = tell
		tell(<-news)
		synctest.Wait()
		d.wantTold(t, "b", "queued", "granted", "released server_stopping")
	})
}

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
				one, two := d.serve(t, 1, usual), d.serve(t, 2, usual)
				one.hold("a", 0)
				b := two.queue(lock.Acquire{ProcessID: "b"})
				if test.deaf {
					two.deaf()
				}
				pass(time.Second)
				one.release("a")
				refused := one.ask(lock.Acquire{ProcessID: "c"}) // newcomers do not overtake meanwhile
				var held *lock.HeldError
				if !errors.As(refused.err, &held) {
					t.Fatalf("got %+v, %v, want a HeldError", refused.grant.Hold, refused.err)
				}
				if test.deaf {
					wantEqual(t, "refusal", &lock.HeldError{Resource: "r", Next: "b", Waiters: 1, Now: time.Now()}, held)
				}
				pass(test.at - time.Second)
				b.wantGranted(test.at)
			})
		})
	}
}

func TestExpiryOfAHoldRenewedOnAnotherServerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.serve(t, 1, rarely()), d.serve(t, 2, rarely())
		two.hold("a", 5*time.Second)
		b := one.queue(lock.Acquire{ProcessID: "b"})
		pass(4 * time.Second)
		if _, err := two.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "a", TTL: 8 * time.Second}); err != nil {
			t.Fatal(err)
		}
		pass(8*time.Second - 1)
		b.wantWaiting() // the timer of server 1 came too early and was set anew
		pass(1)
		b.wantGranted(12 * time.Second)
	})
}

// Server 2 dies: when its lease is over, its waiters are passed over without anybody asking.
func TestWaitersOfADeadServerArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		one, two := d.serve(t, 1, rarely()), d.serve(t, 2, rarely())
		one.hold("a", 0)
		lost := two.queue(lock.Acquire{ProcessID: "lost", RequestID: "id"})
		c := one.queue(lock.Acquire{ProcessID: "c"})
		two.deaf()
		d.mu.Lock()
		d.alive[2] = time.Now().Add(2 * time.Second)
		d.mu.Unlock()
		one.release("a")
		c.wantWaiting()
		pass(2*time.Second - 1)
		c.wantWaiting()
		pass(1)
		c.wantGranted(2 * time.Second)
		lost.wantWaiting()
		d.wantQueue(t, "lost")
		pass(usual.KeepPlace - 1)
		if n, err := one.SweepPlaces(t.Context(), 10); n != 0 || err != nil {
			t.Errorf("swept %d, %v, want 0: its place is kept for so long", n, err)
		}
		pass(1)
		if n, err := one.SweepPlaces(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("swept %d, %v, want 1", n, err)
		}
		d.wantQueue(t)
	})
}

func TestPlaceThatVanishedIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		d.change("r", func(r *lock.Resource) { r.Queue, r.Waiters = nil, 0 }) // as when the database was restored
		pass(lookAtAll)
		b.wantWaiting()
		d.wantQueue(t, "b")
		s.release("a")
		b.wantGranted(lookAtAll)
	})
}

// orphan is a waiter of server 1 that no request waits for: what a crash between commit and answer can leave.
func orphan(d *database, process string) {
	d.change("r", func(r *lock.Resource) {
		w := &lock.Waiter{Ticket: r.LastTicket + 1, Since: time.Now(), Request: lock.Acquire{
			Resource: "r", ProcessID: process, RequestID: "~" + process, Connection: 77, Wait: time.Hour,
		}}
		r.Queue = append(r.Queue[:len(r.Queue):len(r.Queue)], w)
		r.LastTicket = w.Ticket
		r.Waiters++
		d.servers["r"][w.Ticket] = 1
	})
}

func TestPlaceThatNobodyWaitsInIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, usual)
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		orphan(d, "gone")
		d.wantQueue(t, "b", "gone")
		pass(lookAtAll - 1)
		d.wantQueue(t, "b", "gone")
		pass(1)
		d.wantQueue(t, "b")
		d.wantTold(t, "gone", "gave_up client_gone")
		b.wantWaiting()
	})
}

func TestGrantThatNobodyWaitsForIsGivenBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		orphan(d, "gone")
		b := s.queue(lock.Acquire{ProcessID: "b"})
		s.release("a")
		b.wantGranted(0)
		d.wantTold(t, "gone", "granted", "released client_gone")
	})
}

func TestGiveBackEndsAHoldThatNobodyWasToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		g := s.ask(lock.Acquire{ProcessID: "a", Wait: time.Hour}).wantGranted(0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		s.GiveBack(g)
		synctest.Wait()
		b.wantGranted(0)
		d.wantTold(t, "a", "acquired", "released client_gone")
		s.GiveBack(g) // long over
		synctest.Wait()
		d.wantHolder(t, "b")
		before := s.node.commands()
		pass(soon)
		s.wantIdle(before)
	})
}

// Who can come back keeps its hold, unless it had to wait for it: then it keeps its place. The minimum of a hold that
// nobody was told of does not count.
func TestGiveBackOfARequest(t *testing.T) {
	tests := []struct {
		name    string
		request lock.Acquire
		stays   bool
	}{
		{"that does not wait", lock.Acquire{MinHold: time.Hour}, false},
		{"that may wait", lock.Acquire{Wait: time.Hour, MinHold: time.Hour}, false},
		{"that does not wait, with a request_id", lock.Acquire{RequestID: "id"}, true},
		{"that may wait, with a request_id", lock.Acquire{RequestID: "id", Wait: time.Hour}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.serve(t, 1, rarely())
				test.request.ProcessID = "a"
				g := s.ask(test.request).wantGranted(0)
				before := s.node.commands()
				s.GiveBack(g)
				synctest.Wait()
				if !test.stays {
					d.wantHolder(t, "")
					d.wantTold(t, "a", "acquired", "released client_gone")
					return
				}
				d.wantHolder(t, "a")
				s.wantIdle(before)
			})
		})
	}
}

// A repeat that finds the hold takes nothing away when its client has gone as well: the first answer may have arrived.
func TestGiveBackOfARepeatedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
		s.release("a")
		first.wantGranted(0)
		again := s.ask(lock.Acquire{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		if !again.Repeated || first.grant.Repeated {
			t.Errorf("repeated: %t and %t, want false and true", first.grant.Repeated, again.Repeated)
		}
		s.GiveBack(again)
		s.GiveBack(first.grant)
		synctest.Wait()
		d.wantHolder(t, "b")
	})
}

// A request with a request_id that comes back to its place and is granted it at once has waited: when its client is gone
// as well, the place is kept again.
func TestGiveBackOfARequestThatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.serve(t, 1, rarely())
		s.hold("a", 0)
		s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"}).hangUp()
		synctest.Wait()
		s.release("a")
		back := s.ask(lock.Acquire{ProcessID: "b", RequestID: "id"}).wantGranted(0)
		s.GiveBack(back)
		synctest.Wait()
		d.wantHolder(t, "")
		d.wantQueue(t, "-b")
	})
}

// The earlier of two requests with one request_id is told at once, whatever the later one does and wherever it is, and
// acquires nothing any more: nobody looks at the database at regular times here.
func TestSupersededAtOnce(t *testing.T) {
	later := map[string]func(t *testing.T, d *database, other *server){
		"the later one waits": func(t *testing.T, d *database, other *server) {
			other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
			d.wantQueue(t, "b")
		},
		"the later one waits and gives up": func(_ *testing.T, _ *database, other *server) {
			other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"}).hangUp()
			synctest.Wait()
		},
		"the later one is granted the resource and releases it": func(t *testing.T, d *database, other *server) {
			again := other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
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
					s := d.serve(t, 1, rarely())
					other := s
					if servers == 2 {
						other = d.serve(t, 2, rarely())
					}
					s.hold("a", 0)
					first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
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
				s, other := d.serve(t, 1, usual), d.serve(t, 2, usual)
				clear(d.replaced)
				s.hold("a", 0)
				first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				again := other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				if !finished {
					pass(lookAtAll)
					first.wantSuperseded()
					return
				}
				other.release("a")
				again.wantGranted(0)
				other.release("b")
				pass(lookAtAll)
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
				s, other := d.serve(t, 1, rarely()), d.serve(t, 2, rarely())
				clear(d.replaced)
				s.hold("a", 0)
				first := s.queue(lock.Acquire{ProcessID: "b", RequestID: "id", Wait: time.Second})
				again := other.queue(lock.Acquire{ProcessID: "b", RequestID: "id"})
				if granted {
					other.release("a")
					again.wantGranted(0)
				}
				pass(time.Second)
				first.wantSuperseded()
			})
		})
	}
}

func TestMostWaitersOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		limits := rarely()
		limits.MaxWaiters = 2
		s := d.serve(t, 1, limits)
		s.hold("a", 0)
		b := s.queue(lock.Acquire{ProcessID: "b"})
		s.queue(lock.Acquire{ProcessID: "c"})
		full := s.ask(lock.Acquire{ProcessID: "e", Wait: time.Minute})
		var refusal *lock.QueueFullError
		if !full.answered() || !errors.As(full.err, &refusal) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		wantEqual(t, "refusal", &lock.QueueFullError{Resource: "r", Waiters: 2}, refusal)
		d.wantQueue(t, "b", "c")
		// What is free is granted all the same: it does not have to wait.
		s.ask(lock.Acquire{Resource: "free", ProcessID: "e", Wait: time.Minute}).wantGranted(0)
		b.hangUp()
		synctest.Wait()
		s.queue(lock.Acquire{ProcessID: "e"}) // there is a place again
		d.wantQueue(t, "c", "e")
	})
}

func TestMostPlacesOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		limits := rarely()
		limits.MaxQueue = 1
		s := d.serve(t, 1, limits)
		s.hold("a", 0)
		s.queue(lock.Acquire{ProcessID: "b"})
		full := s.ask(lock.Acquire{ProcessID: "c", Wait: time.Minute})
		if !full.answered() || !errors.As(full.err, new(*lock.QueueFullError)) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		s.release("a")
		s.queue(lock.Acquire{ProcessID: "c"})
	})
}
