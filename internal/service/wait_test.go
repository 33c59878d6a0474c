package service_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

func TestFreeResourceIsGrantedToARequestThatMayWaitWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.ask(lock.Request{ProcessID: "a", Wait: time.Minute}).wantGranted(0)
		d.wantEvents(t, "a", "acquired")
		if got := s.node.commands(); got != 1 {
			t.Errorf("%d commands, want 1", got)
		}
	})
}

func TestReleaseHandsOverInTheOrderOfComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", Reason: "work", TTL: time.Minute})
		c := s.queue(lock.Request{ProcessID: "c"})
		d.wantQueue(t, "b", "c")
		advance(time.Second)
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
		advance(time.Second)
		if _, err := s.ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", Reason: "it hangs"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.wantGranted(2 * time.Second)
		d.wantEvents(t, "b", "queued work", "granted work", "force_released it hangs")
	})
}

// Requests without a request_id are told apart, also when the same process asks twice.
func TestEveryRequestWithoutANameHasItsOwnPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		first := s.queue(lock.Request{ProcessID: "a"})
		second := s.queue(lock.Request{ProcessID: "a"})
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
				s := d.startServer(t, noRecheck())
				held := s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", Wait: 3 * time.Second, RequestID: test.named})
				advance(3*time.Second - 1)
				b.wantWaiting()
				advance(1)
				var refusal *lock.HeldError
				if !b.answered() || !errors.As(b.err, &refusal) {
					t.Fatalf("got %+v, %v, want a HeldError", b.grant, b.err)
				}
				want := &lock.HeldError{
					Resource: "r", Kind: lock.TimedOut, Holder: &held.Hold, Now: time.Now(), Waited: 3 * time.Second, Position: test.place,
				}
				if test.kept != 0 {
					want.KeptUntil = time.Now().Add(test.kept)
				}
				wantEqual(t, "refusal", want, refusal)
				d.wantQueue(t, test.queue...)
				d.wantEvents(t, "b", test.told...)
			})
		})
	}
}

// The position of a kept place counts those that are connected before it, and it.
func TestPositionOfAPlaceThatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"})
		s.queue(lock.Request{ProcessID: "gone", RequestID: "id"}).disconnect()
		c := s.queue(lock.Request{ProcessID: "c", RequestID: "id", Wait: time.Second})
		e := s.queue(lock.Request{ProcessID: "e", RequestID: "id", Wait: 2 * time.Second})
		for _, want := range []struct {
			of    *call
			place int
		}{{c, 2}, {e, 2}} { // c is not connected when e ends
			advance(time.Second)
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
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", Wait: time.Second})
		news := make(chan service.Commit, 2)
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if _, leaves := c.(lock.TimeOut); leaves {
				s.node.observe = func(c service.Commit) { news <- c } // the news comes late
				if _, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "a"}); err != nil {
					t.Error(err)
				}
			}
			return memstore.Fault{}
		})
		advance(time.Second)
		b.wantGranted(time.Second)
		d.wantHolder(t, "b")
		d.wantEvents(t, "b", "queued", "granted")
	})
}

func TestMostWaitersOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		limits := noRecheck()
		limits.MaxWaiters = 2
		s := d.startServer(t, limits)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.queue(lock.Request{ProcessID: "c"})
		full := s.ask(lock.Request{ProcessID: "e", Wait: time.Minute})
		var refusal *lock.QueueFullError
		if !full.answered() || !errors.As(full.err, &refusal) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		wantEqual(t, "refusal", &lock.QueueFullError{Resource: "r", Waiters: 2}, refusal)
		d.wantQueue(t, "b", "c")
		// What is free is granted all the same: it does not have to wait.
		s.ask(lock.Request{Resource: "free", ProcessID: "e", Wait: time.Minute}).wantGranted(0)
		b.disconnect()
		synctest.Wait()
		s.queue(lock.Request{ProcessID: "e"}) // there is a place again
		d.wantQueue(t, "c", "e")
	})
}

func TestMostPlacesOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		limits := noRecheck()
		limits.MaxQueue = 1
		s := d.startServer(t, limits)
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"})
		full := s.ask(lock.Request{ProcessID: "c", Wait: time.Minute})
		if !full.answered() || !errors.As(full.err, new(*lock.QueueFullError)) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		s.release("a")
		s.queue(lock.Request{ProcessID: "c"})
	})
}
