package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

// sent is a request that the service has received.
type sent struct {
	at     time.Duration // since the start of the test, by the clock that stops in a suspend
	host   string
	method string
	path   string
	query  map[string][]string
	body   map[string]any
}

// reply is an answer of the service.
type reply struct {
	after  time.Duration // the delay of the answer
	err    error         // instead of an answer
	status int           // 200 if 0
	header map[string]string
	body   string
}

// url is the base URL of a service with one server.
const url = "http://a:1"

var errRefused = errors.New("connection refused")

func granted(token int, ttl time.Duration, more string) reply {
	return reply{body: fmt.Sprintf(`{"success":true,"message":"","data":{"lock_id":1,"resource_name":"r",
		"process_id":"p","locked_at":"2026-01-15T10:30:00.123456+00:00","expires_at":null,
		"expires_in_seconds":%v,"fencing_token":%d,"waited_seconds":0%s}}`, ttl.Seconds(), token, more)}
}

func success(data string) reply {
	return reply{body: `{"success":true,"message":"","data":` + data + `}`}
}

func refusal(status int, code string) reply {
	return reply{status: status, body: `{"detail":"because","code":"` + code + `"}`}
}

func held(code string) reply {
	return reply{status: http.StatusConflict, body: `{"detail":"because","code":"` + code + `","waiters":2,
		"retry_after_seconds":30,"holder":{"process_id":"other","locked_at":"2026-01-15T10:30:00.123456+00:00",
		"expires_at":"2026-01-15T10:31:00.123456+00:00","expires_in_seconds":30,"fencing_token":5,
		"reason":"release 1.4","metadata":{"ci":77}}}`}
}

// service is a scripted lock service in a synctest bubble.
type service struct {
	t       *testing.T
	began   time.Time
	mu      sync.Mutex
	suspend time.Duration // the total time of all suspends
	unsent  bool          // the transport reports no request as sent
	got     []sent
	answer  func(sent) reply
	by      map[string]func(sent) reply // by path; replaces answer
}

// startService returns a service that grants, renews and releases every lock, and a
// client of it.
func startService(t *testing.T, urls string, o client.Options) (*service, *client.Client) {
	t.Helper()
	s := &service{t: t, began: time.Now(), by: map[string]func(sent) reply{}}
	s.answer = func(r sent) reply {
		switch r.path {
		case "/locks/request", "/locks/renew":
			return granted(7, time.Minute, "")
		default:
			return success(`{"released_at":"2026-01-15T10:30:00.123456+00:00"}`)
		}
	}
	o.HTTPClient = &http.Client{Transport: s}
	c, err := client.New(urls, o)
	if err != nil {
		t.Fatal(err)
	}
	c.Inject(s.now, func() float64 { return 0.5 })
	return s, c
}

func (s *service) now() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.began) + s.suspend
}

// suspendFor suspends the machine.
func (s *service) suspendFor(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspend += d
}

// on sets the answers to requests of a path.
func (s *service) on(path string, answer func(sent) reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[path] = answer
}

// RoundTrip implements [http.RoundTripper].
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	got := sent{at: time.Since(s.began), host: r.URL.Host, method: r.Method, path: r.URL.Path, query: r.URL.Query()}
	if text, err := io.ReadAll(r.Body); err != nil {
		return nil, err
	} else if len(text) > 0 {
		if err := json.Unmarshal(text, &got.body); err != nil {
			s.t.Errorf("%s: body %s: %v", r.URL.Path, text, err)
		}
	}
	s.mu.Lock()
	s.got = append(s.got, got)
	answer := s.by[got.path]
	if answer == nil {
		answer = s.answer
	}
	s.mu.Unlock()
	trace := httptrace.ContextClientTrace(r.Context())
	if trace != nil && trace.WroteHeaders != nil && !s.unsent {
		trace.WroteHeaders()
	}
	a := answer(got)
	if a.after > 0 {
		timer := time.NewTimer(a.after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	header := http.Header{}
	for name, value := range a.header {
		header.Set(name, value)
	}
	return &http.Response{
		StatusCode: a.status, Header: header, Request: r,
		Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: int64(len(a.body)),
	}, nil
}

// requests returns the requests received for a path, or all if path is empty.
func (s *service) requests(path string) (got []sent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.got {
		if path == "" || r.path == path {
			got = append(got, r)
		}
	}
	return got
}

// inOrder answers with the replies in their order, and then always with the last one.
func inOrder(replies ...reply) func(sent) reply {
	var mu sync.Mutex
	return func(sent) reply {
		mu.Lock()
		defer mu.Unlock()
		r := replies[0]
		if len(replies) > 1 {
			replies = replies[1:]
		}
		return r
	}
}

// advance lets time pass in the bubble.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// wantDone checks whether the lock has ended.
func wantDone(t *testing.T, l *client.Lock, want bool) {
	t.Helper()
	select {
	case <-l.Done():
		if !want {
			t.Fatalf("the lock has ended: %v", l.Err())
		}
	default:
		if want {
			t.Fatal("Done is not closed")
		}
	}
}

func mustLock(t *testing.T, c *client.Client, o client.LockOptions) *client.Lock {
	t.Helper()
	l, err := c.Lock(context.Background(), "r", o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
