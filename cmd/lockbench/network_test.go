package main

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// networkDelay is what the network of the section adds to a round trip.
const networkDelay = time.Millisecond

// network measures a server with Postgres behind a network.
func (s *suite) network(t *testing.T) string {
	db := s.postgres(t)
	far, err := url.Parse(db.url)
	must(t, err)
	far.Host = delayed(t, far.Host, networkDelay)
	near, distant := roundTrip(t, db.url), roundTrip(t, far.String())
	on := s.start(t, far.String())

	const kind = "Postgres over a network"
	table := newTable("workload", "connections", "a second", "p50 ms", "p99 ms", "p99.9 ms")
	add := func(workload string, connections int) {
		r := s.compare(t, kind, on, workload, options{connections: connections}).Server
		table.row(workload, grouped(connections), grouped(r.PerSecond), fixed(r.P50), fixed(r.P99), fixed(r.P999))
	}
	for _, n := range s.overNetwork {
		add("pairs", n)
	}
	add("handoff", s.few)
	return fmt.Sprintf("\n## With Postgres over a network\n\n"+
		"A proxy before Postgres delays every answer by %v. A `SELECT 1` took %.2f ms through it,\n"+
		"and %.2f ms without.\n\n", networkDelay, distant, near) + table.String()
}

// roundTrip returns the median time of a statement that does nothing, in milliseconds.
func roundTrip(t *testing.T, databaseURL string) float64 {
	db := openPostgres(t, databaseURL)
	took := make([]float64, 200)
	for i := range took {
		begun := time.Now()
		_, err := db.Exec("SELECT 1")
		must(t, err)
		took[i] = time.Since(begun).Seconds() * 1000
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// delayed returns the address of a proxy. It delays the data of the upstream server
// without reducing the throughput: any number of pieces may be delayed at once. It does
// not delay the other direction, because Go's timers are too coarse for half a
// millisecond in each. A client that waits for answers sees no difference.
func delayed(t *testing.T, upstream string, delay time.Duration) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait() // the clients have ended
	})
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			serving.Go(func() { pass(client, server, 0) })
			serving.Go(func() { pass(server, client, delay) })
		}
	})
	return listener.Addr().String()
}

// pass forwards data from one connection to the other until it ends, and then closes
// both.
func pass(from, to net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range pieces {
			if wait := time.Until(p.due); wait > 0 {
				<-time.After(wait)
			}
			_, _ = to.Write(p.data) // if that fails, reading will too
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			break
		}
		pieces <- piece{time.Now().Add(delay), slices.Clone(buffer[:n])}
	}
	close(pieces)
	writing.Wait()
	_ = from.Close()
	_ = to.Close()
}
