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

func violations(operations []robust.Operation) []robust.Violation {
	return append(robust.CheckModel(operations, time.Minute), robust.CheckInvariants(operations, nil)...)
}

func TestLegalHistoriesAreAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &simulation{resource: "r", maxDelay: 1 + rapid.IntRange(0, 30000).Draw(t, "maxDelay")}
		s.choose = func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "") }
		operations := s.run(rapid.IntRange(0, 150).Draw(t, "steps"))
		if violations := violations(operations); len(violations) > 0 {
			for _, o := range operations {
				t.Log(o)
			}
			t.Fatal(violations)
		}
	})
}

// corruptions change one answer, where the history does not permit the changed answer
// too. Another token is permitted if no other answer shows the hold. It is also permitted
// if the process has lost an answer, which may have ended one hold or started the other.
// A status may be as old as its call, so it is right if the hold may have started or
// ended since. While a renewal is being committed, the old end is right.
var corruptions = []struct {
	name string
	// change corrupts o. It reports whether the checkers must find that.
	change func(o *robust.Operation, operations []robust.Operation) bool
}{
	{"an answer shows another token", func(o *robust.Operation, operations []robust.Operation) bool {
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
	{"an answer shows another holder", func(o *robust.Operation, _ []robust.Operation) bool {
		shown := o.Holder.Token != 0
		o.Holder.Process = "p0"
		return shown
	}},
	{"a status says that no process holds the lock", func(o *robust.Operation, operations []robust.Operation) bool {
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
	{"a refusal states another reason", func(o *robust.Operation, operations []robust.Operation) bool {
		token, shown, ended := o.Token, false, false
		for _, other := range operations {
			shown = shown || granted(other) && other.Holder.Token == token
			// A call without an answer may have ended the hold, or changed its end.
			ended = ended || other.Process == o.Process && other.Outcome == robust.Unknown
			// A release without a token may have ended it too.
			ended = ended || other.Process == o.Process && other.Kind == robust.Release &&
				other.Outcome == robust.Done && other.Token == 0
		}
		was := o.Code
		if o.Code = wire.CodeExpired; was == wire.CodeExpired {
			o.Code = wire.CodeAlreadyReleased
		}
		return (was == wire.CodeExpired || was == wire.CodeAlreadyReleased) && shown && !ended
	}},
	{
		"a waiter was queued before another one that was served",
		func(o *robust.Operation, operations []robust.Operation) bool {
			i := slices.IndexFunc(operations, func(other robust.Operation) bool {
				return granted(other) && other.Process != o.Process && other.Holder.Token < o.Holder.Token
			})
			if i < 0 || o.Wait == 0 || o.RequestID != "" { // others may pass the place of a request that was cut off
				return false
			}
			queued := operations[i].Holder.LockedAt.Add(-operations[i].Waited)
			o.Waited = o.Holder.LockedAt.Sub(queued) + time.Microsecond
			return granted(*o)
		},
	},
}

func granted(o robust.Operation) bool { return o.Kind == robust.Acquire && o.Outcome == robust.Done }

// TestOneWrongAnswerIsFound requires that at least one of the checkers finds a changed
// answer.
func TestOneWrongAnswerIsFound(t *testing.T) {
	for _, corruption := range corruptions {
		t.Run(corruption.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			tried, byModel, byRules := 0, 0, 0
			for range 300 {
				s := &simulation{resource: "r", maxDelay: 1000, choose: r.IntN}
				operations := s.run(60)
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
				t.Error("too few wrong answers")
			}
		})
	}
}

// TestManyOperationsAreJudgedSoon judges as many operations as a run of some minutes
// records.
func TestManyOperationsAreJudgedSoon(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var operations []robust.Operation
	for n := range 12 {
		s := &simulation{resource: fmt.Sprint(n), maxDelay: 30000, choose: r.IntN}
		operations = append(operations, s.run(3000)...)
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
