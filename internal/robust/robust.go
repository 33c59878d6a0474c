// Package robust tries to break the guarantees of docs/GUARANTEES.md. Clients record
// every call that they make to real lockd processes while real faults happen. Afterwards
// two checkers that share nothing but the record judge it:
//
//   - [CheckModel] uses porcupine to find out whether the calls on each resource can be
//     put into an order, each between its call and its answer, in which the lock rules
//     explain every answer.
//   - [CheckInvariants] uses no order and no model. It checks the guarantees one by one:
//     no two holders, growing tokens, first come first served, no acknowledged hold lost,
//     no released hold returns, no disconnected client holds.
//
// A call with an unknown outcome counts as either outcome. The checkers do not judge what
// the record does not decide: a checker with false alarms is ignored.
package robust

import (
	"fmt"
	"math"
	"time"
)

// Violation is a guarantee that was broken.
type Violation struct {
	Guarantee string // G1 to G9
	Resource  string
	What      string // with the operations that show it
}

func (v Violation) String() string {
	return fmt.Sprintf("%s on %s: %s", v.Guarantee, v.Resource, v.What)
}

// forever is a time of the run that never comes.
const forever = time.Duration(math.MaxInt64)

// atLeast returns how much of a duration of the service's clock must pass on this
// machine's clock. The rates of the two clocks may differ slightly.
func atLeast(d time.Duration) time.Duration { return d - d/1000 - time.Millisecond }
