package lock

import "time"

// Command is one change to one or more resources. Decide is pure: the same states and moment give the same outcome, and
// an error is a refusal that changes nothing.
type Command interface {
	// Resources names what the command touches, each name once. They are locked before the moment is read.
	Resources() []string
	// Decide gets the states of Resources, in that order.
	Decide(now time.Time, before []Resource) (Outcome, error)
}

// Outcome is what a command decided.
type Outcome struct {
	Now     time.Time  // the moment of the decision
	Hold    Hold       // the hold it was about, for commands about one hold
	Changed []Resource // the new states to store
	Events  []Event    // what to append to the history
}

// change is the outcome of a command about one hold.
func change(now time.Time, h Hold, after Resource, events ...Event) Outcome {
	return Outcome{Now: now, Hold: h, Changed: []Resource{after}, Events: events}
}
