package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// TestTheWholeListIsStreamed: without parameters the list has no limit.
func TestTheWholeListIsStreamed(t *testing.T) {
	const many = 3000
	onBoth(t, func(t *testing.T, s *server) {
		held := map[int64]wire.Acquired{}
		for _, h := range s.acquireMany(t, numbered("r", many), "p", "", 0) {
			held[h.LockID] = h
		}
		a := s.get(t, "/locks/all-locked")
		list := dataOf[wire.AllLocked](t, a)
		wantMessage(t, a, fmt.Sprintf("Retrieved %d active locks", many))
		if list.TotalLocks != many || len(list.Locks) != many || len(held) != many {
			t.Fatalf("total_locks %d for %d locks, of %d", list.TotalLocks, len(list.Locks), len(held))
		}
		if got := a.header.Get("Content-Length"); got != "" {
			t.Errorf("the length %s was known before the end", got)
		}
		whole := []string{}
		for i, l := range list.Locks {
			whole = append(whole, l.ResourceName)
			h := held[l.ID]
			want := wire.Lock{
				ID: h.LockID, ResourceName: h.ResourceName,
				Hold: wire.Hold{ProcessID: "p", Times: h.Times, FencingToken: h.FencingToken},
			}
			if diff := cmp.Diff(want, l, s.equalHolds()); diff != "" {
				t.Fatalf("lock %d (-acquired +listed):\n%s", i, diff)
			}
			if i > 0 && l.ID <= list.Locks[i-1].ID {
				t.Fatalf("id %d comes after %d", l.ID, list.Locks[i-1].ID)
			}
		}
		names := []string{}
		for _, page := range s.pages(t, 1000, func(int) {}) {
			names = append(names, page...)
		}
		if diff := cmp.Diff(whole, names); diff != "" {
			t.Error("page by page (-whole +pages):\n" + diff)
		}
	})
}

// requestList requests the whole list on a connection of its own.
func (s *server) requestList(t *testing.T) (net.Conn, *http.Request) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	req := s.request(t, "GET", "/locks/all-locked", "")
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	return conn, req
}

// slowClient requests the whole list and reads only the header of the response.
func (s *server) slowClient(t *testing.T) (net.Conn, *http.Response) {
	t.Helper()
	conn, req := s.requestList(t)
	response, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	return conn, response
}

// TestSlowReaders: a list that a client reads slowly is a consistent snapshot and delays
// no other request. More clients than the server has connections to its database and
// spools for long lists may disconnect before or in the middle of the response.
func TestSlowReaders(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		// Larger than what the network buffers for a client that does not read.
		process := strings.Repeat("p", lock.MaxNameLength)
		names := numbered(strings.Repeat("r", lock.MaxNameLength-10), 990)
		s.acquireMany(t, names, process, `{"a":"`+strings.Repeat("x", lock.MaxMetadataSize-10)+`"}`, 0)

		_, response := s.slowClient(t)
		var part bytes.Buffer // what it reads meanwhile: the server disconnects a client that reads nothing for long
		slowly := func() {
			if _, err := io.CopyN(&part, response.Body, 128<<10); err != nil {
				t.Fatal(err)
			}
		}
		for range 12 {
			slowly()
			conn, response := s.slowClient(t)
			if _, err := io.CopyN(io.Discard, response.Body, 10_000); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range 12 { // disconnect before the response begins
			slowly()
			conn, _ := s.requestList(t)
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s.hold(t, "new", "p", nil)
		s.release(t, names[1], process).want(t, 200)
		s.renew(t, names[2], process, 600, 0).want(t, 200)
		if _, found := s.list(t, "process_id", process, "limit", "5"); len(found) != 5 {
			t.Errorf("a page while the whole list is read: %q", found)
		}

		response.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&part, response.Body), response.Body}
		a, err := readAll(response) // too large for a fast check against the document
		if err != nil {
			t.Fatal(err)
		}
		list := dataOf[wire.AllLocked](t, a)
		found := []string{}
		for _, l := range list.Locks {
			found = append(found, l.ResourceName)
			if l.ExpiresAt != nil {
				t.Errorf("%s is listed with a later state", l.ResourceName)
			}
		}
		if diff := cmp.Diff(names, sorted(found)); diff != "" || list.TotalLocks != len(names) {
			t.Errorf("total_locks %d for %d locks (-before +listed):\n%s", list.TotalLocks, len(names), diff)
		}
	})
}

// brokenList fails after some locks.
type brokenList struct {
	brokenStore
	locks int
}

func (b brokenList) Held(
	_ context.Context, _ service.ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	err := begin(5000, start)
	for i := 0; i < b.locks && err == nil; i++ {
		err = each(lock.Resource{
			ID: int64(i + 1), Name: fmt.Sprint("r", i),
			Holds: []lock.Hold{{ProcessID: "p", Token: 1, LockedAt: start}},
		})
	}
	return errors.Join(err, fmt.Errorf("%w: %s", service.ErrUnavailable, secret))
}

// TestListThatBreaksOff: the client must not take a part of the list for the whole, and
// the error is logged.
func TestListThatBreaksOff(t *testing.T) {
	for _, locks := range []int{0, 1, 3000} { // before anything was sent, and after
		t.Run(fmt.Sprint(locks), func(t *testing.T) {
			log, lines := newLog(t)
			s := serve(t, service.New(brokenList{locks: locks}, withLimits(lock.Limits{MaxTTL: maxTTL}), log), nil, log)
			response, err := s.Client().Transport.RoundTrip(s.request(t, "GET", "/locks/all-locked", ""))
			if err == nil {
				a, readErr := readAll(response)
				if readErr == nil && a.status == 200 || json.Valid([]byte(a.body)) && a.status == 200 {
					t.Errorf("got a complete response: %d %.300s", a.status, a.body)
				}
			}
			s.Close()
			got := lines()
			if len(got) != 1 || !strings.Contains(got[0].Error, secret) || got[0].Route != "/locks/all-locked" {
				t.Errorf("log: %+v, want one line with the error", got)
			}
		})
	}
}

// TestListHead: HEAD of the list does not make the server fail.
func TestListHead(t *testing.T) {
	log, lines := newLog(t)
	db, _ := openStore(t, "sqlite", "")
	locks := newService(db, withLimits(lock.Limits{MaxTTL: maxTTL}), log)
	s := serve(t, locks, db.Ping, log)
	s.locks = locks
	s.acquireMany(t, numbered("r", 300), "p", "", 0)
	s.call(t, "HEAD", "/locks/all-locked", "").want(t, 200)
	s.Close()
	if got := lines(); got[len(got)-1].Error != "" || got[len(got)-1].Level != slog.LevelDebug.String() {
		t.Errorf("log: %+v", got[len(got)-1])
	}
}

// TestListWithoutRoom: a list that fits neither into memory nor into a file is not an
// internal error. A short list needs no file.
func TestListWithoutRoom(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()+"/missing")
	s := realServer(t, "sqlite")
	s.acquireMany(t, numbered("r", 300), "p", `{"a":"`+strings.Repeat("x", lock.MaxMetadataSize-10)+`"}`, 0)
	a := s.get(t, "/locks/all-locked")
	if a.status != 503 || !strings.Contains(a.body, `"code":"overloaded"`) || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %.300s", a.status, a.body)
	}
	if list, _ := s.list(t, "limit", "10"); list.TotalLocks != 10 {
		t.Errorf("a page has %d locks", list.TotalLocks)
	}
}
