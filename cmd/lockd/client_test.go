package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
)

// client sends requests to one server.
type client struct {
	url  string
	http *http.Client
}

func newClient(tb testing.TB, url string) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	// This is longer than any request of the tests waits in a queue.
	return &client{url: url, http: &http.Client{Transport: transport, Timeout: 3 * apptest.Timeout}}
}

// reply is an answer of any kind.
type reply struct {
	Status int         `json:"-"`
	Header http.Header `json:"-"`

	Success bool           `json:"success"`
	Message string         `json:"message"`
	Data    map[string]any `json:"data"`

	Detail any            `json:"detail"`
	Code   string         `json:"code"`
	Holder map[string]any `json:"holder"`
}

// errCutOff is the error of an answer that started and did not end.
var errCutOff = errors.New("the answer was cut off")

// try sends a request. It returns an error if the connection fails.
func (c *client) try(method, path string, body any) (reply, error) {
	return c.tryUntil(context.Background(), method, path, body)
}

// tryUntil is like try, but it disconnects when ctx ends.
func (c *client) tryUntil(ctx context.Context, method, path string, body any) (reply, error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return reply{}, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, &content)
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", errCutOff, err)
	}
	r := reply{Status: response.StatusCode, Header: response.Header}
	if err := json.Unmarshal(text, &r); err != nil {
		return reply{}, fmt.Errorf("%w: status %d, body %q: %w", errCutOff, r.Status, text, err)
	}
	return r, nil
}

func (c *client) do(tb testing.TB, method, path string, body any) reply {
	tb.Helper()
	r, err := c.try(method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func (c *client) get(tb testing.TB, path string) reply {
	tb.Helper()
	return c.do(tb, http.MethodGet, path, nil)
}

// hold is a hold as its process knows it.
type hold struct {
	resource, process string
	token             float64
}

func acquisition(resource, process string) map[string]any {
	return map[string]any{"resource_name": resource, "process_id": process}
}

// request requests a lock.
func (c *client) request(tb testing.TB, resource, process string) reply {
	tb.Helper()
	return c.do(tb, http.MethodPost, "/locks/request", acquisition(resource, process))
}

// acquire requests a lock and fails the test if it does not get it.
func (c *client) acquire(tb testing.TB, resource, process string) hold {
	tb.Helper()
	r := c.request(tb, resource, process)
	h, ok := holdOf(r)
	if !ok || h.resource != resource || h.process != process {
		tb.Fatalf("%s requested %s, got %+v", process, resource, r)
	}
	return h
}

// holdOf returns the hold of a grant. It reports false if r is not a complete grant.
func holdOf(r reply) (hold, bool) {
	resource, _ := r.Data["resource_name"].(string)
	process, _ := r.Data["process_id"].(string)
	token, _ := r.Data["fencing_token"].(float64)
	return hold{resource, process, token}, r.Status == http.StatusOK && r.Success && token > 0
}

func (c *client) release(tb testing.TB, h hold) {
	tb.Helper()
	query := url.Values{"resource_name": {h.resource}, "process_id": {h.process}}
	if r := c.do(tb, http.MethodDelete, "/locks/release?"+query.Encode(), nil); r.Status != http.StatusOK {
		tb.Fatalf("release %+v: %+v", h, r)
	}
}

func (c *client) status(tb testing.TB, resource string) reply {
	tb.Helper()
	return c.get(tb, "/locks/status?"+url.Values{"resource_name": {resource}}.Encode())
}

// locked returns the names of all held resources, sorted.
func (c *client) locked(tb testing.TB) []string {
	tb.Helper()
	r := c.get(tb, "/locks/all-locked")
	var names []string
	locks, _ := r.Data["locks"].([]any)
	for _, entry := range locks {
		names = append(names, entry.(map[string]any)["resource_name"].(string))
	}
	if r.Status != http.StatusOK || r.Data["total_locks"] != float64(len(names)) {
		tb.Fatalf("all-locked: %+v", r)
	}
	slices.Sort(names)
	return names
}

// wantHeld checks that every hold exists, with its token, as the refusals of other
// requests show.
func (c *client) wantHeld(tb testing.TB, holds []hold) {
	tb.Helper()
	locked := c.locked(tb)
	for _, h := range holds {
		if _, found := slices.BinarySearch(locked, h.resource); !found {
			tb.Errorf("the acknowledged hold %+v does not exist", h)
			continue
		}
		r := c.request(tb, h.resource, "another process")
		if r.Status != http.StatusConflict || r.Holder["process_id"] != h.process ||
			r.Holder["fencing_token"] != h.token {
			tb.Errorf("the acknowledged hold is %+v, another request for it got %+v", h, r)
		}
	}
}

// load is a number of clients that acquire one resource after the other.
type load struct {
	clients sync.WaitGroup
	quit    chan struct{}
	granted chan struct{} // one element for each grant

	mu       sync.Mutex
	holds    []hold
	refusals []reply
	errors   []error
}

// startLoad starts the clients. They run until their connections fail or finish is
// called. They continue after a refusal.
func (c *client) startLoad(tb testing.TB, clients int) *load {
	l := &load{quit: make(chan struct{}), granted: make(chan struct{}, 100_000)}
	for i := range clients {
		l.clients.Go(func() { l.run(c, fmt.Sprintf("client %d", i)) })
	}
	tb.Cleanup(l.finish)
	return l
}

func (l *load) run(c *client, process string) {
	for n := 0; ; n++ {
		select {
		case <-l.quit:
			return
		default:
		}
		r, err := c.try(http.MethodPost, "/locks/request",
			acquisition(fmt.Sprintf("%s, resource %d", process, n), process))
		h, granted := holdOf(r)
		l.mu.Lock()
		switch {
		case err != nil:
			l.errors = append(l.errors, err)
		case granted:
			l.holds = append(l.holds, h)
			l.granted <- struct{}{}
		default:
			l.refusals = append(l.refusals, r)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
		if !granted {
			<-time.After(time.Millisecond) // a refused client does not retry at once
		}
	}
}

// await returns after the given number of further grants.
func (l *load) await(tb testing.TB, grants int) {
	tb.Helper()
	deadline := time.After(apptest.Timeout)
	for range grants {
		select {
		case <-l.granted:
		case <-deadline:
			tb.Fatal("no client of the load was granted a lock")
		}
	}
}

// finish stops the clients and waits for them.
func (l *load) finish() {
	l.mu.Lock()
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.mu.Unlock()
	l.clients.Wait()
}
