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

// How a connection ends.
const (
	silent    = iota // nothing more is sent, answers are read
	closed           // nothing is read any more
	reset            // as by a machine that has forgotten the connection
	hangingUp        // the number of ways
)

// caller is a client that may hang up while it waits. Whether the server answered it is seen in the server's log.
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
	c := &caller{server: s, process: process, id: strings.ReplaceAll(tb.Name()+process, " ", "-"), conn: conn.(*net.TCPConn)}
	if _, err := fmt.Fprintf(conn, "POST /locks/request HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\n"+
		"Content-Length: %d\r\n\r\n%s", c.id, len(body), body); err != nil {
		tb.Fatal(err)
	}
	return c
}

func (c *caller) hangUp(how int) {
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

// wasGranted waits until the server is through with the request and tells whether it answered with the lock, which then is
// the client's to give up.
func (c *caller) wasGranted(tb testing.TB) bool {
	tb.Helper()
	apptest.Eventually(tb, c.process+"'s request is over", func() bool { return c.server.Output.Status(c.id) != 0 })
	return c.server.Output.Status(c.id) == http.StatusOK
}

// A client hangs up while the lock is on its way to it. It is either told of its hold, or it has none and the next gets it.
func hangUpAsTheLockComes(t *testing.T, f fleet, resource string) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	told := 0
	const rounds = 40
	for round := range rounds {
		h := f.at(random.IntN(3)).acquire(t, resource, "holder")
		request := waiting(resource, fmt.Sprint("first ", round))
		if random.IntN(2) == 0 { // its place is kept, which must not be in the way of the next
			request["request_id"] = "its request"
		}
		first := f.at(random.IntN(3)).call(t, request)
		f.at(0).awaitQueue(t, resource, first.process)
		second := f.at(random.IntN(3)).wait(t, waiting(resource, "second"))
		f.at(0).awaitQueue(t, resource, first.process, "second")

		how, offset, releasing := random.IntN(hangingUp), upTo(random, 4*time.Millisecond), f.at(random.IntN(3))
		var hungUp sync.WaitGroup
		hungUp.Go(func() {
			<-time.After(offset)
			first.hangUp(how)
		})
		<-time.After(2 * time.Millisecond)
		releasing.release(t, h)
		hungUp.Wait()

		granted := first.wasGranted(t)
		if how == silent {
			text, err := io.ReadAll(first.conn)
			if answered := strings.HasPrefix(string(text), "HTTP/1.1 200 "); answered != granted {
				t.Errorf("the server says it granted: %v; the client got %q, %v", granted, text, err)
			}
		}
		by := f.at(0).status(t, resource).Data["locked_by"]
		if granted {
			told++
			if by != first.process {
				t.Errorf("%s was told that it has the lock, which %v has", first.process, by)
			}
			releasing.release(t, hold{resource: resource, process: first.process})
		} else if by == first.process {
			t.Errorf("%s hung up, was told nothing, and has the lock", first.process)
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
	t.Logf("told of the lock: %d of %d; lock taken back: %d times", told, rounds, takenBack(t, f.at(0), resource))
}

// takenBack counts holds that were granted to clients which had gone.
func takenBack(t *testing.T, s *server, resource string) int {
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

// Many clients want one lock, and some of them hang up at any moment. The others are served in the order in which they came,
// and in the end nobody has it, though no hold ever expires.
func hangUpsAtRandom(t *testing.T, f fleet, resource string) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	const clients = 90
	var served service
	var all sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		process := fmt.Sprint("client ", i)
		start, patient, busy := upTo(random, 200*time.Millisecond), upTo(random, 150*time.Millisecond), upTo(random, 3*time.Millisecond)
		server, releasing, how := f.at(random.IntN(3)), f.at(random.IntN(3)), random.IntN(2*hangingUp)
		all.Go(func() {
			<-time.After(start)
			var outcome string
			if how < hangingUp {
				c := server.call(t, waiting(resource, process))
				<-time.After(patient)
				c.hangUp(how)
				outcome = "hung up"
				if c.wasGranted(t) {
					outcome = "hung up when it had the lock"
					releasing.release(t, hold{resource: resource, process: process})
				}
			} else {
				r := server.wait(t, waiting(resource, process)).answer(t)
				if _, granted := holdOf(r); !granted {
					t.Errorf("%s stays, and gets %+v", process, r)
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
	t.Logf("%v, lock taken back: %d times", counts, takenBack(t, f.at(0), resource))
}

func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}
