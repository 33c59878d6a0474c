package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// workload is one kind of load.
type workload struct {
	name string
	// prepare prepares the server. It is nil if the workload needs no preparation.
	prepare func(c *conn, o options, progress io.Writer) error
	// operation returns the operation that the connection with the given number repeats.
	operation func(c *conn, number int, r *round) operation
}

// operation runs one iteration that is due at from. It returns the latency to record, or
// a negative duration to record none.
type operation func(from time.Time) (took time.Duration, err error)

// whole returns an operation that records its whole duration.
func whole(do func() error) operation {
	return func(from time.Time) (time.Duration, error) {
		err := do()
		return time.Since(from), err
	}
}

// round is what the connections of a round share.
type round struct {
	begun    time.Time
	released atomic.Int64 // the last release of the workload handoff, in nanoseconds since begun; 0: none
}

var workloads = []workload{
	{"pairs", nil, pairs},            // acquires and releases an uncontended lock
	{"conflict", holdOne, conflict},  // requests a lock that another process holds
	{"handoff", nil, handoff},        // waits for a turn at one lock that all connections share, and releases it
	{"hold", holdMany, pairs},        // pairs, while -held locks are held
	{"status", holdOne, statusReads}, // reads the holder of a lock
	{"mixed", holdOne, mixed},        // 7 pairs to 2 status reads and 1 refusal
}

func acquireBody(resource, process string, more map[string]any) []byte {
	body := map[string]any{"resource_name": resource, "process_id": process}
	for k, v := range more {
		body[k] = v
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers can be encoded
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

func pairs(c *conn, number int, _ *round) operation { return whole(pair(c, number)) }

func pair(c *conn, number int) func() error {
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

// heldName is a lock that is always held, so that every request for it is refused.
const heldName = "bench/held"

// holdOne acquires the lock heldName, or retries the request that has it already.
func holdOne(c *conn, _ options, _ io.Writer) error {
	request := acquireRequest(c, heldName, "holder", map[string]any{"request_id": "lockbench", "ttl_seconds": 3600})
	return c.must(request, http.StatusOK)
}

func conflict(c *conn, number int, _ *round) operation { return whole(refusal(c, number)) }

func refusal(c *conn, number int) func() error {
	request := acquireRequest(c, heldName, fmt.Sprintf("worker-%d", number), nil)
	return func() error { return c.must(request, http.StatusConflict) }
}

func statusReads(c *conn, _ int, _ *round) operation { return whole(statusRead(c)) }

func statusRead(c *conn) func() error {
	request := c.request(http.MethodGet, "/locks/status?resource_name="+url.QueryEscape(heldName), nil)
	return func() error { return c.must(request, http.StatusOK) }
}

func mixed(c *conn, number int, _ *round) operation {
	pair, statusRead, refusal := pair(c, number), statusRead(c), refusal(c, number)
	rng := rand.New(rand.NewPCG(uint64(number), 0))
	return whole(func() error {
		switch n := rng.IntN(10); {
		case n < 7:
			return pair()
		case n < 9:
			return statusRead()
		default:
			return refusal()
		}
	})
}

// handoff records the hand-over: the time from the sending of a release until the next
// holder reads its grant. The time that a connection waits for its turn would mostly show
// the number of waiters.
func handoff(c *conn, number int, r *round) operation {
	process := fmt.Sprintf("worker-%d", number)
	acquire := acquireRequest(c, "bench/handoff", process, map[string]any{"ttl_seconds": 60, "wait_seconds": 60})
	release := releaseRequest(c, "bench/handoff", process)
	return func(time.Time) (time.Duration, error) {
		if err := c.must(acquire, http.StatusOK); err != nil {
			return 0, err
		}
		now, took := time.Since(r.begun), time.Duration(-1)
		if released := r.released.Load(); released > 0 {
			took = now - time.Duration(released)
		}
		r.released.Store(int64(now))
		return took, c.must(release, http.StatusOK)
	}
}

// holdMany acquires locks until the wanted number of them is held.
func holdMany(_ *conn, o options, progress io.Writer) error {
	return fill(o.url, o.held, progress, func(c *conn, i int) []byte {
		// With this request_id a repetition of the request gets the same hold.
		return acquireRequest(c, fmt.Sprintf("bench/filled/%d", i), "filler", map[string]any{
			"request_id": "lockbench", "ttl_seconds": (24 * time.Hour).Seconds(),
		})
	})
}

// fill makes the given number of acquires as fast as the server permits. It uses many
// connections, each of which sends several requests at once.
func fill(server *url.URL, locks int, progress io.Writer, acquire func(c *conn, i int) []byte) error {
	const connections, atOnce = 256, 16
	var (
		all    sync.WaitGroup
		begun  atomic.Int64
		done   atomic.Int64
		faults = make([]error, connections)
	)
	defer showProgress(progress, fmt.Sprintf("acquiring %d locks", locks), &done)()
	for i := range faults {
		all.Go(func() {
			faults[i] = func() error {
				c, err := dial(server)
				if err != nil {
					return err
				}
				defer c.close()
				for {
					last := begun.Add(atOnce)
					var requests []byte
					for n := last - atOnce; n < min(last, int64(locks)); n++ {
						requests = append(requests, acquire(c, int(n))...)
					}
					if len(requests) == 0 {
						return nil
					}
					if err := c.send(requests); err != nil {
						return err
					}
					for range min(last, int64(locks)) - (last - atOnce) {
						if err := c.want(http.StatusOK); err != nil {
							return err
						}
						done.Add(1)
					}
				}
			}()
		})
	}
	all.Wait()
	return errors.Join(faults...)
}
