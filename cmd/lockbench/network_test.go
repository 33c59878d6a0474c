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

// away is what the network of the section adds to a round trip.
const away = time.Millisecond

// network measures a server whose Postgres is a network away.
func (s *suite) network(t *testing.T) string {
	db := s.postgres(t)
	far, err := url.Parse(db.url)
	must(t, err)
	far.Host = slowly(t, far.Host, away)
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
	return fmt.Sprintf("\n## With Postgres over a network\n\nA proxy before Postgres hands on everything that it answers %v later. "+
		"A `SELECT 1` took %.2f ms through it, and %.2f ms without.\n\n", away, distant, near) + table.String()
}

// roundTrip is the median time of a statement that does nothing, in milliseconds.
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

// slowly returns the address of a proxy that hands connections on. What comes back is late by the delay, and not slower for
// it: any number of pieces may be under way. The way there takes no time, because Go's timers are too coarse for half of a
// millisecond each way, and whoever waits for answers sees no difference.
func slowly(t *testing.T, upstream string, delay time.Duration) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait() // whoever used it has ended
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

// pass hands on what comes from one connection to the other, until there is no more, and then ends both.
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
