// Package robust tries to break the guarantees of docs/GUARANTEES.md: clients record every call that they make to real lockd
// processes while something real is broken, and two checkers that share nothing but the record judge it afterwards.
//
//   - [CheckModel] asks porcupine whether the calls on each resource can be put into an order, each between its call and its
//     answer, in which the lock rules explain every answer.
//   - [CheckInvariants] knows no order and no rules of its own but the guarantees, one by one: no two holders, tokens that
//     only grow, first come first served, nothing acknowledged lost, nothing released comes back, nobody who has gone holds.
//
// A call whose outcome is not known is taken as either. What the record cannot tell is not judged: a checker that cries wolf
// is not listened to.
package robust

import "fmt"

// Violation is a guarantee found broken.
type Violation struct {
	Guarantee string // G1 to G9
	Resource  string
	What      string // with the operations that show it
}

func (v Violation) String() string {
	return fmt.Sprintf("%s on %s: %s", v.Guarantee, v.Resource, v.What)
}
