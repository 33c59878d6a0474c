package lock

import (
	"slices"
	"time"
)

// Command is one change to one or more resources.
type Command interface {
	// Needs returns what the command needs to decide.
	Needs() Needs
	// Decide gets the states of Needs.Resources, in that order. It is pure: the same
	// states and time give the same outcome. An error is a refusal, which changes
	// nothing.
	//
	// A state need not contain the whole queue. It contains the first connected waiters,
	// at least one more than all commands of the transaction can remove, and
	// Needs.Places.
	Decide(now time.Time, before []Resource) (Outcome, error)
}

// Needs states what a command reads and what it may do to a queue.
type Needs struct {
	// Resources are the names of the resources that the command reads or changes, each
	// once. Their rows are locked before the time is read.
	Resources []string
	// Places are the places that the command reads, wherever in the queue they are.
	Places []Place
	// MayFree reports whether the command may end a hold or remove a place, so that the
	// next waiter gets to the head of the queue. An acquire does neither: however many
	// acquires share a transaction, they grant the resource to at most one waiter.
	MayFree bool
}

// Place is the key of a place in a queue.
type Place struct {
	Resource  string
	ProcessID string
	RequestID string
}

// Outcome is what a command decided.
type Outcome struct {
	Now     time.Time  // the time of the decision
	Changed []Resource // the new states to store, only of resources that changed
	Events  []Event    // to be appended to the history
	Granted []Grant    // grants to local waiters, other than to the request of the command

	// The result of a command on one resource.
	Resource Resource // its state after the command
	Hold     Hold     // the hold that the command was about; without a token if an acquire was queued
	Repeated bool     // an acquire got the hold of an earlier request with its RequestID
	Ticket   int64    // the place of an acquire that waits or has waited; 0: none

	// The result of a command on several resources.
	Holds   []HoldRef // what RenewAll renewed or ReleaseAll released
	Endless []HoldRef // what RenewAll left alone because it never expires
	Deleted int       // how many resources DeleteIdle deleted

	Superseded []*Waiter // requests whose places an acquire has taken
}

// AssignIDs sets the ids of rows that were inserted after the decision.
func (o *Outcome) AssignIDs(id func(resource string) int64) {
	if o.Resource.Name != "" {
		o.Resource.ID = id(o.Resource.Name)
	}
	for i := range o.Granted {
		o.Granted[i].ID = id(o.Granted[i].To.Resource)
	}
}

// Grant is a hold together with the request that got it.
type Grant struct {
	ID   int64     // of the resource's row
	Now  time.Time // the time of the decision
	Hold Hold
	To   Acquire

	Repeated bool  // an earlier request with the same RequestID got the hold
	Ticket   int64 // the place that the request had in the queue; 0: none
}

// Grant returns what the command c was granted.
func (o *Outcome) Grant(c Acquire) Grant {
	return Grant{ID: o.Resource.ID, Now: o.Now, Hold: o.Hold, To: c, Repeated: o.Repeated, Ticket: o.Ticket}
}

// reconcile adds the new state of a changed resource. It first ends expired holds and, if
// the resource is free then and its next waiter is local, grants it to that waiter.
func (o *Outcome) reconcile(r Resource) {
	r, expired := r.endExpired(o.Now)
	first := len(o.Events)
	for first > 0 && o.Events[first-1].Resource == r.Name {
		first--
	}
	o.Events = slices.Insert(o.Events, first, expired...) // before the events of now
	if first := r.Next(o.Now); first != nil && first.Local {
		grant := Grant{ID: r.ID, Now: o.Now, Hold: first.hold(o.Now, r), To: first.acquire(), Ticket: first.Ticket}
		r = r.remove(first).grant(grant.Hold)
		o.Granted = append(o.Granted, grant)
		o.Events = append(o.Events, grantEvent(r.Name, grant.Hold))
	}
	o.change(r)
}

// change adds the new state of a changed resource.
func (o *Outcome) change(r Resource) {
	o.Resource = r
	o.Changed = append(o.Changed, r)
}

// add merges what another outcome, decided at the same time, changed.
func (o *Outcome) add(other Outcome) {
	o.Changed = append(o.Changed, other.Changed...)
	o.Events = append(o.Events, other.Events...)
	o.Granted = append(o.Granted, other.Granted...)
}
