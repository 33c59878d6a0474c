package robust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Workload is what the clients of a run do. Its zero value fits most scenarios.
type Workload struct {
	Clients       int           // 16 if 0; each requests one lock at a time
	Owners        int           // additional clients that use package client; 3 if 0
	Resources     int           // 6 if 0, so that most requests compete with others
	Think         time.Duration // the longest pause between two locks; 10 ms if 0
	AnswerTimeout time.Duration // how long a client waits for an answer, in addition to its own wait; 3 s if 0
}

// The longest times that the workload asks for. In a scenario that takes longer, holds
// expire and waits time out.
const (
	LongestTTL   = 1500 * time.Millisecond
	LongestWait  = 3 * time.Second
	abandonedTTL = 5 * time.Second // of a request whose client disconnects: its hold expires, but later than G7 allows
)

func (w Workload) withDefaults() Workload {
	if w.Clients == 0 {
		w.Clients = 16
	}
	if w.Owners == 0 {
		w.Owners = 3
	}
	if w.Resources == 0 {
		w.Resources = 6
	}
	if w.Think == 0 {
		w.Think = 10 * time.Millisecond
	}
	if w.AnswerTimeout == 0 {
		w.AnswerTimeout = 3 * time.Second
	}
	return w
}

func resourceName(i int) string {
	return fmt.Sprintf("resource %d", i)
}

// worker is a client that behaves well. It releases what it acquired, and repeats a
// request until it knows the outcome. Some of its requests it abandons on purpose.
type worker struct {
	Workload
	*Client
	rand     *rand.Rand
	attempts int
	working  context.Context //nolint:containedctx // ends when the work does; what is held is then still given back
	alive    context.Context //nolint:containedctx // ends when that has taken too long as well
}

// work acquires one lock after the other until the work ends.
func (w *worker) work() {
	for w.working.Err() == nil {
		resource := resourceName(w.rand.IntN(w.Resources))
		switch n := w.rand.IntN(20); {
		case n < 2:
			w.within(w.AnswerTimeout, func(ctx context.Context) Operation { return w.Status(ctx, resource) })
		case n < 3:
			w.within(w.AnswerTimeout, func(ctx context.Context) Operation { return w.Queue(ctx, resource) })
		case n < 5:
			w.disconnect(resource)
		default:
			w.takeTurn(resource)
		}
		w.pause(w.upTo(w.Think))
	}
}

// attempt returns a request of a new process.
func (w *worker) attempt(resource string) Operation {
	w.attempts++
	o := Operation{Resource: resource, Process: fmt.Sprintf("process %d.%d", w.id, w.attempts)}
	if w.rand.IntN(2) == 0 {
		o.RequestID = o.Process
	}
	if w.rand.IntN(3) > 0 {
		o.TTL = w.ttl()
	}
	if w.rand.IntN(3) > 0 {
		o.Wait = 10*time.Millisecond + w.upTo(LongestWait-10*time.Millisecond)
	}
	return o
}

// disconnect requests a lock and disconnects before the answer, or just as it arrives.
func (w *worker) disconnect(resource string) {
	request := w.attempt(resource)
	request.RequestID, request.TTL, request.Wait = "", abandonedTTL, LongestWait
	got := w.within(w.upTo(100*time.Millisecond),
		func(ctx context.Context) Operation { return w.Acquire(ctx, request) })
	if got.Outcome == Done { // the answer was faster
		w.ensureReleased(got.Holder, resource)
	}
}

// takeTurn acquires a lock, works with it and releases it.
func (w *worker) takeTurn(resource string) {
	request := w.attempt(resource)
	acquire := func(ctx context.Context) Operation { return w.Acquire(ctx, request) }
	got := w.within(request.Wait+w.AnswerTimeout, acquire)
	if got.Outcome == Unknown && request.RequestID == "" {
		w.ensureReleased(Hold{Process: request.Process}, resource) // the process may hold the resource
		return
	}
	for got.Outcome == Unknown { // a retry gets the hold that the lost answer was about
		w.pause(10*time.Millisecond + w.upTo(50*time.Millisecond))
		if got = w.within(request.Wait+w.AnswerTimeout, acquire); w.working.Err() != nil && got.Outcome != Done {
			w.ensureReleased(Hold{Process: request.Process}, resource)
			return
		}
	}
	if got.Outcome != Done {
		w.pause(w.upTo(w.Think))
		return
	}
	held := got.Holder
	w.pause(w.upTo(20 * time.Millisecond))
	switch n := w.rand.IntN(30); {
	case n < 6 && request.RequestID != "":
		w.within(w.AnswerTimeout, acquire)
	case n < 12 && request.TTL > 0:
		ttl := w.ttl()
		w.within(w.AnswerTimeout, func(ctx context.Context) Operation {
			return w.Renew(ctx, resource, held.Process, held.Token, ttl)
		})
	case n < 13 && request.TTL > 0: // it lets the hold expire
		w.pause(request.TTL + w.upTo(50*time.Millisecond))
	case n < 16:
		w.within(w.AnswerTimeout, func(ctx context.Context) Operation { return w.Status(ctx, resource) })
	}
	w.ensureReleased(held, resource)
}

// ensureReleased releases until an answer states that the process holds nothing. It goes
// on after the work has ended.
func (w *worker) ensureReleased(held Hold, resource string) {
	for {
		o := w.within(w.AnswerTimeout, func(ctx context.Context) Operation {
			return w.Release(ctx, resource, held.Process, held.Token)
		})
		if o.Outcome == Done || o.Outcome == Refused || w.alive.Err() != nil {
			return
		}
		w.pause(10*time.Millisecond + w.upTo(50*time.Millisecond))
	}
}

// keep acquires locks of its own while the work lasts, and never releases them. At the
// end they must all exist.
func (w *worker) keep() (kept []Operation) {
	for n := 0; w.working.Err() == nil; n++ {
		process := fmt.Sprintf("keeper %d.%d", w.id, n)
		request := Operation{Resource: "kept by " + process, Process: process, RequestID: process}
		o := w.within(w.AnswerTimeout, func(ctx context.Context) Operation { return w.Acquire(ctx, request) })
		if o.Outcome == Done {
			kept = append(kept, o)
		}
		w.pause(w.upTo(100 * time.Millisecond))
	}
	return kept
}

// ttl is mostly short, so that some holds expire. It is a whole number of microseconds:
// the model computes the end of a hold whose answer was lost, as the server does.
func (w *worker) ttl() time.Duration {
	longest := LongestTTL
	if w.rand.IntN(4) > 0 {
		longest /= 5
	}
	return (50*time.Millisecond + w.upTo(longest-50*time.Millisecond)).Truncate(time.Microsecond)
}

// within makes a call with a timeout.
func (w *worker) within(limit time.Duration, call func(context.Context) Operation) Operation {
	ctx, cancel := context.WithTimeout(w.alive, limit)
	defer cancel()
	return call(ctx)
}

func (w *worker) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(d) + 1))
}

func (w *worker) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.alive.Done():
	}
}
