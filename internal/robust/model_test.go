package robust_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// told is an operation of a history made by hand, about the resource r unless it says otherwise. Times are in milliseconds, of
// the clients' clock and the service's alike.
type told robust.Operation

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func moment(n int) time.Time { return time.UnixMicro(1e15).Add(ms(n)) }

// hold is one from a moment until another, without end if that is 0.
func hold(process string, token int64, from, until int) robust.Hold {
	h := robust.Hold{Process: process, Token: token, LockedAt: moment(from)}
	if until != 0 {
		h.ExpiresAt = moment(until)
	}
	return h
}

func call(kind robust.Kind, process string, from, to int, outcome robust.Outcome) told {
	return told{Kind: kind, Resource: "r", Process: process, Called: ms(from), Returned: ms(to), Outcome: outcome}
}

// got is an acquire that was granted a hold when that began.
func got(from, to int, h robust.Hold) told {
	o := call(robust.Acquire, h.Process, from, to, robust.Done)
	o.Holder = h
	if !h.ExpiresAt.IsZero() {
		o.TTL, o.At = h.ExpiresAt.Sub(h.LockedAt), h.LockedAt
	}
	return o
}

// denied is an acquire with a holder in its way, or without one.
func denied(process string, from, to int, h robust.Hold) told {
	o := call(robust.Acquire, process, from, to, robust.Refused)
	o.Code, o.Holder = wire.CodeAlreadyLocked, h
	if h == (robust.Hold{}) {
		o.Code = wire.CodeReserved
	}
	return o
}

// superseded is an acquire whose place a later one has taken.
func superseded(process string, from, to int, h robust.Hold) told {
	o := denied(process, from, to, h)
	o.Code = wire.CodeSuperseded
	return o
}

func released(from, to, at int, h robust.Hold) told {
	o := call(robust.Release, h.Process, from, to, robust.Done)
	o.Token, o.At = h.Token, moment(at)
	return o
}

// renewed gives a hold a new end.
func renewed(from, to, at int, h robust.Hold, until int) told {
	o := call(robust.Renew, h.Process, from, to, robust.Done)
	o.Token, o.At, o.TTL = h.Token, moment(at), ms(until-at)
	o.Holder = h
	o.Holder.ExpiresAt = moment(until)
	return o
}

func status(from, to int, h robust.Hold) told {
	o := call(robust.Status, "", from, to, robust.Done)
	o.Holder = h
	return o
}

func queue(from, to int, processes ...string) told {
	o := call(robust.Queue, "", from, to, robust.Done)
	o.Queue = processes
	return o
}

// notHeld is a release or a renewal that was refused.
func notHeld(kind robust.Kind, from, to int, process string, token int64, code wire.Code) told {
	o := call(kind, process, from, to, robust.Refused)
	o.Token, o.Code = token, code
	return o
}

// lost is the operation without its answer.
func (o told) lost() told {
	o.Outcome, o.Holder, o.At, o.Waited = robust.Unknown, robust.Hold{}, time.Time{}, 0
	return o
}

func (o told) hungUp() told {
	o = o.lost()
	o.HungUp = true
	return o
}

func (o told) failed() told {
	o = o.lost()
	o.Outcome = robust.Failed
	return o
}

// waited tells since when the acquire had a place in the queue.
func (o told) waited(since int) told {
	o.Wait = time.Minute
	if o.Outcome == robust.Done {
		o.Waited = o.Holder.LockedAt.Sub(moment(since))
	}
	return o
}

func (o told) named(requestID string) told {
	o.RequestID = requestID
	return o
}

func (o told) through(server int) told {
	o.Server = server
	return o
}

func history(all ...told) []robust.Operation {
	operations := make([]robust.Operation, len(all))
	for i, o := range all {
		operations[i] = robust.Operation(o)
	}
	slices.SortStableFunc(operations, func(o, p robust.Operation) int { return cmp.Compare(o.Called, p.Called) })
	return operations
}

var nobody robust.Hold

// tale is a history and what is wrong with it.
type tale struct {
	name    string
	history []robust.Operation
	faults  []robust.Fault
	model   string // the guarantee that the model names; empty: it finds nothing
	rules   string // that the invariants name
}

func tales() []tale {
	a, b := hold("a", 10, 1, 0), hold("b", 20, 10, 0)
	short := hold("a", 10, 1, 9) // is over when b gets the lock
	long := hold("a", 10, 1, 50) // is short, renewed
	return []tale{
		{name: "nothing"},
		{name: "one after the other", history: history(
			got(0, 2, a), denied("b", 3, 4, a), status(3, 4, a), released(5, 6, 5, a), status(7, 8, nobody), got(9, 11, b))},
		{name: "two at once", model: "G1", rules: "G1", history: history(got(0, 2, a), got(9, 11, b))},
		{name: "two at once, and the first goes on", model: "G1", rules: "G1", history: history(
			got(0, 2, a), got(9, 11, b), renewed(12, 13, 12, a, 50))},
		{name: "two at once by the service's clock alone", model: "G1", rules: "G1", history: history(
			got(0, 20, a), got(0, 20, b), released(12, 20, 15, a))},
		{name: "two at once by the clients' clock alone", model: "G6", rules: "G1", history: history(
			got(0, 2, hold("a", 10, 1, 0)), got(3, 4, b), released(5, 6, 2, a))},
		{name: "an acquire long under way", history: history(
			got(0, 30, a), got(3, 11, b), released(31, 32, 31, b)), model: "G1", rules: "G1"},

		{name: "expired", history: history(got(0, 2, short), got(3, 11, b))},
		{name: "expired, and told so", history: history(
			got(0, 2, short), status(9, 10, nobody), notHeld(robust.Release, 9, 10, "a", 10, wire.CodeNotHeld), got(9, 11, b))},
		{name: "expired, and told as that", history: history(
			got(0, 2, short), got(3, 11, b), notHeld(robust.Release, 12, 13, "a", 10, wire.CodeExpired),
			notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeExpired))},
		{name: "expired, and told as that, by nobody else's answer", history: history(
			got(0, 2, short), status(9, 10, nobody), notHeld(robust.Release, 9, 10, "a", 0, wire.CodeExpired))},
		{name: "told as expired before it expired", model: "G2", rules: "G2", history: history(
			got(0, 2, short), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeExpired), renewed(5, 6, 5, short, 24))},
		{name: "told as expired, though it never does", model: "G2", rules: "G5", history: history(
			got(0, 2, a), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeExpired))},
		{name: "told as expired, though it was released", rules: "G5", history: history(
			got(0, 2, short), released(3, 5, 4, short), notHeld(robust.Release, 6, 7, "a", 10, wire.CodeExpired))},
		{name: "told as released, though it expired", rules: "G5", history: history(
			got(0, 2, short), got(3, 11, b), notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeAlreadyReleased))},
		{name: "told as released, though it expired, by nobody else's answer", model: "G5", rules: "G5", history: history(
			got(0, 2, short), notHeld(robust.Release, 10, 11, "a", 10, wire.CodeAlreadyReleased))},
		{name: "told as expired, though it never was", rules: "G5", history: history(
			got(0, 2, a), released(3, 4, 3, a), notHeld(robust.Release, 5, 6, "c", 7, wire.CodeExpired))},
		{name: "told as released after its release was lost", history: history(
			got(0, 2, short), released(3, 4, 0, short).lost(), notHeld(robust.Release, 5, 6, "a", 10, wire.CodeAlreadyReleased))},
		{name: "told as expired after its release was lost", history: history(
			got(0, 2, short), released(3, 4, 0, short).lost(), got(5, 11, b), notHeld(robust.Release, 12, 13, "a", 10, wire.CodeExpired))},
		{name: "told as broken", model: "G5", rules: "G5", history: history(
			got(0, 2, short), got(3, 11, b), notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeForceReleased))},
		{name: "gone before it expired", rules: "G2", history: history(
			got(0, 2, hold("a", 10, 1, 100)), status(50, 51, nobody))},
		{name: "refused before it expired", rules: "G2", history: history(
			got(0, 2, hold("a", 10, 1, 100)), notHeld(robust.Renew, 50, 51, "a", 10, wire.CodeNotHeld))},
		{name: "granted before it expired", model: "G1", rules: "G1", history: history(
			got(0, 2, hold("a", 10, 1, 11)), got(3, 11, b))},
		{name: "renewed", history: history(
			got(0, 2, short), renewed(3, 5, 4, short, 24), status(20, 21, hold("a", 10, 1, 24)),
			got(22, 26, hold("b", 20, 25, 0)))},
		{name: "granted before the renewed end", model: "G1", rules: "G1", history: history(
			got(0, 2, short), renewed(3, 5, 4, short, 24), got(6, 11, b))},
		{name: "renewed when it was over", model: "G5", rules: "G5", history: history(got(0, 2, short), renewed(10, 12, 11, short, 24))},
		{name: "released when it was over", model: "G5", rules: "G5", history: history(got(0, 2, short), released(10, 12, 11, short))},
		{name: "a status that has not seen the renewal", model: "G2", history: history(
			got(0, 2, short), renewed(3, 5, 4, short, 24), status(6, 7, short))},

		// The old end is at 9.
		{name: "a renewal is committed after the old end, and a status came between", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), status(10, 11, nobody), status(16, 17, long), released(18, 20, 19, long),
			got(21, 23, hold("b", 30, 22, 0)))},
		{name: "the same, and nothing shows the new end but the renewal", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), status(10, 11, nobody))},
		{name: "the same, after a wait", history: history(
			got(0, 2, short).waited(0), renewed(3, 15, 4, short, 50), status(10, 11, nobody), status(12, 13, nobody), status(16, 17, long))},
		{name: "two renewals, each committed after the end before", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 20), status(10, 11, nobody), renewed(16, 30, 17, short, 50),
			status(16, 17, hold("a", 10, 1, 20)), status(22, 23, nobody), released(40, 42, 41, long))},
		{name: "a renewal, and a status that came before the old end", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), status(5, 6, nobody), status(16, 17, long))},
		{name: "a renewal, and a status that came before it", model: "G2", rules: "G2", history: history(
			got(0, 2, short), status(3, 4, nobody), renewed(5, 15, 6, short, 50))},
		{name: "a renewal, and a status that came after its answer", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 10, 4, short, 50), status(11, 12, nobody), status(16, 17, long))},
		{name: "a renewal, and a status that came after one that showed it", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 20, 4, short, 50), status(10, 11, long), status(12, 13, nobody), status(16, 17, long))},
		{name: "a renewal under way, and a newcomer is told that nobody has it", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), denied("b", 10, 11, nobody), status(16, 17, long))},
		{name: "a renewal under way, and a newcomer gets it", model: "G1", rules: "G1", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), got(9, 11, b), status(16, 17, long))},
		{name: "a renewal under way, and its release is refused", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 15, 4, short, 50), notHeld(robust.Release, 10, 11, "a", 10, wire.CodeExpired), status(16, 17, long))},
		{name: "a renewal of a hold without end, and a status says it is over", model: "G2", rules: "G2", history: history(
			got(0, 2, a), renewed(3, 15, 4, a, 50), status(10, 11, nobody), status(16, 17, long))},
		{name: "a renewal was lost, committed after the old end, and a status came between", history: history(
			got(0, 2, short), renewed(3, 5, 4, short, 50).lost(), status(10, 11, nobody), status(16, 17, long), released(18, 20, 19, long))},
		{name: "a renewal was lost, and a status came before the old end", model: "G2", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 4, 4, short, 50).lost(), status(5, 6, nobody), status(16, 17, long))},
		{name: "a renewal was lost, and a status came after one that showed it", rules: "G2", history: history(
			got(0, 2, short), renewed(3, 5, 4, short, 50).lost(), status(10, 11, long), status(12, 13, nobody), status(16, 17, long))},

		{name: "lost in a crash", model: "G2", rules: "G2", history: history(got(0, 2, a), status(5, 6, nobody))},
		{name: "lost in a crash, the next one gets it", model: "G1", rules: "G1", history: history(got(0, 2, a), got(5, 11, b))},
		{name: "another holder is told than there is", model: "G1", rules: "G2", history: history(
			got(0, 2, a), denied("c", 5, 6, hold("b", 20, 4, 0)), got(3, 7, hold("b", 20, 4, 0)).lost())},
		{name: "a holder who has not asked", model: "G9", rules: "G9", history: history(status(5, 6, a))},
		{name: "a holder who was refused", model: "G9", rules: "G9", history: history(
			denied("a", 0, 1, nobody), status(5, 6, hold("a", 10, 4, 0)))},
		{name: "a holder whom the server was too busy for", model: "G9", rules: "G9", history: history(
			got(0, 1, a).failed(), status(5, 6, a))},

		{name: "a lower token", model: "G3", rules: "G3", history: history(
			got(0, 2, hold("a", 30, 1, 0)), released(3, 4, 3, hold("a", 30, 1, 0)), got(9, 11, b))},
		{name: "the same token", model: "G3", rules: "G3", history: history(
			got(0, 2, a), released(3, 4, 3, a), got(9, 11, hold("b", 10, 10, 0)))},
		{name: "a token that is no whole number to JavaScript", rules: "G3", history: history(got(0, 2, hold("a", 1<<53, 1, 0)))},

		{name: "a release was lost, and happened", history: history(got(0, 2, a), released(3, 4, 0, a).lost(), got(5, 11, b))},
		{name: "a release was lost, and did not happen", history: history(
			got(0, 2, a), released(3, 4, 0, a).lost(), status(8, 9, a), released(20, 21, 20, a))},
		{name: "a release was lost, and happened late", history: history(
			got(0, 2, a), released(3, 4, 0, a).lost(), status(8, 9, a), status(11, 12, nobody))},
		{name: "a release was lost, and happened before it was called", model: "G2", rules: "G2", history: history(
			got(0, 2, a), status(3, 4, nobody), released(5, 6, 0, a).lost())},
		{name: "a release failed, and happened", model: "G1", rules: "G1", history: history(
			got(0, 2, a), released(3, 4, 0, a).failed(), got(5, 11, b))},
		{name: "a balancer released twice", history: history(
			got(0, 2, a), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeAlreadyReleased).through(robust.Balancer), got(5, 11, b))},
		{name: "a renewal was lost, and happened", history: history(
			got(0, 2, short), renewed(3, 4, 0, short, 30).lost(), status(12, 13, hold("a", 10, 1, 33)), released(14, 15, 14, short))},
		{name: "a renewal was lost, and did not happen", history: history(
			got(0, 2, short), renewed(3, 4, 0, short, 30).lost(), got(5, 11, b))},
		{name: "a renewal was lost, and made the hold shorter", history: history(
			got(0, 2, a), renewed(3, 4, 0, a, 5).lost(), got(5, 11, b))},

		{name: "a repeated request", history: history(got(0, 2, a).named("x"), got(3, 4, a).named("x"))},
		{name: "a repeated request whose first answer was lost", history: history(
			got(0, 2, a).named("x").lost(), status(3, 4, a), got(5, 6, a).named("x"), released(7, 8, 7, a), got(9, 11, b))},
		{name: "a repeated request after its hold ended", history: history(
			got(0, 2, short).named("x"), got(5, 11, hold("a", 20, 10, 0)).named("x"))},
		{name: "a repeated request gets another hold", model: "G1", rules: "G5", history: history(
			got(0, 2, a).named("x"), got(5, 11, hold("a", 20, 10, 0)).named("x"))},
		{name: "a repeated request is refused", model: "G5", rules: "G5", history: history(
			got(0, 2, a).named("x"), denied("a", 3, 4, a).named("x"))},
		{name: "superseded, and told no holder", history: history(
			got(0, 2, a), superseded("b", 3, 4, nobody), status(5, 6, a))},
		{name: "superseded, and told another holder than there is", model: "G9", rules: "G2", history: history(
			got(0, 2, a), superseded("b", 3, 4, b), status(5, 6, a))},
		{name: "the same process without a name is refused", history: history(got(0, 2, a), denied("a", 3, 4, a))},
		{name: "released twice", model: "G5", rules: "G5", history: history(got(0, 2, a), released(3, 4, 3, a), released(5, 6, 5, a))},
		{name: "the second release is refused", history: history(
			got(0, 2, a), released(3, 4, 3, a), notHeld(robust.Release, 5, 6, "a", 10, wire.CodeAlreadyReleased))},
		{name: "a release is refused", model: "G2", rules: "G2", history: history(
			got(0, 2, a), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeAlreadyReleased))},
		{name: "a released hold comes back", model: "G5", rules: "G5", history: history(
			got(0, 2, a), released(3, 4, 3, a), status(5, 6, a))},
		{name: "a released hold is renewed", model: "G5", rules: "G5", history: history(
			got(0, 2, a), released(3, 4, 3, a), renewed(5, 6, 5, a, 30))},
		{name: "a hold comes back after the next one", model: "G1", rules: "G5", history: history(
			got(0, 2, short), got(3, 11, b), released(12, 13, 12, b), status(14, 15, short))},
		{name: "another token of the process", history: history(
			got(0, 2, short), got(3, 11, hold("a", 20, 10, 0)), notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeTokenMismatch))},
		{name: "another token, though the process has none", model: "G5", history: history(
			got(0, 2, a), released(3, 4, 3, a), notHeld(robust.Renew, 12, 13, "a", 20, wire.CodeTokenMismatch))},

		{name: "first come, first served", history: history(
			got(0, 2, a), got(3, 22, hold("b", 20, 20, 21)).waited(4), got(5, 32, hold("c", 30, 30, 0)).waited(6), released(19, 21, 20, a))},
		{name: "overtaken in the queue", rules: "G4", history: history(
			got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(4), got(5, 22, hold("c", 20, 20, 21)).waited(6), released(19, 21, 20, a))},
		{name: "overtaken by one who did not wait", rules: "G4", history: history(
			got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(4), got(18, 22, hold("c", 20, 20, 21)), released(17, 21, 19, a))},
		{name: "overtaken, as the queue was seen", rules: "G4", history: history(
			got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(9), queue(5, 6, "b"), got(7, 22, hold("c", 20, 20, 21)).waited(8),
			released(19, 21, 20, a))},
		{name: "overtaken at the same microsecond", history: history(
			got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(6), got(5, 22, hold("c", 20, 20, 21)).waited(6), released(19, 21, 20, a))},
		{name: "overtaken while it was cut off", history: history(
			got(0, 2, a), got(3, 10, b).waited(0).named("x").lost(), got(25, 32, hold("b", 30, 30, 0)).waited(4).named("x"),
			got(5, 22, hold("c", 20, 20, 21)).waited(6), released(19, 21, 20, a))},
		{
			name: "overtaken while its server stood still", history: history(
				got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(4), got(5, 22, hold("c", 20, 20, 21)).waited(6).through(1),
				released(19, 21, 20, a)),
			faults: []robust.Fault{{Kind: "pause", Server: 0, From: ms(10), To: ms(20)}},
		},
		{
			name: "overtaken while another server stood still", rules: "G4", history: history(
				got(0, 2, a), got(3, 32, hold("b", 30, 30, 0)).waited(4), got(5, 22, hold("c", 20, 20, 21)).waited(6).through(1),
				released(19, 21, 20, a)),
			faults: []robust.Fault{{Kind: "pause", Server: 1, From: ms(10), To: ms(20)}},
		},
		{name: "overtaken while its server said nothing", history: history(
			got(0, 2, a), got(3, 3032, hold("b", 30, 3030, 0)).waited(4),
			got(5, 2022, hold("c", 20, 2020, 2021)).waited(6).through(1), released(2019, 2021, 2020, a).through(1))},

		{name: "hung up, and its grant was given back", history: history(
			got(0, 2, a), got(3, 10, b).waited(4).hungUp(), released(9, 11, 10, a), status(11, 12, b), status(13, 14, nobody))},
		{name: "hung up while it was granted", history: history(
			got(0, 2, a), released(3, 4, 3, a), got(3, 10, hold("b", 20, 9, 0)).waited(4).hungUp(), status(4000, 4001, hold("b", 20, 9, 0)))},
		{name: "hung up, and stays the holder", rules: "G7", history: history(
			got(0, 2, hold("a", 10, 1, 900)), got(3, 10, b).waited(4).hungUp(), renewed(500, 501, 500, hold("a", 10, 1, 900), 800),
			status(4000, 4001, hold("b", 20, 800, 0)))},
		{
			name: "hung up, and its server was killed", history: history(
				got(0, 2, hold("a", 10, 1, 900)), got(3, 10, b).waited(4).hungUp(), renewed(500, 501, 500, hold("a", 10, 1, 900), 800),
				status(4000, 4001, hold("b", 20, 800, 0))),
			faults: []robust.Fault{{Kind: "kill", Server: 0, From: ms(8), To: ms(9)}},
		},
		{name: "an acquire was lost, and not granted", history: history(got(0, 2, a).lost(), got(5, 11, b))},
		{name: "an acquire was lost, and released by its process", history: history(
			got(0, 2, a).lost(), status(3, 4, a), released(5, 6, 5, told{}.anyOf(a)), got(9, 11, b))},
		{name: "an acquire was lost, and another token of the process is in the way", history: history(
			got(0, 2, short), got(11, 12, hold("a", 20, 11, 13)).lost(), notHeld(robust.Release, 12, 13, "a", 10, wire.CodeTokenMismatch))},
	}
}

// anyOf is a hold of which only the process is known.
func (told) anyOf(h robust.Hold) robust.Hold {
	h.Token = 0
	return h
}

// TestTales: each checker accepts what is legal and names the guarantee that is broken, where it can see it.
func TestTales(t *testing.T) {
	for _, tale := range tales() {
		t.Run(tale.name, func(t *testing.T) {
			wantFound(t, "the model", tale.model, robust.CheckModel(tale.history, time.Minute))
			wantFound(t, "the invariants", tale.rules, robust.CheckInvariants(tale.history, tale.faults))
		})
	}
}

func wantFound(t *testing.T, who, guarantee string, violations []robust.Violation) {
	t.Helper()
	named := slices.ContainsFunc(violations, func(v robust.Violation) bool { return v.Guarantee == guarantee })
	if guarantee == "" && len(violations) > 0 || guarantee != "" && !named {
		t.Errorf("%s must find %q: %v", who, guarantee, violations)
	}
}
