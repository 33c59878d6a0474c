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
	Reason   string    // Acquired, Queued, Granted: what for; ForceReleased: why it was broken; GaveUp, Released: an EndReason
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

// EndReason is why waiting ended without a hold, or why the server ended a hold that its process had not released. The
// history keeps it as the reason of GaveUp and Released.
type EndReason string

// The reasons that the server itself writes into the history.
const (
	WaitTimeout    EndReason = "wait_timeout"      // the request waited as long as it had asked to
	ClientGone     EndReason = "client_gone"       // nobody was there any more to be answered: the client had disconnected, or been answered 503
	ServerStopping EndReason = "server_stopping"   // the server was stopped while the request waited
	DidNotComeBack EndReason = "did_not_come_back" // the place was kept, and nobody repeated the request in time
)

// EndReasons returns all of them.
func EndReasons() []EndReason {
	return []EndReason{WaitTimeout, ClientGone, ServerStopping, DidNotComeBack}
}

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

// queued records that a waiter has got a place.
func queued(resource string, w *Waiter, at time.Time) Event {
	return Event{
		Kind: Queued, At: at, Resource: resource, ProcessID: w.Request.ProcessID, Since: w.Since, Reason: w.Request.Reason,
	}
}

// gaveUp records that a waiter has lost its place without getting a hold.
func gaveUp(resource string, w *Waiter, at time.Time, why EndReason) Event {
	return Event{
		Kind: GaveUp, At: at, Resource: resource, ProcessID: w.Request.ProcessID, Since: w.Since, Reason: string(why),
	}
}
