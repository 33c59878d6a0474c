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

func TestFreeResourceIsGrantedWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.request(lock.Request{ProcessID: "a", Wait: time.Minute}).wantGranted(0)
		d.wantEvents(t, "a", "acquired")
		if got := s.node.commands(); got != 1 {
			t.Errorf("%d commands, want 1", got)
		}
	})
}

func TestWaitersAreGrantedInOrder(t *testing.T) {
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
			ProcessID: "b", Token: now.UnixMicro(), Reason: "work",
			LockedAt: now, ExpiresAt: now.Add(time.Minute), QueuedAt: now.Add(-time.Second),
			Connection: g.Hold.Connection, RequestID: g.Hold.RequestID,
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

// Requests without a request_id are different requests, even if one process sends them.
func TestRequestsWithoutARequestIDHaveTheirOwnPlaces(t *testing.T) {
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
		name      string
		requestID string
		queue     []string
		events    []string
		kept      time.Duration
		position  int
	}{
		{"without a request_id the place is removed", "", nil, []string{"queued", "gave_up wait_timeout"}, 0, 0},
		{"with a request_id the place is kept", "id", []string{"-b"}, []string{"queued"}, usual.KeepPlace, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				s := d.startServer(t, noRecheck())
				held := s.hold("a", 0)
				b := s.queue(lock.Request{ProcessID: "b", Wait: 3 * time.Second, RequestID: test.requestID})
				advance(3*time.Second - 1)
				b.wantWaiting()
				advance(1)
				var refusal *lock.HeldError
				if !b.answered() || !errors.As(b.err, &refusal) {
					t.Fatalf("got %+v, %v, want a HeldError", b.grant, b.err)
				}
				want := &lock.HeldError{
					Resource: "r", Kind: lock.TimedOut, Holder: &held.Hold, Now: time.Now(),
					Waited: 3 * time.Second, Position: test.position,
				}
				if test.kept != 0 {
					want.KeptUntil = time.Now().Add(test.kept)
				}
				wantEqual(t, "refusal", want, refusal)
				d.wantQueue(t, test.queue...)
				d.wantEvents(t, "b", test.events...)
			})
		})
	}
}

// The position of a kept place counts the connected waiters before it, and itself.
func TestPositionOfAKeptPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"})
		s.queue(lock.Request{ProcessID: "gone", RequestID: "id"}).disconnect()
		c := s.queue(lock.Request{ProcessID: "c", RequestID: "id", Wait: time.Second})
		e := s.queue(lock.Request{ProcessID: "e", RequestID: "id", Wait: 2 * time.Second})
		for _, want := range []struct {
			call     *call
			position int
		}{{c, 2}, {e, 2}} { // c is detached when e ends
			advance(time.Second)
			var refusal *lock.HeldError
			if !errors.As(want.call.err, &refusal) || refusal.Position != want.position {
				t.Errorf("%q: got %+v, want position %d", want.call.process, want.call.err, want.position)
			}
		}
	})
}

// The release commits just before the TimeOut, and the report of its commit is delayed.
func TestTimeoutRacingWithTheGrantIsAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		s := d.startServer(t, noRecheck())
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b", Wait: time.Second})
		delayed := make(chan service.Commit, 2)
		s.node.SetFault(func(c lock.Command) memstore.Fault {
			if _, timesOut := c.(lock.TimeOut); timesOut {
				s.node.observe = func(c service.Commit) { delayed <- c }
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

func TestMaxWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		cfg := noRecheck()
		cfg.MaxWaiters = 2
		s := d.startServer(t, cfg)
		s.hold("a", 0)
		b := s.queue(lock.Request{ProcessID: "b"})
		s.queue(lock.Request{ProcessID: "c"})
		full := s.request(lock.Request{ProcessID: "e", Wait: time.Minute})
		var refusal *lock.QueueFullError
		if !full.answered() || !errors.As(full.err, &refusal) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		wantEqual(t, "refusal", &lock.QueueFullError{Resource: "r", Waiters: 2}, refusal)
		d.wantQueue(t, "b", "c")
		// A free resource is granted nevertheless: the request does not have to wait.
		s.request(lock.Request{Resource: "free", ProcessID: "e", Wait: time.Minute}).wantGranted(0)
		b.disconnect()
		synctest.Wait()
		s.queue(lock.Request{ProcessID: "e"})
		d.wantQueue(t, "c", "e")
	})
}

func TestMaxQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		cfg := noRecheck()
		cfg.MaxQueue = 1
		s := d.startServer(t, cfg)
		s.hold("a", 0)
		s.queue(lock.Request{ProcessID: "b"})
		full := s.request(lock.Request{ProcessID: "c", Wait: time.Minute})
		if !full.answered() || !errors.As(full.err, new(*lock.QueueFullError)) {
			t.Fatalf("got %+v, %v, want a QueueFullError", full.grant, full.err)
		}
		s.release("a")
		s.queue(lock.Request{ProcessID: "c"})
	})
}
