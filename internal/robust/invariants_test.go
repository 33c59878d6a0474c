package robust_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// simulation is a lock service without faults, and what its clients record: it decides one thing after the other, some time between
// call and answer. Answers get lost, and clients hang up.
type simulation struct {
	choose   func(n int) int // from 0 to n-1
	resource string
	maxDelay int // the longest way of a request or an answer, in microseconds

	now        int // microseconds
	attempts   int
	token      int64
	held       *request // nil: free
	last       *request // whose hold ended last, if its client knows that it had it
	lastEnd    wire.Code
	queue      []*request
	operations []robust.Operation
}

// request is a request for the lock, and what it got.
type request struct {
	robust.Operation
	queued, until int  // in the queue
	answered      int  // when its client knows that it has it
	lost          bool // it only knows that it may have it
}

func (w *simulation) run(steps int) []robust.Operation {
	w.now = w.maxDelay
	for range steps {
		w.step()
	}
	for w.held != nil || len(w.queue) > 0 {
		w.advance()
		w.actAsHolder()
	}
	slices.SortStableFunc(w.operations, func(o, p robust.Operation) int { return cmp.Compare(o.Called, p.Called) })
	return w.operations
}

func (w *simulation) step() {
	w.advance()
	switch n := w.choose(20); {
	case n < 8:
		w.acquire()
	case n < 10:
		o := w.call(robust.Status, "", w.now-w.delay())
		w.showHolder(&o)
		w.record(o, robust.Done)
	case n < 11:
		o := w.call(robust.Queue, "", w.now-w.delay())
		for _, waiter := range w.queue {
			o.Queue = append(o.Queue, waiter.Process)
		}
		w.record(o, robust.Done)
	case n < 12 && w.last != nil:
		o := w.call([]robust.Kind{robust.Release, robust.Renew}[w.choose(2)], w.last.Process, max(w.last.answered, w.now-w.delay()))
		o.Token, o.Code = w.last.Holder.Token, w.lastEnd
		w.record(o, robust.Refused)
	case n < 12:
		o := w.call(robust.Release, "nobody", w.now-w.delay())
		o.Code = wire.CodeNotHeld
		w.record(o, robust.Refused)
	case n < 13 && len(w.queue) > 0:
		i := w.choose(len(w.queue))
		gone := w.queue[i]
		w.queue = slices.Delete(w.queue, i, i+1)
		gone.Disconnected = true
		w.record(gone.Operation, robust.Unknown)
	default:
		w.actAsHolder()
	}
}

// pass lets time pass, and what comes with it.
func (w *simulation) advance() {
	w.now += 1 + w.choose(2000)
	w.queue = slices.DeleteFunc(w.queue, func(t *request) bool {
		if t.until <= w.now {
			t.Code = wire.CodeWaitTimeout
			w.showHolder(&t.Operation)
			w.record(t.Operation, robust.Refused)
		}
		return t.until <= w.now
	})
	if w.held != nil && !w.held.Holder.ExpiresAt.IsZero() && !w.time().Before(w.held.Holder.ExpiresAt) {
		w.endHold(wire.CodeExpired)
	}
}

func (w *simulation) time() time.Time { return time.UnixMicro(1e15 + int64(w.now)) }

func (w *simulation) delay() int { return w.choose(w.maxDelay) }

// call begins an operation.
func (w *simulation) call(kind robust.Kind, process string, called int) robust.Operation {
	return robust.Operation{
		Kind: kind, Resource: w.resource, Process: process, Client: w.attempts % 16, Called: time.Duration(called) * time.Microsecond,
	}
}

// record ends an operation that is decided now, and returns when its client knows.
func (w *simulation) record(o robust.Operation, outcome robust.Outcome) int {
	returned := w.now + w.delay()
	o.Returned, o.Outcome = time.Duration(returned)*time.Microsecond, outcome
	w.operations = append(w.operations, o)
	return returned
}

// tell has an answer show who holds the lock.
func (w *simulation) showHolder(o *robust.Operation) {
	if w.held == nil {
		return
	}
	o.Holder, o.At = w.held.Holder, time.Time{}
	if !o.Holder.ExpiresAt.IsZero() {
		o.At = w.time()
	}
}

func (w *simulation) acquire() {
	w.attempts++
	t := &request{queued: w.now}
	t.Operation = w.call(robust.Acquire, fmt.Sprint("p", w.attempts), w.now-w.delay())
	if w.choose(2) == 0 {
		t.RequestID = t.Process
	}
	if w.choose(2) == 0 {
		t.TTL = time.Duration(2000+w.choose(20000)) * time.Microsecond
	}
	if w.choose(3) > 0 {
		t.Wait = time.Duration(1+w.choose(50000)) * time.Microsecond
	}
	t.until = w.now + int(t.Wait.Microseconds())
	switch {
	case w.held == nil:
		w.grant(t)
	case t.Wait > 0:
		w.queue = append(w.queue, t)
	default:
		t.Code = wire.CodeAlreadyLocked
		w.showHolder(&t.Operation)
		w.record(t.Operation, robust.Refused)
	}
}

func (w *simulation) grant(t *request) {
	w.token = max(w.token+1, 1e15+int64(w.now))
	t.Holder = robust.Hold{Process: t.Process, Token: w.token, LockedAt: w.time()}
	if t.TTL != 0 {
		t.Holder.ExpiresAt, t.At = w.time().Add(t.TTL), w.time()
	}
	t.Waited = time.Duration(w.now-t.queued) * time.Microsecond
	w.held = t
	if t.lost = w.choose(8) == 0; t.lost {
		o := t.Operation
		o.Holder, o.At, o.Waited = robust.Hold{}, time.Time{}, 0
		t.answered = w.record(o, robust.Unknown)
	} else {
		t.answered = w.record(t.Operation, robust.Done)
	}
}

func (w *simulation) endHold(end wire.Code) {
	if w.last, w.lastEnd = w.held, end; w.held.lost || w.held.answered > w.now {
		w.last = nil
	}
	w.held = nil
	if len(w.queue) > 0 {
		next := w.queue[0]
		w.queue = w.queue[1:]
		w.grant(next)
	}
}

// use has the holder do something, if it knows by now that it is the holder.
func (w *simulation) actAsHolder() {
	t := w.held
	if t == nil || t.answered > w.now {
		return
	}
	called := max(t.answered, w.now-w.delay())
	lost := w.choose(8) == 0
	switch n := w.choose(6); {
	case n == 0 && t.lost: // the server has noticed that its client has gone
		w.endHold(wire.CodeAlreadyReleased)
	case n == 1 && t.TTL != 0 && !t.lost:
		o := w.call(robust.Renew, t.Process, called)
		o.Token, o.TTL = t.Holder.Token, time.Duration(2000+w.choose(20000))*time.Microsecond
		if lost {
			w.record(o, robust.Unknown)
			if w.choose(2) == 0 {
				return
			}
		}
		decided := w.time()
		w.commit()
		t.Holder.ExpiresAt = decided.Add(o.TTL)
		if !lost {
			o.Holder, o.At = t.Holder, decided
			w.record(o, robust.Done)
		}
	case n == 2 && t.RequestID != "":
		t.lost = false
		o := w.call(robust.Acquire, t.Process, called)
		o.RequestID, o.TTL, o.Waited = t.RequestID, t.TTL, t.Waited
		w.showHolder(&o)
		w.record(o, robust.Done)
	default:
		o := w.call(robust.Release, t.Process, called)
		if !t.lost {
			o.Token = t.Holder.Token * int64(w.choose(2))
		}
		if lost {
			w.record(o, robust.Unknown)
			if w.choose(2) == 0 {
				return
			}
		} else {
			o.At = w.time()
			w.record(o, robust.Done)
		}
		w.endHold(wire.CodeAlreadyReleased)
	}
}

// commit lets time pass until what the holder asked for is committed. A status reads meanwhile
// what was committed before, by the clock of that moment.
func (w *simulation) commit() {
	for range w.choose(4) {
		w.now += 1 + w.choose(10000)
		o := w.call(robust.Status, "", w.now-w.delay())
		if end := w.held.Holder.ExpiresAt; end.IsZero() || w.time().Before(end) {
			w.showHolder(&o)
		}
		w.record(o, robust.Done)
	}
}

func violations(operations []robust.Operation) []robust.Violation {
	return append(robust.CheckModel(operations, time.Minute), robust.CheckInvariants(operations, nil)...)
}

// TestLegalHistoriesAreAccepted: whatever happens in a simulation without bugs.
func TestLegalHistoriesAreAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &simulation{resource: "r", maxDelay: 1 + rapid.IntRange(0, 30000).Draw(t, "maxDelay")}
		w.choose = func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "") }
		operations := w.run(rapid.IntRange(0, 150).Draw(t, "steps"))
		if violations := violations(operations); len(violations) > 0 {
			for _, o := range operations {
				t.Log(o)
			}
			t.Fatal(violations)
		}
	})
}

// corruptions change one answer, wherever the history does not allow both. Another token is as good if no other answer names
// the hold, or if the process has lost an answer, which may have ended one hold or begun the other. A status may be as old as its call,
// so that it is right if the hold might have begun or ended since. While a renewal is being committed, the old end counts.
var corruptions = []struct {
	name   string
	change func(o *robust.Operation, operations []robust.Operation) bool // tells whether it is one that must be found
}{
	{"another token is answered", func(o *robust.Operation, operations []robust.Operation) bool {
		token, named, lost := o.Holder.Token, false, false
		for _, other := range operations {
			named = named || other.Called != o.Called && other.Outcome != robust.Unknown &&
				(other.Token == token || other.Holder.Token == token)
			lost = lost || other.Process == o.Process && other.Outcome == robust.Unknown
		}
		o.Holder.Token++
		return granted(*o) && named && !lost
	}},
	{"a token is given twice", func(o *robust.Operation, operations []robust.Operation) bool {
		i := slices.IndexFunc(operations, func(other robust.Operation) bool {
			return granted(other) && other.Holder.Token < o.Holder.Token
		})
		if i < 0 {
			return false
		}
		o.Holder.Token = operations[i].Holder.Token
		return granted(*o)
	}},
	{"another holder is told", func(o *robust.Operation, _ []robust.Operation) bool {
		told := o.Holder.Token != 0
		o.Holder.Process = "p0"
		return told
	}},
	{"a status says that nobody holds the lock", func(o *robust.Operation, operations []robust.Operation) bool {
		token, before, after, renewing := o.Holder.Token, false, false, false
		for _, other := range operations {
			shows := token != 0 && other.Holder.Token == token
			before = before || shows && other.Returned < o.Called
			after = after || shows && other.Called > o.Returned
			renewing = renewing || other.Kind == robust.Renew && other.Token == token &&
				(other.Outcome == robust.Unknown || other.Called <= o.Returned && other.Returned >= o.Called)
		}
		o.Holder, o.At = robust.Hold{}, time.Time{}
		return o.Kind == robust.Status && before && after && !renewing
	}},
	{"an end is told as another one", func(o *robust.Operation, operations []robust.Operation) bool {
		token, shown, ended := o.Token, false, false
		for _, other := range operations {
			shown = shown || granted(other) && other.Holder.Token == token
			// An answer that was lost may have ended it, or given it another end.
			ended = ended || other.Process == o.Process && other.Outcome == robust.Unknown
			// So may one that has no token.
			ended = ended || other.Process == o.Process && other.Kind == robust.Release && other.Outcome == robust.Done && other.Token == 0
		}
		was := o.Code
		if o.Code = wire.CodeExpired; was == wire.CodeExpired {
			o.Code = wire.CodeAlreadyReleased
		}
		return (was == wire.CodeExpired || was == wire.CodeAlreadyReleased) && shown && !ended
	}},
	{"one who waited was there before another who was served", func(o *robust.Operation, operations []robust.Operation) bool {
		i := slices.IndexFunc(operations, func(other robust.Operation) bool {
			return granted(other) && other.Process != o.Process && other.Holder.Token < o.Holder.Token
		})
		if i < 0 || o.Wait == 0 || o.RequestID != "" { // a request that was cut has a place that others may pass
			return false
		}
		queued := operations[i].Holder.LockedAt.Add(-operations[i].Waited)
		o.Waited = o.Holder.LockedAt.Sub(queued) + time.Microsecond
		return granted(*o)
	}},
}

func granted(o robust.Operation) bool { return o.Kind == robust.Acquire && o.Outcome == robust.Done }

// TestOneWrongAnswerIsFound by one of the checkers, at least.
func TestOneWrongAnswerIsFound(t *testing.T) {
	for _, corruption := range corruptions {
		t.Run(corruption.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			tried, byModel, byRules := 0, 0, 0
			for range 300 {
				w := &simulation{resource: "r", maxDelay: 1000, choose: r.IntN}
				operations := w.run(60)
				var places []int
				for i, o := range operations {
					if corruption.change(&o, operations) {
						places = append(places, i)
					}
				}
				if len(places) == 0 {
					continue
				}
				tried++
				i := places[r.IntN(len(places))]
				changed := slices.Clone(operations)
				corruption.change(&changed[i], operations)
				model, rules := robust.CheckModel(changed, time.Minute), robust.CheckInvariants(changed, nil)
				byModel += min(len(model), 1)
				byRules += min(len(rules), 1)
				if len(model)+len(rules) == 0 {
					t.Errorf("%v was changed to %v", operations[i], changed[i])
				}
			}
			t.Logf("%d wrong answers; the model found %d, the invariants %d", tried, byModel, byRules)
			if tried < 100 {
				t.Error("too few to tell")
			}
		})
	}
}

// TestManyOperationsAreJudgedSoon: what a run of some minutes records.
func TestManyOperationsAreJudgedSoon(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var operations []robust.Operation
	for n := range 12 {
		w := &simulation{resource: fmt.Sprint(n), maxDelay: 30000, choose: r.IntN}
		operations = append(operations, w.run(3000)...)
	}
	slices.SortStableFunc(operations, func(o, p robust.Operation) int { return cmp.Compare(o.Called, p.Called) })
	begun := time.Now()
	violations := robust.CheckModel(operations, time.Minute)
	model := time.Since(begun)
	violations = append(violations, robust.CheckInvariants(operations, nil)...)
	t.Logf("%d operations: the model took %v, the invariants %v", len(operations), model, time.Since(begun)-model)
	if len(violations) > 0 {
		t.Error(violations)
	}
}
