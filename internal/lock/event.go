package lock

import "time"

// Event is one entry of a resource's history. Events are appended in the transaction that makes
// them true, except for an expiry, which nothing makes true but the time: it is appended by the
// next transaction that changes the resource. The events of a resource are in the order of time.
type Event struct {
	ID        int64 // the order of all events; 0 until stored
	Kind      EventKind
	At        time.Time
	Resource  string
	ProcessID string // whose hold or waiting it is about
	Token     int64  // which hold; 0 for Queued and GaveUp

	Since    time.Time // when what it tells the end of had begun: the hold; for Granted and GaveUp the waiting; else At
	Renewals int       // how often the hold had been renewed
	Reason   string    // Acquired, Queued, Granted: what for; ForceReleased: why it was broken; GaveUp, Released: why, if known
	By       string    // ForceReleased: who broke it

	HoldReason string // Released, ForceReleased, Expired: what the hold was for
}

// EventKind says what happened.
type EventKind string

// The kinds of events: a hold's two beginnings, its three ends, and of waiting the beginning and the end without a hold.
const (
	Acquired      EventKind = "acquired" // at once
	Granted       EventKind = "granted"  // after waiting
	Released      EventKind = "released"
	ForceReleased EventKind = "force_released"
	Expired       EventKind = "expired"
	Queued        EventKind = "queued"
	GaveUp        EventKind = "gave_up"
)

// Begins tells whether a hold begins with the event.
func (k EventKind) Begins() bool { return k == Acquired || k == Granted }

// EventKinds returns all kinds.
func EventKinds() []EventKind {
	return []EventKind{Acquired, Granted, Released, ForceReleased, Expired, Queued, GaveUp}
}

// eventOf tells of a hold.
func eventOf(kind EventKind, resource string, h Hold, at time.Time) Event {
	e := Event{
		Kind: kind, At: at, Resource: resource, ProcessID: h.ProcessID, Token: h.Token,
		Since: h.LockedAt, Renewals: h.Renewals,
	}
	if !kind.Begins() {
		e.HoldReason = h.Reason
	}
	return e
}

// waitingEvent tells of a waiter.
func waitingEvent(kind EventKind, resource string, w *Waiter, at time.Time, reason string) Event {
	return Event{Kind: kind, At: at, Resource: resource, ProcessID: w.Request.ProcessID, Since: w.Since, Reason: reason}
}
