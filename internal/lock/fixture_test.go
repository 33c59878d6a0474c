package lock_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
)

// t0 has nanoseconds, as Go's clocks do. A token counts whole microseconds.
var t0 = time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)

// t0Token is t0 in microseconds, written out so that the tests detect a wrong unit.
const t0Token = 1782907200123456

func after(d time.Duration) time.Time { return t0.Add(d) }

// heldBy returns a resource that the process has held since t0.
func heldBy(process string, expires time.Time) lock.Resource {
	return holding(lock.Hold{ProcessID: process, Token: 100, LockedAt: t0, ExpiresAt: expires})
}

// holding returns a resource that has only this hold.
func holding(h lock.Hold) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: h.Token, Holds: []lock.Hold{h}}
}

// heldForAMinute is the resource that most waiters in the tests wait for.
var heldForAMinute = heldBy("holder", after(time.Minute))

// free returns a resource that has a row and was never held.
func free() lock.Resource { return lock.Resource{ID: 7, Name: "r", Token: 100} }

// ended returns a resource whose only hold has ended.
func ended(h lock.Hold, at time.Time) lock.Resource {
	return lock.Resource{ID: 7, Name: "r", Token: h.Token, Holds: []lock.Hold{}, Last: h, EndedAt: at}
}

// released returns a resource whose only hold was released a minute after t0.
func released(token int64) lock.Resource {
	return ended(lock.Hold{ProcessID: "p1", Token: token, LockedAt: t0}, after(time.Minute))
}

// requested returns a resource that p1 acquired with the RequestID "id-1" for a minute
// and renewed once.
func requested(change func(*lock.Hold)) lock.Resource {
	h := lock.Hold{
		ProcessID: "p1", Token: 100, LockedAt: t0, ExpiresAt: after(time.Minute), RequestID: "id-1",
		Reason: "first", Metadata: `{"n":1}`, RenewedAt: after(time.Millisecond), Renewals: 1,
	}
	if change != nil {
		change(&h)
	}
	return holding(h)
}

// keptByMinimum returns a resource that p1 acquired at t0 with a minimum of a minute and
// released ten seconds later.
func keptByMinimum() lock.Resource {
	r := heldBy("p1", after(time.Minute))
	r.Holds[0].MinHoldUntil, r.Holds[0].ReleasedAt = after(time.Minute), after(10*time.Second)
	r.Holds[0].RequestID = "id-1"
	return r
}

// renewed sets the number of renewals of a resource's hold.
func renewed(times int, r lock.Resource) lock.Resource {
	r.Holds[0].Renewals, r.Holds[0].RenewedAt = times, after(time.Millisecond)
	return r
}

// named renames a resource.
func named(name string, r lock.Resource) lock.Resource {
	r.Name = name
	return r
}

func namesOf(resources []lock.Resource) []string {
	var names []string
	for _, r := range resources {
		names = append(names, r.Name)
	}
	return names
}

// acquireBy returns a process's acquire of "r" that may wait. Its RequestID is made of
// the name of the process.
func acquireBy(process string, connection int64) lock.Acquire {
	return lock.Acquire{Request: lock.Request{
		Resource: "r", ProcessID: process, RequestID: "id-" + process, Wait: time.Minute,
	}, Connection: connection, MayQueue: true, QueueLimit: 10}
}

// acquireOf returns the acquire that a waiter was queued for.
func acquireOf(w *lock.Waiter) lock.Acquire {
	return lock.Acquire{Request: w.Request, Connection: w.Connection, MayQueue: true, QueueLimit: 10}
}

// local returns a waiter that is connected to the server that decides. Every waiter of
// these tests was queued before t0, in the order of the tickets. Its Connection equals
// its ticket.
func local(ticket int64, process string) *lock.Waiter {
	return &lock.Waiter{
		Ticket: ticket, Request: acquireBy(process, ticket).Request, Connection: ticket,
		Since: after(time.Duration(ticket - 1000)), Local: true,
	}
}

// remoteUntil returns a waiter of another server, whose lease ends at the given time.
func remoteUntil(ticket int64, process string, aliveUntil time.Time) *lock.Waiter {
	w := local(ticket, process)
	w.Local, w.AliveUntil = false, aliveUntil
	return w
}

// remote returns a waiter of another server that is alive.
func remote(ticket int64, process string) *lock.Waiter {
	return remoteUntil(ticket, process, after(time.Hour))
}

// dead returns a waiter of another server whose lease has ended.
func dead(ticket int64, process string) *lock.Waiter { return remoteUntil(ticket, process, t0) }

// detached returns a waiter whose connection has ended.
func detached(ticket int64, process string, until time.Time) *lock.Waiter {
	w := local(ticket, process)
	w.Local, w.Connection, w.DetachedUntil = false, 0, until
	return w
}

// with changes a waiter.
func with(w *lock.Waiter, change func(*lock.Waiter)) *lock.Waiter {
	change(w)
	return w
}

// queued returns the resource with this queue, whose last waiter has the highest ticket.
func queued(r lock.Resource, queue ...*lock.Waiter) lock.Resource {
	r.Queue, r.Waiters, r.Detached = queue, 0, 0
	for _, w := range queue {
		r.LastTicket = max(r.LastTicket, w.Ticket)
		if w.DetachedUntil.IsZero() {
			r.Waiters++
		} else {
			r.Detached++
		}
	}
	return r
}

// lastTicket sets the highest ticket that a resource has given.
func lastTicket(ticket int64, r lock.Resource) lock.Resource {
	r.LastTicket = ticket
	return r
}

// holdOf returns the hold that a waiter is granted at a time not before t0.
func holdOf(w *lock.Waiter, now time.Time) lock.Hold {
	c := w.Request
	h := lock.Hold{
		ProcessID: c.ProcessID, Token: t0Token + now.Sub(t0).Microseconds(), LockedAt: now, QueuedAt: w.Since,
		Connection: w.Connection, RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		h.ExpiresAt = now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		h.MinHoldUntil = now.Add(c.MinHold)
	}
	return h
}

// grantsTo returns the grants of an outcome that grants the resource to a waiter.
func grantsTo(w *lock.Waiter, now time.Time) []lock.Grant {
	return []lock.Grant{{
		ID: 7, Now: now, Hold: holdOf(w, now), Ticket: w.Ticket,
		To: lock.Acquire{Request: w.Request, Connection: w.Connection},
	}}
}

// justGranted returns a resource that was granted to the waiter at t0.
func justGranted(w *lock.Waiter, queue ...*lock.Waiter) lock.Resource {
	r := queued(holding(holdOf(w, t0)), queue...)
	return lastTicket(max(r.LastTicket, w.Ticket), r)
}

// holdEvent returns the event of a hold of "r", without the fields that only some kinds
// have.
func holdEvent(kind lock.EventKind, h lock.Hold, at time.Time) lock.Event {
	e := lock.Event{
		Kind: kind, At: at, Resource: "r", ProcessID: h.ProcessID, Token: h.Token,
		Since: h.LockedAt, Renewals: h.Renewals,
	}
	if kind == lock.EventReleased || kind == lock.EventForceReleased || kind == lock.EventExpired {
		e.HoldReason = h.Reason
	}
	return e
}

// grantEvent returns the event of a grant to a waiter.
func grantEvent(w *lock.Waiter, now time.Time) lock.Event {
	e := holdEvent(lock.EventGranted, holdOf(w, now), now)
	e.Since, e.Reason = w.Since, w.Request.Reason
	return e
}

// waiterEvent returns the event of the beginning or the end of a wait.
func waiterEvent(kind lock.EventKind, w *lock.Waiter, now time.Time, reason string) lock.Event {
	return lock.Event{
		Kind: kind, At: now, Resource: "r", ProcessID: w.Request.ProcessID, Since: w.Since, Reason: reason,
	}
}

// of sets the resource of an event.
func of(resource string, e lock.Event) lock.Event {
	e.Resource = resource
	return e
}

// decide decides a command on one resource. It fails if the command wrote into the queue.
func decide(t *testing.T, c lock.Command, now time.Time, r lock.Resource) (lock.Outcome, error) {
	t.Helper()
	kept := slices.Clone(r.Queue)
	var values []lock.Waiter
	for _, w := range kept {
		values = append(values, *w)
	}
	if r.Queue != nil { // an append in place would overwrite the element behind the slice
		r.Queue = append(kept[:len(kept):len(kept)], local(999, "behind the slice"))[:len(kept)]
	}
	out, err := c.Decide(now, []lock.Resource{r})
	if !slices.Equal(kept, r.Queue) || r.Queue != nil && r.Queue[:len(kept)+1][len(kept)].Ticket != 999 {
		t.Errorf("%#v wrote into the queue that it was given", c)
	}
	for i, w := range kept {
		wantEqual(t, "waiter that the command was given", values[i], *w)
	}
	return out, err
}

// changing adds the new state of the command's one resource to an outcome.
func changing(r lock.Resource, out lock.Outcome) lock.Outcome {
	out.Resource, out.Changed = r, []lock.Resource{r}
	return out
}

// wantOutcome compares everything that a command on one resource did. An empty slice
// equals nil.
func wantOutcome(t *testing.T, want, got lock.Outcome, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

// wantOutcomeOfMany compares everything that a command on any number of resources did.
// Outcome.Resource is not defined for it.
func wantOutcomeOfMany(t *testing.T, want, got lock.Outcome, err error) {
	t.Helper()
	want.Resource = got.Resource
	wantOutcome(t, want, got, err)
}

// wantError fails unless a command was refused with exactly that error and has no
// outcome.
func wantError(t *testing.T, want error, out lock.Outcome, err error) {
	t.Helper()
	if !reflect.DeepEqual(want, err) {
		t.Errorf("error: got %#v, want %#v", err, want)
	}
	wantEqual(t, "outcome", lock.Outcome{}, out)
}

// wantHeld fails unless a command on "r" was refused with that HeldError and has no
// outcome.
func wantHeld(t *testing.T, want lock.HeldError, now time.Time, out lock.Outcome, err error) {
	t.Helper()
	want.Resource, want.Now = "r", now
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	wantEqual(t, "error", &want, held)
	wantEqual(t, "outcome", lock.Outcome{}, out)
}

func wantEqual(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
