package api_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/wire"
)

// testTimeout is how long a test waits for an expected event, long enough for a busy
// machine.
const testTimeout = 30 * time.Second

// pending is a request without a response so far.
type pending struct {
	req        *http.Request
	disconnect context.CancelFunc
	done       chan struct{} // closed after the response, or when none will come
	a          answer
	err        error
}

// send sends a request and does not wait for its response.
func (s *server) send(t *testing.T, req *http.Request) *pending {
	t.Helper()
	ctx, disconnect := context.WithCancel(req.Context())
	p := &pending{req: req.WithContext(ctx), disconnect: disconnect, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		response, err := s.Client().Transport.RoundTrip(p.req)
		if err == nil {
			p.a, err = readAll(response)
		}
		p.err = err
	}()
	// Before the server closes, because that waits for the request.
	t.Cleanup(func() {
		disconnect()
		<-p.done
	})
	return p
}

// answer waits for the response and checks it against the document.
func (p *pending) answer(t *testing.T) answer {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(testTimeout):
		t.Fatal("a waiting request gets no response")
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	check(t, p.req, p.a)
	return p.a
}

// granted waits for the lock.
func (p *pending) granted(t *testing.T) wire.Acquired {
	t.Helper()
	return dataOf[wire.Acquired](t, p.answer(t))
}

// stillWaits fails the test if there is a response.
func (p *pending) stillWaits(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("the request no longer waits: %d %s, %v", p.a.status, p.a.body, p.err)
	default:
	}
}

// ask sends an acquire with the maximum wait_seconds, unless the additional fields state
// another.
func (s *server) ask(t *testing.T, resource, process string, more fields) *pending {
	t.Helper()
	body := fields{"resource_name": resource, "process_id": process, "wait_seconds": maxWait.Seconds()}
	maps.Copy(body, more)
	return s.send(t, s.request(t, http.MethodPost, "/locks/request", body.json(t)))
}

// wait is like ask, but returns when the request is the last in the queue.
func (s *server) wait(t *testing.T, resource, process string, more fields) *pending {
	t.Helper()
	before := len(s.waiters(t, resource))
	p := s.ask(t, resource, process, more)
	s.eventually(t, "the request waits", func() bool {
		p.stillWaits(t)
		now := s.waiters(t, resource)
		return len(now) > before && now[len(now)-1] == process
	})
	return p
}

// queue returns a page of the queue.
func (s *server) queue(t *testing.T, resource string, more ...string) wire.Queue {
	t.Helper()
	return dataOf[wire.Queue](t, s.get(t, "/locks/queue", append([]string{"resource_name", resource}, more...)...))
}

// waiters returns the processes that wait, in their order.
func (s *server) waiters(t *testing.T, resource string) []string {
	t.Helper()
	names := []string{}
	for i, w := range s.queue(t, resource).Waiters {
		if w.Position != i+1 {
			t.Errorf("%s is at the position %d, the %dth in the list", w.ProcessID, w.Position, i+1)
		}
		names = append(names, w.ProcessID)
	}
	return names
}

// eventually polls until the condition is true. Each poll is a request, so that it does
// not use the processor all the time.
func (s *server) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within the timeout: %s", what)
		}
	}
}

// wantWaiters waits until exactly these processes wait, in this order.
func (s *server) wantWaiters(t *testing.T, resource string, processes ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(testTimeout); ; {
		if got = s.waiters(t, resource); slices.Equal(got, processes) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q wait, want %q", got, processes)
		}
	}
}

// wantHolder fails the test unless the resource has this hold.
func (s *server) wantHolder(t *testing.T, resource string, hold wire.Acquired) {
	t.Helper()
	got := s.status(t, resource)
	if got.LockedBy == nil || *got.LockedBy != hold.ProcessID || *got.FencingToken != hold.FencingToken {
		t.Errorf("status %+v, want it held as %+v", got, hold)
	}
}
