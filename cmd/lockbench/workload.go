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
	name  string
	about string // what one operation is
	// prepare makes the server ready. It is nil where nothing is to be done.
	prepare func(c *conn, o options, progress io.Writer) error
	// operation returns what the connection with the given number does again and again.
	operation func(c *conn, number int, r *round) operation
}

// operation is told when it begins and returns how long that took of it which the workload times; below 0, nothing.
type operation func(from time.Time) (took time.Duration, err error)

// whole times all of it.
func whole(do func() error) operation {
	return func(from time.Time) (time.Duration, error) {
		err := do()
		return time.Since(from), err
	}
}

// round is what the connections share while they are measured.
type round struct {
	begun    time.Time
	released atomic.Int64 // when the lock of the workload handoff was last given back, in nanoseconds since begun; 0: not yet
}

var workloads = []workload{
	{"pairs", "acquire and release an uncontended lock of one's own", nil, pairs},
	{"conflict", "ask for a lock that somebody holds", holdOne, conflict},
	{"handoff", "wait for one's turn at one lock that all share, and release it; timed from a release to the next one's turn", nil, handoff},
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

// heldName is a lock that is held all the time, so that everybody is refused.
const heldName = "bench/held"

// holdOne takes that lock, or has it already.
func holdOne(c *conn, _ options, _ io.Writer) error {
	request := acquireRequest(c, heldName, "holder", map[string]any{"request_id": "lockbench", "ttl_seconds": 3600})
	return c.must(request, http.StatusOK)
}

func conflict(c *conn, number int, _ *round) operation { return whole(refusal(c, number)) }

func refusal(c *conn, number int) func() error {
	request := acquireRequest(c, heldName, fmt.Sprintf("worker-%d", number), nil)
	return func() error { return c.must(request, http.StatusConflict) }
}

func status(c *conn, _ int, _ *round) operation { return whole(look(c)) }

func look(c *conn) func() error {
	request := c.request(http.MethodGet, "/locks/status?resource_name="+url.QueryEscape(heldName), nil)
	return func() error { return c.must(request, http.StatusOK) }
}

func mixed(c *conn, number int, _ *round) operation {
	pair, look, refusal := pair(c, number), look(c), refusal(c, number)
	chance := rand.New(rand.NewPCG(uint64(number), 0))
	return whole(func() error {
		switch n := chance.IntN(10); {
		case n < 7:
			return pair()
		case n < 9:
			return look()
		default:
			return refusal()
		}
	})
}

// handoff times the hand-over itself, from the moment at which one sends its release to that at which another one is told
// that the lock is its own: how long each waits for its turn says more about the number of those who wait.
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

// holdMany fills the server up to the wanted number of held locks, and leaves those alone that it finds.
func holdMany(_ *conn, o options, progress io.Writer) error {
	return fill(o.url, o.held, progress, func(c *conn, i int) []byte {
		// The request id makes it the same hold when it is there already.
		return acquireRequest(c, fmt.Sprintf("bench/filled/%d", i), "filler", map[string]any{
			"request_id": "lockbench", "ttl_seconds": (24 * time.Hour).Seconds(),
		})
	})
}

// fill has so many acquires granted as fast as the server can: by many connections, each of which sends some requests at
// once.
func fill(server *url.URL, locks int, progress io.Writer, acquire func(c *conn, i int) []byte) error {
	const connections, atOnce = 256, 16
	var (
		all    sync.WaitGroup
		begun  atomic.Int64
		done   atomic.Int64
		faults = make([]error, connections)
	)
	defer showProgress(progress, fmt.Sprintf("filling in %d locks", locks), &done)()
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
