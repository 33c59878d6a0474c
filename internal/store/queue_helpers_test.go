package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

var connections atomic.Int64

// waiting returns an acquire that may wait. Its RequestID is derived from the process.
func waiting(resource, process string) lock.Acquire {
	return lock.Acquire{Request: lock.Request{
		Resource: resource, ProcessID: process, RequestID: "of " + process,
		Wait: time.Minute,
	}, Connection: connections.Add(1), MayQueue: true, QueueLimit: 1 << 20}
}

// acquireOf returns the request of a waiter.
func acquireOf(w *lock.Waiter) lock.Acquire {
	return lock.Acquire{Request: w.Request, Connection: w.Connection}
}

// enqueue executes an acquire that must wait.
func enqueue(tb testing.TB, s *store.Store, c lock.Acquire) lock.Outcome {
	tb.Helper()
	out := execute(tb, s, c)
	if out.Hold.Token != 0 {
		tb.Fatalf("%s does not wait, it was granted %+v", c.ProcessID, out.Hold)
	}
	return out
}

// release executes a release and returns its grants to waiters.
func release(tb testing.TB, s *store.Store, resource, process string) []lock.Grant {
	tb.Helper()
	return execute(tb, s, lock.Release{Resource: resource, ProcessID: process}).Granted
}

// processes returns the processes of the waiters in the order of the store, which it
// reads page by page.
func processes(tb testing.TB, s *store.Store, resource string) []string {
	tb.Helper()
	var names []string
	for after, at := int64(0), 1; ; {
		page, err := s.Queue(context.Background(), resource, after, 7)
		if err != nil {
			tb.Fatal(err)
		}
		if len(page.Waiters) == 0 {
			return names
		}
		if page.Position != at {
			tb.Errorf("a page starts at the position %d, want %d", page.Position, at)
		}
		for _, w := range page.Waiters {
			if w.Ticket <= after {
				tb.Errorf("ticket %d comes after %d", w.Ticket, after)
			}
			names, after = append(names, w.Request.ProcessID), w.Ticket
			at++
		}
	}
}

// peek is a command that notes the state that the store loads for it, and changes
// nothing.
type peek struct {
	resource string
	places   []lock.Place
	seen     *lock.Resource
}

var errOnlyRead = errors.New("the command only reads")

func (c peek) Needs() lock.Needs {
	return lock.Needs{Resources: []string{c.resource}, Places: c.places, MayFree: true}
}

func (c peek) Decide(_ time.Time, before []lock.Resource) (lock.Outcome, error) {
	*c.seen = before[0]
	return lock.Outcome{}, errOnlyRead
}

// loaded returns the processes of the waiters that the store loads for a command.
func loaded(tb testing.TB, s *store.Store, resource string, places ...lock.Place) []string {
	tb.Helper()
	var r lock.Resource
	if _, err := s.Execute(context.Background(), peek{resource, places, &r}); !errors.Is(err, errOnlyRead) {
		tb.Fatal(err)
	}
	names := []string{}
	for _, w := range r.Queue {
		names = append(names, w.Request.ProcessID)
	}
	return names
}

// gate is a command that blocks its transaction until it is opened, so that the commands
// that arrive meanwhile share the next one.
type gate struct{ entered, open chan struct{} }

func (c gate) Needs() lock.Needs { return lock.Needs{Resources: []string{"gate"}} }

func (c gate) Decide(time.Time, []lock.Resource) (lock.Outcome, error) {
	close(c.entered)
	<-c.open
	return lock.Outcome{}, errOnlyRead
}

// asJSON returns a value as JSON, for the message of a failure.
func asJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
