package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
)

// These are the ways to end a connection.
const (
	silent  = iota // closes the sending half, and reads the answer
	closed         // reads nothing any more
	reset          // as a machine does that does not know the connection
	endings        // the number of ways
)

// caller is a client that may disconnect while it waits. The server's log shows whether
// the server answered it.
type caller struct {
	server  *server
	process string
	id      string
	conn    *net.TCPConn
}

// call sends a request that waits.
func (s *server) call(tb testing.TB, request map[string]any) *caller {
	tb.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	body, _ := json.Marshal(request)
	process := request["process_id"].(string)
	id := strings.ReplaceAll(tb.Name()+process, " ", "-")
	_, err = fmt.Fprintf(conn,
		"POST /locks/request HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\n"+
			"Content-Length: %d\r\n\r\n%s", id, len(body), body)
	must(tb, err)
	return &caller{server: s, process: process, id: id, conn: conn.(*net.TCPConn)}
}

func (c *caller) disconnect(how int) {
	switch how {
	case silent:
		_ = c.conn.CloseWrite()
	case closed:
		_ = c.conn.Close()
	case reset:
		_ = c.conn.SetLinger(0)
		_ = c.conn.Close()
	}
}

// wasGranted waits until the server has finished the request. It reports whether the
// answer was a grant, which the client then has to release.
func (c *caller) wasGranted(tb testing.TB) bool {
	tb.Helper()
	apptest.Eventually(tb, c.process+"'s request has ended", func() bool { return c.server.Output.Status(c.id) != 0 })
	return c.server.Output.Status(c.id) == http.StatusOK
}

// disconnectDuringGrant disconnects a client while it is granted the lock. Either the
// client's answer is the grant, or the client has no hold and the next waiter is granted
// the lock.
func disconnectDuringGrant(t *testing.T, f fleet, resource string) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	answered := 0
	const rounds = 40
	for round := range rounds {
		h := f.at(random.IntN(3)).acquire(t, resource, "holder")
		request := waiting(resource, fmt.Sprint("first ", round))
		if random.IntN(2) == 0 { // the kept place must not delay the next waiter
			request["request_id"] = "its request"
		}
		first := f.at(random.IntN(3)).call(t, request)
		f.at(0).awaitQueue(t, resource, first.process)
		second := f.at(random.IntN(3)).wait(t, waiting(resource, "second"))
		f.at(0).awaitQueue(t, resource, first.process, "second")

		how, offset, releasing := random.IntN(endings), upTo(random, 4*time.Millisecond), f.at(random.IntN(3))
		var disconnecting sync.WaitGroup
		disconnecting.Go(func() {
			<-time.After(offset)
			first.disconnect(how)
		})
		<-time.After(2 * time.Millisecond)
		releasing.release(t, h)
		disconnecting.Wait()

		granted := first.wasGranted(t)
		if how == silent {
			text, err := io.ReadAll(first.conn)
			if answered := strings.HasPrefix(string(text), "HTTP/1.1 200 "); answered != granted {
				t.Errorf("the server granted: %v; the client got %q, %v", granted, text, err)
			}
		}
		by := f.at(0).status(t, resource).Data["locked_by"]
		if granted {
			answered++
			if by != first.process {
				t.Errorf("%s was granted the lock, but %v holds it", first.process, by)
			}
			releasing.release(t, hold{resource: resource, process: first.process})
		} else if by == first.process {
			t.Errorf("%s disconnected, got no grant, and holds the lock", first.process)
		}
		h = second.granted(t)
		if granted || request["request_id"] == nil {
			f.drain(t, h)
			continue
		}
		third := f.at(random.IntN(3)).wait(t, waiting(resource, "third"))
		f.at(0).awaitQueue(t, resource, "third")
		back := f.at(random.IntN(3)).wait(t, request)
		f.at(0).awaitQueue(t, resource, first.process, "third")
		f.drain(t, h, back, third)
	}
	t.Logf("answered with the lock: %d of %d; grants abandoned: %d", answered, rounds,
		abandonedGrants(t, f.at(0), resource))
}

// abandonedGrants returns the number of holds that were granted to clients that had
// disconnected.
func abandonedGrants(t *testing.T, s *server, resource string) int {
	t.Helper()
	r := s.get(t, "/locks/history?"+url.Values{"resource_name": {resource}, "limit": {"1000"}}.Encode())
	count := 0
	for _, entry := range r.Data["events"].([]any) {
		if e := entry.(map[string]any); e["event"] == "released" && e["reason"] == "client_gone" {
			count++
		}
	}
	return count
}

// randomDisconnects has many clients request one lock. Some of them disconnect at random
// times. The others are granted the lock in the order in which they were queued. In the
// end no process holds it, although no hold expires.
func randomDisconnects(t *testing.T, f fleet, resource string) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	const clients = 90
	var served grantLog
	var all sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		process := fmt.Sprint("client ", i)
		start, stays := upTo(random, 200*time.Millisecond), upTo(random, 150*time.Millisecond)
		busy := upTo(random, 3*time.Millisecond)
		server, releasing, how := f.at(random.IntN(3)), f.at(random.IntN(3)), random.IntN(2*endings)
		all.Go(func() {
			<-time.After(start)
			var outcome string
			if how < endings {
				c := server.call(t, waiting(resource, process))
				<-time.After(stays)
				c.disconnect(how)
				outcome = "disconnected"
				if c.wasGranted(t) {
					outcome = "disconnected with the lock"
					releasing.release(t, hold{resource: resource, process: process})
				}
			} else {
				r := server.wait(t, waiting(resource, process)).answer(t)
				if _, granted := holdOf(r); !granted {
					t.Errorf("%s did not disconnect, and got %+v", process, r)
					return
				}
				outcome = "served"
				served.begin(t, r)
				<-time.After(busy)
				served.end()
				releasing.release(t, hold{resource: resource, process: process})
			}
			mu.Lock()
			counts[outcome]++
			mu.Unlock()
		})
	}
	all.Wait()
	f.at(0).wantQueue(t, resource)
	f.at(1).awaitFree(t, resource)
	served.wantInOrder(t)
	t.Logf("%v, grants abandoned: %d", counts, abandonedGrants(t, f.at(0), resource))
}

func upTo(random *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(limit)))
}
