package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// holding measures a server with many held locks.
func (s *suite) holding(t *testing.T) string {
	speed := newTable("held", "database", "pairs a second", "p50 ms", "p99 ms", "p99.9 ms", "resident memory")
	list := newTable("held", "database", "start-up", "list", "a second", "size", "memory for it")
	s.each(t, func(t *testing.T, kind string, on *server, db database) {
		for _, held := range s.held {
			r := s.compare(t, kind, on, "hold", options{connections: s.many, held: held}).Server
			speed.row(grouped(held), kind, grouped(r.PerSecond), fixed(r.P50), fixed(r.P99), fixed(r.P999),
				megabytes(on.Memory(t).Resident))

			on.stop(t)
			on = s.start(t, db.url)
			before := on.Memory(t).Peak
			took, size := listAll(t, on, held)
			list.row(grouped(held), kind,
				on.startUp.Round(time.Millisecond).String(), took.Round(time.Millisecond).String(),
				grouped(float64(held)/took.Seconds()), megabytes(size), megabytes(on.Memory(t).Peak-before))
		}
	})
	return fmt.Sprintf("\n## With many held locks\n\nPairs at %d connections while they are held:\n\n", s.many) +
		speed.String() + "\nStart of a server with them, and a list of all of them (`/locks/all-locked`):\n\n" +
		list.String()
}

// listAll reads the list of all locks without storing it.
func listAll(t *testing.T, on *server, held int) (took time.Duration, size int64) {
	begun := time.Now()
	response, err := http.Get(on.url.String() + "/locks/all-locked")
	must(t, err)
	defer response.Body.Close()
	start := make([]byte, 200)
	n, err := io.ReadFull(response.Body, start)
	if err != nil && err != io.ErrUnexpectedEOF { //nolint:errorlint // ReadFull returns it as it is
		t.Fatal(err)
	}
	if want := fmt.Appendf(nil, `"total_locks":%d,`, held); !bytes.Contains(start[:n], want) {
		t.Fatalf("the list starts with %s, which does not contain %s", start[:n], want)
	}
	size, err = io.Copy(io.Discard, response.Body)
	must(t, err)
	return time.Since(begun), size + int64(n)
}
