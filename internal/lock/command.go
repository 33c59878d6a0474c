package lock

import (
	"slices"
	"time"
)

// Command is one change to one or more resources. Decide is pure: the same states and moment give the same outcome, and
// an error is a refusal that changes nothing.
//
// The states need not have the whole queue of a resource. They have its first connected waiters, more of them than all
// commands of the transaction together can take from its head (see [HandsOver]), and the places that the commands name
// (see [Placed]).
type Command interface {
	// Resources names what the command touches, each name once. They are locked before the moment is read.
	Resources() []string
	// Decide gets the states of Resources, in that order.
	Decide(now time.Time, before []Resource) (Outcome, error)
}

// Placed is a command about certain places in queues.
type Placed interface {
	Places() []Place
}

// Place names a place in a queue. There is at most one of that name.
type Place struct {
	Resource  string
	ProcessID string
	RequestID string
}

// HandsOver tells whether a command may end a hold or a place, so that one more waiter comes to the head of the queue. An
// acquire does not: however many share a transaction, at most one waiter is granted because of them.
func HandsOver(c Command) bool {
	_, acquires := c.(Acquire)
	return !acquires
}

// Patience is how long a command that is patient may wait for another one that is not, to share its transaction: a request that
// has to wait need not cost one of its own, before which nobody who holds the resource could release it.
const Patience = time.Millisecond

// IsPatient tells whether a command is.
func IsPatient(c Command) bool {
	acquire, acquires := c.(Acquire)
	return acquires && acquire.Patient
}

// Outcome is what a command decided.
type Outcome struct {
	Now     time.Time  // the moment of the decision
	Hold    Hold       // the hold it was about, for commands about one hold; without a token when an acquire has to wait
	Changed []Resource // the new states to store
	Events  []Event    // what to append to the history
	Granted []Grant    // what waiters connected to this server were granted, other than the asking one

	Repeated   bool      // an acquire found the hold of an earlier request with its RequestID
	Ticket     int64     // the place of an acquire that waits, or that had waited before it was granted; 0: none
	Superseded []*Waiter // requests whose place an acquire has taken
	Endless    []Owned   // the holds that RenewAll left alone because they never expire
}

// Grant is what an acquire got.
type Grant struct {
	ID   int64     // the resource's row
	Now  time.Time // the moment of the decision
	Hold Hold
	To   Acquire

	Repeated bool  // an earlier request with the same RequestID was granted it before
	Ticket   int64 // the place that the request had in the queue; 0: none
}

// undo returns what ends a grant whose client has gone before it was told. It reports false when the hold stays: its
// request can be repeated and has never had a place, or a later request was told of the hold.
func (g Grant) undo(keep time.Duration) (Leave, bool) {
	leave := hungUp(g.To)
	if g.To.Named {
		leave.Ticket, leave.Keep = g.Ticket, keep
	}
	return leave, g.To.has(g.Hold) && (!g.To.Named || g.Ticket != 0)
}

// settle adds the new state of a resource, after it has ended what is over and handed the resource on if it is free.
func (o *Outcome) settle(r Resource) {
	r, expired := r.endExpired(o.Now)
	first := len(o.Events)
	for first > 0 && o.Events[first-1].Resource == r.Name {
		first--
	}
	o.Events = slices.Insert(o.Events, first, expired...) // before what happens to the resource now
	if first := r.next(o.Now); first != nil && first.Here {
		r = r.leave(first)
		grant := Grant{ID: r.ID, Now: o.Now, Hold: first.Request.hold(o.Now, r), To: first.Request, Ticket: first.Ticket}
		grant.Hold.QueuedAt = first.Since
		r = r.grant(grant.Hold)
		o.Granted = append(o.Granted, grant)
		o.Events = append(o.Events, beginning(r.Name, grant.Hold))
	}
	o.Changed = append(o.Changed, r)
}

// add takes over what another outcome, decided at the same moment, changed.
func (o *Outcome) add(other Outcome) {
	o.Changed = append(o.Changed, other.Changed...)
	o.Events = append(o.Events, other.Events...)
	o.Granted = append(o.Granted, other.Granted...)
}
