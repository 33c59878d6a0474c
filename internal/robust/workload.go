package robust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Workload is what the clients of a run do. Its zero value does what most scenarios want.
type Workload struct {
	Clients   int           // 16 if 0; each asks for one lock at a time
	Owners    int           // clients that use package client; 3 if 0, besides the others
	Resources int           // 6 if 0, so that most requests meet others
	Think     time.Duration // the longest pause between two locks; 10 ms if 0
	Patience  time.Duration // how long a client waits for an answer beyond what it asked to wait for; 3 s if 0
}

// Longest times that the workload asks for. A scenario that outlasts them has seen holds end and waits time out.
const (
	LongestTTL  = 1500 * time.Millisecond
	LongestWait = 3 * time.Second
	ghostTTL    = 5 * time.Second // of a request that is hung up: what it leaves ends by itself, but later than G7 allows
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
	if w.Patience == 0 {
		w.Patience = 3 * time.Second
	}
	return w
}

func resourceName(i int) string {
	return fmt.Sprintf("resource %d", i)
}

// worker is a client that behaves: it gives back what it got, and asks until it knows what became of a request, unless it
// plays one that hangs up.
type worker struct {
	Workload
	*Client
	rand     *rand.Rand
	attempts int
	working  context.Context //nolint:containedctx // ends when the work does; what is held is then still given back
	alive    context.Context //nolint:containedctx // ends when that has taken too long as well
}

// work takes one lock after the other until the work ends.
func (w *worker) work() {
	for w.working.Err() == nil {
		resource := resourceName(w.rand.IntN(w.Resources))
		switch n := w.rand.IntN(20); {
		case n < 2:
			w.within(w.Patience, func(ctx context.Context) Operation { return w.Status(ctx, resource) })
		case n < 3:
			w.within(w.Patience, func(ctx context.Context) Operation { return w.Queue(ctx, resource) })
		case n < 5:
			w.hangUp(resource)
		default:
			w.takeTurn(resource)
		}
		w.pause(w.upTo(w.Think))
	}
}

// attempt is a request of a process that has never been heard of.
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

// hangUp asks for a lock and goes away before the answer has come, or just as it comes.
func (w *worker) hangUp(resource string) {
	request := w.attempt(resource)
	request.RequestID, request.TTL, request.Wait = "", ghostTTL, LongestWait
	got := w.within(w.upTo(100*time.Millisecond), func(ctx context.Context) Operation { return w.Acquire(ctx, request) })
	if got.Outcome == Done { // it came too early
		w.giveBack(got.Holder, resource)
	}
}

// takeTurn gets a lock, works with it and gives it back.
func (w *worker) takeTurn(resource string) {
	request := w.attempt(resource)
	acquire := func(ctx context.Context) Operation { return w.Acquire(ctx, request) }
	got := w.within(request.Wait+w.Patience, acquire)
	if got.Outcome == Unknown && request.RequestID == "" {
		w.giveBack(Hold{Process: request.Process}, resource) // whether it has it or not
		return
	}
	for got.Outcome == Unknown { // the same request gets what the lost one got
		w.pause(10*time.Millisecond + w.upTo(50*time.Millisecond))
		if got = w.within(request.Wait+w.Patience, acquire); w.working.Err() != nil && got.Outcome != Done {
			w.giveBack(Hold{Process: request.Process}, resource)
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
		w.within(w.Patience, acquire)
	case n < 12 && request.TTL > 0:
		ttl := w.ttl()
		w.within(w.Patience, func(ctx context.Context) Operation {
			return w.Renew(ctx, resource, held.Process, held.Token, ttl)
		})
	case n < 13 && request.TTL > 0: // it oversleeps
		w.pause(request.TTL + w.upTo(50*time.Millisecond))
	case n < 16:
		w.within(w.Patience, func(ctx context.Context) Operation { return w.Status(ctx, resource) })
	}
	w.giveBack(held, resource)
}

// giveBack releases until it knows that the process has nothing any more, also after the work has ended.
func (w *worker) giveBack(held Hold, resource string) {
	for {
		o := w.within(w.Patience, func(ctx context.Context) Operation {
			return w.Release(ctx, resource, held.Process, held.Token)
		})
		if o.Outcome == Done || o.Outcome == Refused || w.alive.Err() != nil {
			return
		}
		w.pause(10*time.Millisecond + w.upTo(50*time.Millisecond))
	}
}

// keep takes locks of its own without end, for as long as the work lasts: they must all be there then.
func (w *worker) keep() (kept []Operation) {
	for n := 0; w.working.Err() == nil; n++ {
		process := fmt.Sprintf("keeper %d.%d", w.id, n)
		request := Operation{Resource: "kept by " + process, Process: process, RequestID: process}
		o := w.within(w.Patience, func(ctx context.Context) Operation { return w.Acquire(ctx, request) })
		if o.Outcome == Done {
			kept = append(kept, o)
		}
		w.pause(w.upTo(100 * time.Millisecond))
	}
	return kept
}

// ttl is short mostly, so that holds end by themselves now and then. It is whole microseconds:
// the end of a hold whose answer was lost must be the one that the server computed.
func (w *worker) ttl() time.Duration {
	longest := LongestTTL
	if w.rand.IntN(4) > 0 {
		longest /= 5
	}
	return (50*time.Millisecond + w.upTo(longest-50*time.Millisecond)).Truncate(time.Microsecond)
}

// within makes a call that is given up after a while.
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
