package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"resource-lock-manager/internal/apptest"
)

// stall is the longest acceptable wait for a free lock.
const stall = 50 * time.Millisecond

// observedPairs is the workload pairs. It calls observe with the latency of each pair.
func observedPairs(observe func(took time.Duration)) workload {
	return workload{name: "pairs", operation: func(c *conn, number int, r *round) operation {
		do := pairs(c, number, r)
		return func(from time.Time) (time.Duration, error) {
			took, err := do(from)
			observe(took)
			return took, err
		}
	}}
}

// steady measures pairs that fall due at half the rate of a closed loop.
func (s *suite) steady(t *testing.T) string {
	table := newTable("database", "pairs a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms",
		fmt.Sprintf("over %v", stall))
	s.each(t, func(t *testing.T, kind string, on *server, _ database) {
		rate := s.capacityOf(t, kind, on, s.many) / 2
		var stalled atomic.Int64
		w := observedPairs(func(took time.Duration) {
			if took > stall {
				stalled.Add(1)
			}
		})
		o := options{url: on.url, connections: s.many, duration: 4 * s.length, rate: rate}
		r, err := measure(w, o, "", io.Discard)
		must(t, err)
		table.row(kind, grouped(rate), fixed(r.P50), fixed(r.P99), fixed(r.P999), fixed(r.Max),
			fmt.Sprintf("%s of %s", grouped(stalled.Load()), grouped(r.Operations)))
	})
	return fmt.Sprintf("\n## At a steady rate\n\n"+
		"Pairs at %d connections fall due at half the rate of a closed loop, for %v. Their latency\n"+
		"counts from the time at which they are due.\n\n", s.many, 4*s.length) + table.String()
}

// The phases of a sweep.
const (
	calm = iota
	expired
	sweeping
	swept
	phases
)

// sweep measures pairs at a steady rate while many locks that expired within one second
// are swept.
func (s *suite) sweep(t *testing.T) string {
	table := newTable("database", "pairs a second", "when", "seconds", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
	s.each(t, func(t *testing.T, kind string, on *server, _ database) {
		rate := s.capacityOf(t, kind, on, s.few) / 4
		expiry := time.Now().Add(s.expireAfter)
		name := func(i int) string { return fmt.Sprintf("expiring/%d", i) }
		must(t, fill(on.url, s.expiring, io.Discard, func(c *conn, i int) []byte {
			end := expiry.Add(time.Duration(float64(i) / float64(s.expiring) * float64(time.Second)))
			return acquireRequest(c, name(i), "expiring", map[string]any{"ttl_seconds": time.Until(end).Seconds()})
		}))
		if time.Until(expiry) < s.length {
			t.Fatalf("acquiring %d locks took too long: no time is left to measure before they expire", s.expiring)
		}

		var (
			mu         sync.Mutex
			histograms [phases]*hdrhistogram.Histogram
			begun      [phases + 1]time.Time
			phase      = calm
		)
		for i := range histograms {
			histograms[i] = newHistogram()
		}
		enter := func(next int) {
			mu.Lock()
			defer mu.Unlock()
			phase, begun[next] = next, time.Now()
		}
		enter(calm)
		w := observedPairs(func(took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			_ = histograms[phase].RecordValue(max(1, took.Microseconds()))
		})
		until := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return phase == swept
		}
		var load sync.WaitGroup
		var fault error
		load.Go(func() {
			o := options{url: on.url, connections: s.few, duration: time.Hour, rate: rate, until: until}
			_, fault = measure(w, o, "", io.Discard)
		})
		defer load.Wait()
		defer enter(swept)
		<-time.After(time.Until(expiry))
		enter(expired)
		waitUntilSwept(t, on, name(0))
		enter(sweeping)
		waitUntilSwept(t, on, name(s.expiring-1))
		enter(swept)
		load.Wait()
		must(t, fault)
		begun[phases] = time.Now()
		for _, p := range []struct {
			phase int
			name  string
		}{{calm, "before they expire"}, {sweeping, "while they are swept"}} {
			h := histograms[p.phase]
			ms := func(quantile float64) string { return fixed(float64(h.ValueAtQuantile(quantile)) / 1000) }
			length := begun[p.phase+1].Sub(begun[p.phase]).Seconds()
			table.row(kind, grouped(rate), p.name, fixed(length), ms(50), ms(99), ms(99.9), ms(100))
		}
	})
	return fmt.Sprintf("\n## While %s locks are swept\n\n"+
		"They expire within one second. Pairs at %d connections fall due at a quarter of the rate\n"+
		"of a closed loop.\n\n", grouped(s.expiring), s.few) + table.String()
}

// waitUntilSwept returns when the end of a lock is in the history.
func waitUntilSwept(t *testing.T, on *server, resource string) {
	c, err := dial(on.url)
	must(t, err)
	defer c.close()
	request := c.request(http.MethodGet, "/locks/history?limit=1&resource_name="+resource, nil)
	deadline := time.After(10 * apptest.Timeout)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		must(t, c.send(request))
		_, body, err := c.receive()
		must(t, err)
		if bytes.Contains(body, []byte(`"event":"expired"`)) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s was not swept: %s", resource, body)
		case <-ticker.C:
		}
	}
}

// idleServer measures a server without requests.
func (s *suite) idleServer(t *testing.T) string {
	table := newTable("database", "start-up", "resident memory", fmt.Sprintf("CPU in %v", s.idle))
	s.each(t, func(t *testing.T, kind string, on *server, _ database) {
		before := on.CPU(t)
		<-time.After(s.idle)
		table.row(kind, on.startUp.Round(time.Millisecond).String(), megabytes(on.Memory(t).Resident),
			(on.CPU(t) - before).String())
	})
	return "\n## Idle\n\n" + table.String()
}
