package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestDisconnectLeavesTheQueue: a waiter that disconnects leaves the queue at once, wherever
// it stands, and the next waiter gets the resource.
func TestDisconnectLeavesTheQueue(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		first, second, third := s.wait(t, "r", "a", nil), s.wait(t, "r", "b", nil), s.wait(t, "r", "c", nil)
		second.disconnect()
		s.wantWaiters(t, "r", "a", "c")
		first.disconnect()
		s.wantWaiters(t, "r", "c")
		s.release(t, "r", "p").want(t, 200)
		s.wantHolder(t, "r", third.granted(t))
		s.release(t, "r", "c").want(t, 200)
		s.hold(t, "r", "p", nil) // no waiter is left before it
	})
}

// TestLastWaiterDisconnects: the queue is empty then.
func TestLastWaiterDisconnects(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		s.wait(t, "r", "a", nil).disconnect()
		s.wantWaiters(t, "r")
		if got := s.status(t, "r").Waiters; got != 0 {
			t.Errorf("status has %d waiters", got)
		}
		s.release(t, "r", "p").want(t, 200)
		s.hold(t, "r", "q", nil)
	})
}

// TestDisconnectRacesWithTheRelease: a disconnect races with the release. Either the waiter
// has no hold, or its client may have received the response. In both cases the next
// waiter gets the resource, at the latest when the hold of the first one expires.
func TestDisconnectRacesWithTheRelease(t *testing.T) {
	const rounds = 15
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r0", "p", nil)
		for round := range rounds {
			name := fmt.Sprint("r", round)
			first := s.wait(t, name, "a", fields{"ttl_seconds": 0.1})
			second := s.wait(t, name, "b", nil)
			s.hold(t, fmt.Sprint("r", round+1), "p", nil)
			released := s.send(t, s.request(t, "DELETE",
				withQuery("/locks/release", []string{"resource_name", name, "process_id", "p"}), ""))
			first.disconnect()
			released.answer(t).want(t, 200)
			<-first.done
			s.clock.advance(100 * time.Millisecond)
			s.wantHolder(t, name, second.granted(t))
			s.wantWaiters(t, name)
		}
	})
}

// TestDisconnectIsNoError: the log line of the request has the level DEBUG and the status
// 499.
func TestDisconnectIsNoError(t *testing.T) {
	log, lines := newLog(t)
	db, _ := openStore(t, store.SQLite, "")
	s := serve(t, startedService(t, db, service.Config{}, log), db.Ping, log)
	s.hold(t, "r", "p", nil)
	waiting := s.wait(t, "r", "q", nil)
	waiting.disconnect()
	<-waiting.done
	s.Close()
	for _, line := range lines() {
		if line.Status == 499 && line.Level == slog.LevelDebug.String() && line.Route == "/locks/request" &&
			line.Error == "" {
			return
		}
	}
	t.Errorf("log: %+v, want a line of the level DEBUG with the status 499", lines())
}

// unflushed is a response of net/http whose connection broke after the request was
// decided. What was written stays in the server's memory, and only a flush reports that
// it was not sent.
type unflushed struct {
	http.ResponseWriter
	http.Hijacker
	io.ReaderFrom
	broken *atomic.Bool
}

func (w unflushed) Flush() { _ = w.FlushError() }

func (w unflushed) FlushError() error {
	if w.broken.Load() {
		return errors.New("broken pipe")
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w unflushed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// behindABrokenConnection serves the same locks on a second server, whose responses are
// not sent once broken is set.
func (s *server) behindABrokenConnection(t *testing.T) (other *server, broken *atomic.Bool) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	handler := api.New(s.locks, databaseID, nil, log)
	broken = new(atomic.Bool)
	other = serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(unflushed{w, w.(http.Hijacker), w.(io.ReaderFrom), broken}, r)
	}), log)
	t.Cleanup(s.locks.StopWaiting)
	return other, broken
}

// TestAnswerThatDoesNotGetOut: a client that could not be sent the response does not have
// the lock.
func TestAnswerThatDoesNotGetOut(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		other, broken := s.behindABrokenConnection(t)
		s.hold(t, "r", "p", nil)
		first := other.ask(t, "r", "a", nil)
		s.wantWaiters(t, "r", "a")
		second := s.wait(t, "r", "b", nil)
		broken.Store(true)
		s.release(t, "r", "p").want(t, 200)
		<-first.done
		s.wantHolder(t, "r", second.granted(t))
	})
}

// TestAnswerThatDoesNotGetOutKeepsThePlace: a client that can retry finds its place
// again, before later waiters.
func TestAnswerThatDoesNotGetOutKeepsThePlace(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		other, broken := s.behindABrokenConnection(t)
		s.hold(t, "r", "p", nil)
		first := other.ask(t, "r", "a", fields{"request_id": "run"})
		s.wantWaiters(t, "r", "a")
		second, third := s.wait(t, "r", "b", nil), s.wait(t, "r", "c", nil)
		broken.Store(true)
		s.release(t, "r", "p").want(t, 200)
		<-first.done
		second.granted(t)
		back := s.ask(t, "r", "a", fields{"request_id": "run"})
		s.wantWaiters(t, "r", "a", "c")
		s.release(t, "r", "b").want(t, 200)
		s.wantHolder(t, "r", back.granted(t))
		third.stillWaits(t)
	})
}

// TestPlaceIsKept: a request whose connection was cut finds its place when the client
// retries with the same request_id. Its wait counts from the first request.
func TestPlaceIsKept(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		first := s.wait(t, "r", "a", fields{"request_id": "run", "reason": "first"})
		since := s.queue(t, "r").Waiters[0].WaitingSince
		// the same id of another process means another request
		second := s.wait(t, "r", "b", fields{"request_id": "run"})
		for range 3 {
			first.disconnect()
			s.wantWaiters(t, "r", "b")
			if got := s.status(t, "r").Waiters; got != 1 {
				t.Errorf("status has %d waiters, want only the connected one", got)
			}
			s.clock.advance(20 * time.Second)
			first = s.ask(t, "r", "a", fields{"request_id": "run", "reason": "first"})
			s.wantWaiters(t, "r", "a", "b")
		}
		got := s.queue(t, "r").Waiters[0]
		want := wire.Waiter{Position: 1, ProcessID: "a", WaitingSince: since, WaitedSeconds: 60, Reason: new("first")}
		if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
			t.Error("waiter (-want +got):\n" + diff)
		}
		s.release(t, "r", "p").want(t, 200)
		granted := first.granted(t)
		s.wantHolder(t, "r", granted)
		if s.driver == store.SQLite && granted.WaitedSeconds != 60 {
			t.Errorf("waited for %v seconds, want 60", granted.WaitedSeconds)
		}
		second.stillWaits(t)
		wantEvents := []string{"granted r a", "released r p", "queued r b", "queued r a", "acquired r p"}
		if diff := cmp.Diff(wantEvents, eventLines(s.history(t).Events)); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
	})
}

// TestReleasedWhileDetached: the resource does not wait for a detached waiter, which is
// the first again once it has reconnected.
func TestReleasedWhileDetached(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		s.wait(t, "r", "a", fields{"request_id": "run"}).disconnect()
		s.wantWaiters(t, "r")
		second, third := s.wait(t, "r", "b", nil), s.wait(t, "r", "c", nil)
		s.release(t, "r", "p").want(t, 200)
		second.granted(t)
		first := s.ask(t, "r", "a", fields{"request_id": "run"})
		s.wantWaiters(t, "r", "a", "c")
		s.release(t, "r", "b").want(t, 200)
		s.wantHolder(t, "r", first.granted(t))
		third.stillWaits(t)
	})
}

// TestPlaceIsNotKeptForEver tests KEEP_PLACE. Without a request_id no place is kept.
func TestPlaceIsNotKeptForEver(t *testing.T) {
	for name, id := range map[string]any{"named": "run", "nameless": nil} {
		t.Run(name, func(t *testing.T) {
			onBothWithin(t, service.Config{KeepPlace: time.Microsecond}, func(t *testing.T, s *server) {
				s.hold(t, "r", "p", nil)
				s.wait(t, "r", "a", fields{"request_id": id}).disconnect()
				s.wantWaiters(t, "r")
				second := s.wait(t, "r", "b", nil)
				s.clock.advance(time.Microsecond)
				s.wait(t, "r", "a", fields{"request_id": id})
				s.wantWaiters(t, "r", "b", "a")
				s.release(t, "r", "p").want(t, 200)
				second.granted(t)
			})
		})
	}
}

// TestSweptPlaces: the history records a waiter that did not reconnect in time.
func TestSweptPlaces(t *testing.T) {
	onBothWithin(t, service.Config{KeepPlace: time.Microsecond}, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		s.wait(t, "r", "a", fields{"request_id": "run"}).disconnect()
		s.wantWaiters(t, "r")
		s.clock.advance(time.Microsecond)
		swept := 0
		s.eventually(t, "the place is swept", func() bool { // a sweep may come before the place is abandoned
			n, err := s.locks.SweepAbandoned(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			swept += n
			return swept > 0
		})
		events := s.history(t).Events
		if events[0].Event != "gave_up" || events[0].ProcessID != "a" || events[0].FencingToken != nil ||
			events[0].WaitedSeconds == nil {
			t.Errorf("history: %+v", events[0])
		}
		if n, err := s.locks.SweepAbandoned(t.Context(), 100); n != 0 || err != nil {
			t.Errorf("swept again: %d, %v", n, err)
		}
	})
}

// TestTwoWithOneRequestID: a client repeats a request while the first one still waits.
// The later request has the place. The end of the earlier one, for whatever reason, does
// not affect it.
func TestTwoWithOneRequestID(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, p *pending){
		"disconnects": func(_ *testing.T, p *pending) {
			p.disconnect()
			<-p.done
		},
		"is answered": func(t *testing.T, p *pending) {
			a := p.answer(t)
			a.wantFailure(t, 409, wire.CodeSuperseded,
				"A later request with the same request_id has taken the place of this one in the queue of resource 'r'")
			if got := decode[wire.Conflict](t, a.body); got.Waiters != 2 || got.Holder == nil ||
				got.Holder.ProcessID != "p" {
				t.Errorf("got %s, want 2 waiters: the later request and the other one", a.body)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				s.hold(t, "r", "p", nil)
				earlier := s.wait(t, "r", "a", fields{"request_id": "run", "reason": "earlier"})
				s.wait(t, "r", "b", nil)
				later := s.ask(t, "r", "a", fields{"request_id": "run", "reason": "later"})
				s.eventually(t, "the later one has the place", func() bool {
					first := s.queue(t, "r").Waiters[0]
					return first.ProcessID == "a" && *first.Reason == "later"
				})
				s.wantWaiters(t, "r", "a", "b")
				end(t, earlier)
				later.stillWaits(t)
				s.wantWaiters(t, "r", "a", "b")
				s.release(t, "r", "p").want(t, 200)
				granted := later.granted(t)
				s.wantHolder(t, "r", granted)
				// Repeated, waiting or not, the request gets the same hold.
				for _, wait := range []any{nil, 300} {
					again := dataOf[wire.Acquired](t,
						s.acquireWith(t, "r", "a", fields{"request_id": "run", "wait_seconds": wait}))
					if again.FencingToken != granted.FencingToken || again.WaitedSeconds != granted.WaitedSeconds ||
						!again.Repeated {
						t.Errorf("repeated: %+v, want %+v", again, granted)
					}
				}
			})
		})
	}
}

// TestWaitsLongerThanTheServersTimeouts: the timeouts for slow clients do not apply to a
// client that waits.
func TestWaitsLongerThanTheServersTimeouts(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		const timeout = 250 * time.Millisecond
		log := slog.New(slog.DiscardHandler)
		hasty := &server{Server: httptest.NewUnstartedServer(nil), driver: s.driver, clock: s.clock, locks: s.locks}
		hasty.Config = api.NewServer(api.New(s.locks, databaseID, nil, log), log)
		hasty.Config.ReadTimeout, hasty.Config.WriteTimeout = timeout, timeout
		hasty.Start()
		t.Cleanup(hasty.Close)
		t.Cleanup(s.locks.StopWaiting)

		s.hold(t, "r", "p", nil)
		first := hasty.ask(t, "r", "a", nil)
		s.wantWaiters(t, "r", "a")
		second := hasty.ask(t, "r", "b", nil)
		s.wantWaiters(t, "r", "a", "b")
		// Its response shows that the other requests have waited for longer than any
		// timeout.
		hasty.ask(t, "r", "c", fields{"wait_seconds": (3 * timeout).Seconds()}).answer(t).wantCode(t, 409,
			wire.CodeWaitTimeout)
		s.wantWaiters(t, "r", "a", "b")
		first.disconnect() // the server still notices it
		s.wantWaiters(t, "r", "b")
		s.release(t, "r", "p").want(t, 200)
		s.wantHolder(t, "r", second.granted(t))
	})
}

// TestConnectionAfterAWait: the deadline of a wait does not outlive it.
func TestConnectionAfterAWait(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "held", "p", nil)
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		send := func(req *http.Request) answer {
			if err := req.Write(conn); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(answers, req)
			if err != nil {
				t.Fatal(err)
			}
			return read(t, req, response)
		}
		waits := func(resource string, wait float64) *http.Request {
			body := fields{"resource_name": resource, "process_id": "q", "wait_seconds": wait}
			return s.request(t, "POST", "/locks/request", body.json(t))
		}
		for range 3 {
			send(waits("held", 0.02)).wantCode(t, 409, wire.CodeWaitTimeout)
			send(s.request(t, "GET", "/health", "")).want(t, 200)
			send(waits("free", 300)).want(t, 200)
			send(s.request(t, "DELETE", "/locks/release?resource_name=free&process_id=q", "")).want(t, 200)
		}
	})
}

// TestClientThatDoesNotRead: a client that does not read its response delays no other
// client.
func TestClientThatDoesNotRead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req := s.request(t, "POST", "/locks/request", `{"resource_name":"r","process_id":"deaf","wait_seconds":300}`)
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		s.wantWaiters(t, "r", "deaf")
		next := s.wait(t, "r", "q", nil)
		s.release(t, "r", "p").want(t, 200)
		if got := s.status(t, "r"); *got.LockedBy != "deaf" {
			t.Errorf("status %+v", got)
		}
		s.forceRelease(t, "r", "it does not listen").want(t, 200)
		s.wantHolder(t, "r", next.granted(t))
	})
}

// TestStopWaiting: all waiting requests are answered, so that their clients can retry on
// another server at once.
func TestStopWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		waiting := []*pending{s.wait(t, "r", "a", nil), s.wait(t, "r", "b", fields{"request_id": "run"})}
		s.locks.StopWaiting()
		s.locks.StopWaiting()
		waiting = append(waiting, s.ask(t, "r", "late", nil), s.ask(t, "free", "late", nil))
		for _, p := range waiting {
			a := p.answer(t)
			a.wantFailure(t, 503, wire.CodeStopping, "The server is shutting down")
			if got := a.header.Get("Retry-After"); got != "1" {
				t.Errorf("Retry-After %q, want 1", got)
			}
		}
		s.wantWaiters(t, "r")
		s.acquire(t, "r", "late", nil).wantCode(t, 409, wire.CodeAlreadyLocked)
		s.hold(t, "free", "late", nil) // requests that need not wait are still served
		s.release(t, "r", "p").want(t, 200)
		events := s.history(t, "resource_name", "r").Events
		gone := events[slices.IndexFunc(events, func(e wire.Event) bool { return e.Event == "gave_up" })]
		if gone.ProcessID != "a" || gone.Reason == nil || *gone.Reason != string(wire.ReasonServerStopping) {
			t.Errorf("history: %+v", gone)
		}
	})
}
