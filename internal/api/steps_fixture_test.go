package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// fields are the fields of a JSON body; nil ones are omitted.
type fields map[string]any

func (s *server) post(t *testing.T, path string, body fields) answer {
	t.Helper()
	return s.call(t, http.MethodPost, path, body.json(t))
}

func (f fields) json(t *testing.T) string {
	t.Helper()
	given := maps.Clone(f)
	maps.DeleteFunc(given, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// get sends a query of alternating names and values.
func (s *server) get(t *testing.T, path string, query ...string) answer {
	t.Helper()
	return s.call(t, http.MethodGet, withQuery(path, query), "")
}

func (s *server) delete(t *testing.T, path string, query ...string) answer {
	t.Helper()
	return s.call(t, http.MethodDelete, withQuery(path, query), "")
}

func withQuery(path string, query []string) string {
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Add(query[i], query[i+1])
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// acquireWith acquires a lock with additional fields.
func (s *server) acquireWith(t *testing.T, resource, process string, more fields) answer {
	t.Helper()
	body := fields{"resource_name": resource, "process_id": process}
	maps.Copy(body, more)
	return s.post(t, "/locks/request", body)
}

// hold acquires a lock and returns the data of the response.
func (s *server) hold(t *testing.T, resource, process string, ttl any) wire.Acquired {
	t.Helper()
	return dataOf[wire.Acquired](t, s.acquire(t, resource, process, ttl))
}

// releaseToken releases the hold with the token.
func (s *server) releaseToken(t *testing.T, resource, process string, token int64) answer {
	t.Helper()
	return s.delete(t, "/locks/release", "resource_name", resource, "process_id", process, "fencing_token",
		fmt.Sprint(token))
}

// renew renews a lock; token 0 is omitted.
func (s *server) renew(t *testing.T, resource, process string, ttl any, token int64) answer {
	t.Helper()
	body := fields{"resource_name": resource, "process_id": process, "ttl_seconds": ttl}
	if token != 0 {
		body["fencing_token"] = token
	}
	return s.post(t, "/locks/renew", body)
}

func (s *server) forceRelease(t *testing.T, resource, reason string) answer {
	t.Helper()
	return s.delete(t, "/locks/force-release", "resource_name", resource, "reason", reason)
}

func (s *server) validate(t *testing.T, resource string, token int64) wire.Validity {
	t.Helper()
	return dataOf[wire.Validity](t,
		s.get(t, "/locks/validate", "resource_name", resource, "fencing_token", fmt.Sprint(token)))
}

func (s *server) history(t *testing.T, query ...string) wire.History {
	t.Helper()
	return dataOf[wire.History](t, s.get(t, "/locks/history", query...))
}

// state returns everything that clients can read about locks. A refusal must not change
// it.
func (s *server) state(t *testing.T) string {
	t.Helper()
	return s.get(t, "/locks/all-locked").want(t, 200).body + s.get(t, "/locks/history").want(t, 200).body
}

// wantCode fails the test unless the response is that failure, with any message.
func (a answer) wantCode(t *testing.T, status int, code wire.Code) {
	t.Helper()
	if got := decode[struct{ Code wire.Code }](t, a.want(t, status).body).Code; got != code {
		t.Errorf("got %s, want the code %q", a.body, code)
	}
}

// brief is a time that tests can wait for: on SQLite they advance the clock, on Postgres
// they poll.
func (s *server) brief() time.Duration {
	if s.driver == store.Postgres {
		return 50 * time.Millisecond
	}
	return 5 * time.Second
}

// outlive waits for the brief time. It returns as soon as ended reports true, which must
// not be before.
func (s *server) outlive(t *testing.T, ended func() bool) {
	t.Helper()
	if s.driver == store.Postgres {
		for deadline := time.Now().Add(testTimeout); !ended(); {
			if time.Now().After(deadline) {
				t.Fatal("the brief time does not end")
			}
		}
		return
	}
	s.clock.advance(s.brief() - time.Microsecond)
	if ended() {
		t.Fatal("the brief time ended too early")
	}
	s.clock.advance(time.Microsecond) // what lasts until a time has ended at that time
	if !ended() {
		t.Fatal("the brief time has not ended")
	}
}

// acquireAndOutlive acquires with a TTL, waits for the expiry and returns the expired
// hold.
func (s *server) acquireAndOutlive(t *testing.T, resource, process string) wire.Acquired {
	t.Helper()
	hold := s.hold(t, resource, process, s.brief().Seconds())
	s.outlive(t, func() bool { return !s.status(t, resource).IsLocked })
	return hold
}

// crowd is the number of requests that tests with many requests send at once.
const crowd = 32

// callMany sends many requests, several at a time, and returns the responses in the order
// of the bodies.
func (s *server) callMany(t *testing.T, path string, bodies []string) []answer {
	t.Helper()
	answers, failed := make([]answer, len(bodies)), make([]error, len(bodies))
	requests := make([]*http.Request, len(bodies))
	next := make(chan int)
	var all sync.WaitGroup
	for range crowd {
		all.Go(func() {
			for i := range next { // a failed request must not end the test from another goroutine
				response, err := s.Client().Transport.RoundTrip(requests[i])
				if err == nil {
					answers[i], err = readAll(response)
				}
				failed[i] = err
			}
		})
	}
	for i, body := range bodies {
		requests[i] = s.request(t, http.MethodPost, path, body)
		next <- i
	}
	close(next)
	all.Wait()
	for i, err := range failed {
		if err != nil {
			t.Fatal(err)
		}
		check(t, requests[i], answers[i])
	}
	return answers
}

// acquireMany acquires resources for one process without HTTP and returns the holds in
// the order of the names.
func (s *server) acquireMany(t *testing.T, names []string, process, metadata string,
	ttl time.Duration,
) []wire.Acquired {
	t.Helper()
	holds, failed := make([]wire.Acquired, len(names)), make([]error, len(names))
	free := make(chan struct{}, 20*crowd) // fewer than may be queued for the database
	var all sync.WaitGroup
	for i, name := range names {
		free <- struct{}{}
		all.Go(func() {
			out, err := s.locks.Acquire(t.Context(),
				lock.Request{Resource: name, ProcessID: process, Metadata: metadata, TTL: ttl})
			if <-free; err != nil {
				failed[i] = err
				return
			}
			holds[i] = wire.Acquired{
				LockID: out.ID, ResourceName: name, ProcessID: process, FencingToken: out.Hold.Token,
				Times: wire.Times{LockedAt: wire.Time(out.Hold.LockedAt)},
			}
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	return holds
}

// numbered returns n names.
func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return names
}

// eventLines returns each event as a line that is easy to compare.
func eventLines(events []wire.Event) []string {
	list := []string{}
	for _, e := range events {
		list = append(list, strings.Join([]string{e.Event, e.ResourceName, e.ProcessID}, " "))
	}
	return list
}

// sorted sorts the names by their bytes.
func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
