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

// stall is longer than anybody should wait for a lock that is free.
const stall = 50 * time.Millisecond

// watched is the workload pairs, of which somebody is told how long each took.
func watched(tell func(took time.Duration)) workload {
	return workload{name: "pairs", operation: func(c *conn, number int, r *round) operation {
		do := pairs(c, number, r)
		return func(from time.Time) (time.Duration, error) {
			took, err := do(from)
			tell(took)
			return took, err
		}
	}}
}

// steady measures pairs that fall due at half the rate at which the server could do them.
func (s *suite) steady(t *testing.T) string {
	table := newTable("database", "pairs a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", fmt.Sprintf("over %v", stall))
	s.each(t, func(t *testing.T, kind string, on *server, _ database) {
		rate := s.capacityOf(t, kind, on, s.many) / 2
		var stalled atomic.Int64
		w := watched(func(took time.Duration) {
			if took > stall {
				stalled.Add(1)
			}
		})
		r, err := measure(w, options{url: on.url, connections: s.many, duration: 4 * s.length, rate: rate}, "", io.Discard)
		must(t, err)
		table.row(kind, grouped(rate), fixed(r.P50), fixed(r.P99), fixed(r.P999), fixed(r.Max),
			fmt.Sprintf("%s of %s", grouped(stalled.Load()), grouped(r.Operations)))
	})
	return fmt.Sprintf("\n## At a steady rate\n\nPairs at %d connections fall due at half of what a closed loop did, for %v; latency counts "+
		"from then.\n\n", s.many, 4*s.length) + table.String()
}

// The phases of a sweep.
const (
	calm = iota
	expired
	sweeping
	over
	phases
)

// sweep measures pairs at a steady rate while a great many locks are swept that expired within one second.
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
			t.Fatalf("it took too long to fill in %d locks: no calm is left before they expire", s.expiring)
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
		w := watched(func(took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			_ = histograms[phase].RecordValue(max(1, took.Microseconds()))
		})
		until := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return phase == over
		}
		var load sync.WaitGroup
		var fault error
		load.Go(func() {
			_, fault = measure(w, options{url: on.url, connections: s.few, duration: time.Hour, rate: rate, until: until}, "", io.Discard)
		})
		defer load.Wait()
		defer enter(over)
		<-time.After(time.Until(expiry))
		enter(expired)
		waitUntilSwept(t, on, name(0))
		enter(sweeping)
		waitUntilSwept(t, on, name(s.expiring-1))
		enter(over)
		load.Wait()
		must(t, fault)
		begun[phases] = time.Now()
		for _, p := range []struct {
			phase int
			name  string
		}{{calm, "before they expire"}, {sweeping, "while they are swept"}} {
			h := histograms[p.phase]
			ms := func(quantile float64) string { return fixed(float64(h.ValueAtQuantile(quantile)) / 1000) }
			table.row(kind, grouped(rate), p.name, fixed(begun[p.phase+1].Sub(begun[p.phase]).Seconds()), ms(50), ms(99), ms(99.9), ms(100))
		}
	})
	return fmt.Sprintf("\n## While %s locks are swept\n\nThey expire within one second, and pairs at %d connections go on falling due at "+
		"a quarter of what a closed loop did.\n\n", grouped(s.expiring), s.few) + table.String()
}

// waitUntilSwept returns when the end of a lock has been recorded.
func waitUntilSwept(t *testing.T, on *server, resource string) {
	c, err := dial(on.url)
	must(t, err)
	defer c.close()
	request := c.request(http.MethodGet, "/locks/history?limit=1&resource_name="+resource, nil)
	deadline := time.After(10 * apptest.Patience)
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
			t.Fatalf("%s is not swept: %s", resource, body)
		case <-ticker.C:
		}
	}
}

// idleServer measures a server that nobody asks for anything.
func (s *suite) idleServer(t *testing.T) string {
	table := newTable("database", "start-up", "resident memory", fmt.Sprintf("CPU in %v", s.idle))
	s.each(t, func(t *testing.T, kind string, on *server, _ database) {
		before := on.CPU(t)
		<-time.After(s.idle)
		table.row(kind, on.startUp.Round(time.Millisecond).String(), megabytes(on.Memory(t).Resident), (on.CPU(t) - before).String())
	})
	return "\n## Idle\n\n" + table.String()
}
