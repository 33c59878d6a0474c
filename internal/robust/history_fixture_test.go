package robust_test

import (
	"cmp"
	"slices"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// operation is an operation of a history that a test writes by hand. It is about the
// resource r. Its times are in milliseconds, and the clocks of clients and service are
// the same.
type operation robust.Operation

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func timeAt(n int) time.Time { return time.UnixMicro(1e15).Add(ms(n)) }

// hold returns a hold that starts and expires at the given times. If until is 0, it never
// expires.
func hold(process string, token int64, from, until int) robust.Hold {
	h := robust.Hold{Process: process, Token: token, LockedAt: timeAt(from)}
	if until != 0 {
		h.ExpiresAt = timeAt(until)
	}
	return h
}

func call(kind robust.Kind, process string, from, to int, outcome robust.Outcome) operation {
	return operation{Kind: kind, Resource: "r", Process: process, Called: ms(from), Returned: ms(to), Outcome: outcome}
}

// acquired is an acquire that was granted a hold, without a wait.
func acquired(from, to int, h robust.Hold) operation {
	o := call(robust.Acquire, h.Process, from, to, robust.Done)
	o.Holder = h
	if !h.ExpiresAt.IsZero() {
		o.TTL, o.At = h.ExpiresAt.Sub(h.LockedAt), h.LockedAt
	}
	return o
}

// denied is an acquire that was refused. h is the holder that the answer shows, if any.
func denied(process string, from, to int, h robust.Hold) operation {
	o := call(robust.Acquire, process, from, to, robust.Refused)
	o.Code, o.Holder = wire.CodeAlreadyLocked, h
	if h == (robust.Hold{}) {
		o.Code = wire.CodeReserved
	}
	return o
}

// superseded is an acquire whose place a later one has taken.
func superseded(process string, from, to int, h robust.Hold) operation {
	o := denied(process, from, to, h)
	o.Code = wire.CodeSuperseded
	return o
}

func released(from, to, at int, h robust.Hold) operation {
	o := call(robust.Release, h.Process, from, to, robust.Done)
	o.Token, o.At = h.Token, timeAt(at)
	return o
}

func renewed(from, to, at int, h robust.Hold, until int) operation {
	o := call(robust.Renew, h.Process, from, to, robust.Done)
	o.Token, o.At, o.TTL = h.Token, timeAt(at), ms(until-at)
	o.Holder = h
	o.Holder.ExpiresAt = timeAt(until)
	return o
}

func status(from, to int, h robust.Hold) operation {
	o := call(robust.Status, "", from, to, robust.Done)
	o.Holder = h
	return o
}

func queue(from, to int, processes ...string) operation {
	o := call(robust.Queue, "", from, to, robust.Done)
	o.Queue = processes
	return o
}

// notHeld is a release or a renewal that was refused.
func notHeld(kind robust.Kind, from, to int, process string, token int64, code wire.Code) operation {
	o := call(kind, process, from, to, robust.Refused)
	o.Token, o.Code = token, code
	return o
}

// unknown is the operation without its answer.
func (o operation) unknown() operation {
	o.Outcome, o.Holder, o.At, o.Waited = robust.Unknown, robust.Hold{}, time.Time{}, 0
	return o
}

func (o operation) disconnected() operation {
	o = o.unknown()
	o.Disconnected = true
	return o
}

func (o operation) failed() operation {
	o = o.unknown()
	o.Outcome = robust.Failed
	return o
}

// queuedAt is an acquire that waited from the given time.
func (o operation) queuedAt(since int) operation {
	o.Wait = time.Minute
	if o.Outcome == robust.Done {
		o.Waited = o.Holder.LockedAt.Sub(timeAt(since))
	}
	return o
}

func (o operation) requestID(requestID string) operation {
	o.RequestID = requestID
	return o
}

func (o operation) through(server int) operation {
	o.Server = server
	return o
}

func history(all ...operation) []robust.Operation {
	operations := make([]robust.Operation, len(all))
	for i, o := range all {
		operations[i] = robust.Operation(o)
	}
	slices.SortStableFunc(operations, func(o, p robust.Operation) int { return cmp.Compare(o.Called, p.Called) })
	return operations
}

var noHold robust.Hold

// withoutToken is a hold of which only the process is known.
func withoutToken(h robust.Hold) robust.Hold {
	h.Token = 0
	return h
}
