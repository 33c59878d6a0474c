package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// workload is one kind of load.
type workload struct {
	name  string
	about string // what one operation is
	// prepare makes the server ready. It is nil where nothing is to be done.
	prepare func(c *conn, o options) error
	// operation returns what the connection with the given number does again and again.
	operation func(c *conn, number int) func() error
}

var workloads = []workload{
	{"pairs", "acquire and release an uncontended lock of one's own", nil, pairs},
	{"conflict", "ask for a lock that somebody holds", holdOne, conflict},
	{"handoff", "wait for one's turn at one lock that all share, and release it", nil, handoff},
	{"hold", "pairs, beside -held held locks", holdMany, pairs},
	{"status", "read who holds a lock", holdOne, status},
	{"mixed", "7 pairs to 2 reads of the status and 1 refusal", holdOne, mixed},
}

func acquireBody(resource, process string, more map[string]any) []byte {
	body := map[string]any{"resource_name": resource, "process_id": process}
	for k, v := range more {
		body[k] = v
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

func acquireRequest(c *conn, resource, process string, more map[string]any) []byte {
	return c.request(http.MethodPost, "/locks/request", acquireBody(resource, process, more))
}

func releaseRequest(c *conn, resource, process string) []byte {
	query := url.Values{"resource_name": {resource}, "process_id": {process}}
	return c.request(http.MethodDelete, "/locks/release?"+query.Encode(), nil)
}

func pairs(c *conn, number int) func() error {
	resource, process := fmt.Sprintf("bench/%d", number), fmt.Sprintf("worker-%d", number)
	acquire := acquireRequest(c, resource, process, map[string]any{"ttl_seconds": 60})
	release := releaseRequest(c, resource, process)
	return func() error {
		if err := c.must(acquire, http.StatusOK); err != nil {
			return err
		}
		return c.must(release, http.StatusOK)
	}
}

// heldName is a lock that is held all the time, so that everybody is refused.
const heldName = "bench/held"

// holdOne takes that lock, or has it already.
func holdOne(c *conn, _ options) error {
	request := acquireRequest(c, heldName, "holder", map[string]any{"request_id": "lockbench", "ttl_seconds": 3600})
	return c.must(request, http.StatusOK)
}

func conflict(c *conn, number int) func() error {
	request := acquireRequest(c, heldName, fmt.Sprintf("worker-%d", number), nil)
	return func() error { return c.must(request, http.StatusConflict) }
}

func status(c *conn, _ int) func() error {
	request := c.request(http.MethodGet, "/locks/status?resource_name="+url.QueryEscape(heldName), nil)
	return func() error { return c.must(request, http.StatusOK) }
}

func mixed(c *conn, number int) func() error {
	pair, read, refusal := pairs(c, number), status(c, number), conflict(c, number)
	chance := rand.New(rand.NewPCG(uint64(number), 0))
	return func() error {
		switch n := chance.IntN(10); {
		case n < 7:
			return pair()
		case n < 9:
			return read()
		default:
			return refusal()
		}
	}
}

func handoff(c *conn, number int) func() error {
	process := fmt.Sprintf("worker-%d", number)
	acquire := acquireRequest(c, "bench/handoff", process, map[string]any{"ttl_seconds": 60, "wait_seconds": 60})
	release := releaseRequest(c, "bench/handoff", process)
	return func() error {
		if err := c.must(acquire, http.StatusOK); err != nil {
			return err
		}
		return c.must(release, http.StatusOK)
	}
}

// holdMany fills the server up to the wanted number of held locks, and leaves those alone that it finds.
func holdMany(c *conn, o options) error {
	const fillers = 64
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		fault error
	)
	for filler := range fillers {
		all.Go(func() {
			own, err := dial(o.url)
			if err == nil {
				defer own.close()
				for i := filler; i < o.held && err == nil; i += fillers {
					// The request id makes it the same hold when it is there already.
					err = own.must(acquireRequest(own, fmt.Sprintf("bench/filled/%d", i), "filler", map[string]any{
						"request_id": "lockbench", "ttl_seconds": (24 * time.Hour).Seconds(),
					}), http.StatusOK)
				}
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				fault = err
			}
		})
	}
	all.Wait()
	return fault
}
