package lock

import "time"

// Event is one entry of a resource's history. Events are appended in the transaction that makes them true.
type Event struct {
	ID        int64 // the order of all events; 0 until stored
	Kind      EventKind
	At        time.Time
	Resource  string
	ProcessID string // whose hold it is about
	Token     int64  // which hold

	LockedAt time.Time // when that hold began
	Renewals int       // how often it had been renewed
	Reason   string    // Acquired: why it was taken; ForceReleased: why it was broken
	By       string    // ForceReleased: who broke it
}

// EventKind says what happened.
type EventKind string

// The kinds of events: a hold's beginning, and its three ends.
const (
	Acquired      EventKind = "acquired"
	Released      EventKind = "released"
	ForceReleased EventKind = "force_released"
	Expired       EventKind = "expired"
)

// eventOf tells of a hold.
func eventOf(kind EventKind, resource string, h Hold, at time.Time) Event {
	return Event{
		Kind: kind, At: at, Resource: resource, ProcessID: h.ProcessID, Token: h.Token,
		LockedAt: h.LockedAt, Renewals: h.Renewals,
	}
}
