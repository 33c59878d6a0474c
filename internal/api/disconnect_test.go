package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// slowStore is a database that is slow for one acquire: it waits until the server has
// noticed the end of the client's stream.
type slowStore struct {
	*store.Store
	slow atomic.Pointer[context.Context] // of the request
}

func (s *slowStore) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	return s.ExecuteWithin(ctx, c, 0)
}

func (s *slowStore) ExecuteWithin(ctx context.Context, c lock.Command, maxDelay time.Duration) (lock.Outcome, error) {
	if _, acquires := c.(lock.Acquire); acquires {
		if request := s.slow.Swap(nil); request != nil {
			<-(*request).Done()
		}
	}
	return s.Store.ExecuteWithin(ctx, c, maxDelay)
}

// slowServer serves a store that is slow for the next acquire whose client sets the
// header Slow.
func slowServer(t *testing.T, driver, source string) *server {
	t.Helper()
	db, c := openStore(t, driver, source)
	slow := &slowStore{Store: db}
	log := slog.New(slog.DiscardHandler)
	locks := startedService(t, slow, service.Config{}, log)
	handler := api.New(locks, databaseID, db.Ping, log)
	s := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Slow") != "" {
			ctx := r.Context()
			slow.slow.Store(&ctx)
		}
		handler.ServeHTTP(w, r)
	}), log)
	t.Cleanup(locks.StopWaiting)
	s.driver, s.clock, s.locks = driver, c, locks
	return s
}

// dial opens a connection and sends a request on it.
func (s *server) dial(t *testing.T, req *http.Request) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// lastAnswer ends the sending side of a connection and reads everything until its end.
func lastAnswer(t *testing.T, conn *net.TCPConn, req *http.Request) answer {
	t.Helper()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAll(response)
	if err != nil {
		t.Fatal(err)
	}
	check(t, req, a)
	return a
}

// TestAnswerAfterTheEndOfTheStream: a client that has nothing more to send gets its
// response.
func TestAnswerAfterTheEndOfTheStream(t *testing.T) {
	for _, o := range lockOperations {
		t.Run(o.route, func(t *testing.T) {
			var request atomic.Pointer[context.Context]
			fail := func(context.Context) error {
				<-(*request.Load()).Done()
				return fmt.Errorf("%w: %s", service.ErrUnavailable, secret)
			}
			log := slog.New(slog.DiscardHandler)
			handler := api.New(service.New(brokenStore{fail: fail}, withLimits(lock.Limits{MaxTTL: maxTTL}), log),
				databaseID, fail, log)
			s := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx := r.Context()
				request.Store(&ctx)
				handler.ServeHTTP(w, r)
			}), log)
			req := s.request(t, o.method, o.target, o.body)
			lastAnswer(t, s.dial(t, req), req).wantCode(t, 503, wire.CodeUnavailable)
		})
	}
}

// TestAcquireOfAClientThatHasGone ends the client's stream while the database is slow. A
// client that has closed its connection and cannot retry leaves no hold. A client that
// has only finished sending keeps its hold.
func TestAcquireOfAClientThatHasGone(t *testing.T) {
	tests := []struct {
		name   string
		more   fields
		closes bool
		keeps  bool
	}{
		{"closes", nil, true, false},
		{"closes, with a minimum hold", fields{"min_hold_seconds": 60, "ttl_seconds": 60}, true, false},
		{"closes, with wait_seconds", fields{"wait_seconds": 60}, true, false},
		{"closes, with a request_id", fields{"request_id": "run"}, true, true},
		{"closes, with a request_id and wait_seconds", fields{"request_id": "run", "wait_seconds": 60}, true, true},
		{"has finished sending", nil, false, true},
		{
			"has finished sending, with a request_id and wait_seconds",
			fields{"request_id": "run", "wait_seconds": 60},
			false, true,
		},
		{"has finished sending, with a request_id", fields{"request_id": "run"}, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBothSlow(t, func(t *testing.T, s *server) {
				body := fields{"resource_name": "r", "process_id": "p"}
				maps.Copy(body, test.more)
				req := s.request(t, "POST", "/locks/request", body.json(t))
				req.Header.Set("Slow", "yes")
				conn := s.dial(t, req)
				if test.closes {
					_ = conn.Close()
				} else {
					dataOf[wire.Acquired](t, lastAnswer(t, conn, req))
				}
				s.eventually(t, "the lock is granted", func() bool { return len(s.history(t).Events) > 0 })
				if test.keeps {
					s.Close() // waits for the end of the request, which could end the hold
					snapshot, err := s.locks.Status(t.Context(), "r")
					hold, held := snapshot.Owner()
					if err != nil || !held || hold.ProcessID != "p" {
						t.Errorf("held %t by %+v, %v", held, hold, err)
					}
					return
				}
				s.eventually(t, "the lock is released", func() bool { return !s.status(t, "r").IsLocked })
				events := s.history(t).Events
				if diff := cmp.Diff([]string{"released r p", "acquired r p"}, eventLines(events)); diff != "" {
					t.Error("history (-want +got):\n" + diff)
				}
				if got := events[0].Reason; got == nil || *got != string(wire.ReasonClientGone) {
					t.Errorf("released for the reason %v", got)
				}
			})
		})
	}
}

// onBothSlow runs a test on a slowServer of each driver.
func onBothSlow(t *testing.T, test func(t *testing.T, s *server)) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, slowServer(t, driver, sourceOf(t, driver)))
		})
	}
}

// TestClientGoneWhileItWaits: the server sends nothing, not even a status, because no
// response would be true.
func TestClientGoneWhileItWaits(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "r", "p", nil)
		req := s.request(t, "POST", "/locks/request",
			fields{"resource_name": "r", "process_id": "q", "wait_seconds": 60}.json(t))
		conn := s.dial(t, req)
		s.wantWaiters(t, "r", "q")
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %q, %v", got, err)
		}
		s.wantWaiters(t, "r")
		s.release(t, "r", "p").want(t, 200)
		if s.status(t, "r").IsLocked {
			t.Error("the resource was granted to a client that had disconnected")
		}
	})
}

// TestRepeatIsReported: the response to a repeated request says that it is one. The
// repeated request does not renew the hold.
func TestRepeatIsReported(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		first := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", fields{"request_id": "run", "ttl_seconds": 60}))
		again := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", fields{"request_id": "run", "ttl_seconds": 3600}))
		if first.Repeated || !again.Repeated || again.FencingToken != first.FencingToken ||
			*again.ExpiresAt != *first.ExpiresAt {
			t.Errorf("got %+v and then %+v", first, again)
		}
	})
}

// TestKeptPlaceIsReported: a client that respects Retry-After retries in time.
func TestKeptPlaceIsReported(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		held := s.hold(t, "r", "p", 600)
		s.wait(t, "r", "other", nil)
		a := s.wait(t, "r", "q", fields{"request_id": "run", "wait_seconds": 0.3}).answer(t)
		a.wantCode(t, 409, wire.CodeWaitTimeout)
		got := decode[wire.Conflict](t, a.body)
		if a.header.Get("Retry-After") != "1" || got.RetryAfterSeconds == nil || *got.RetryAfterSeconds != 1 {
			t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
		}
		if got.PlaceKeptUntil == nil || got.Position == nil || *got.Position != 2 ||
			got.Holder.FencingToken != held.FencingToken {
			t.Errorf("got %s", a.body)
		}
		a = s.wait(t, "r", "nameless", fields{"wait_seconds": 0.3}).answer(t)
		a.wantCode(t, 409, wire.CodeWaitTimeout)
		got = decode[wire.Conflict](t, a.body)
		if got.PlaceKeptUntil != nil || got.Position != nil ||
			slices.Contains([]string{"", "1"}, a.header.Get("Retry-After")) {
			t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
		}
	})
}

// TestFrozenClientIsSuperseded: the client of the earlier request is connected but reads
// nothing. Its request acquires nothing after the later request has held and released the
// resource, on whichever server.
func TestFrozenClientIsSuperseded(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for round := range 10 {
			name := fmt.Sprint("r", round)
			s.hold(t, name, "other", nil)
			frozen := s.wait(t, name, "p", fields{"request_id": "run-7"})
			repeat := s.ask(t, name, "p", fields{"request_id": "run-7"})
			frozen.answer(t).wantCode(t, 409, wire.CodeSuperseded)
			s.release(t, name, "other").want(t, 200)
			repeat.granted(t)
			s.release(t, name, "p").want(t, 200)
			if s.status(t, name).IsLocked {
				t.Fatal("the superseded request has acquired the resource")
			}
		}
	})
}
