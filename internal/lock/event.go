package lock

import "time"

// Event is one entry of a resource's history. An event is appended in the transaction
// that makes it true. An expiry, which no transaction makes true, is appended by the next
// transaction that changes the resource. The events of a resource are in the order of
// time.
type Event struct {
	ID        int64 // the order of all events; 0 until stored
	Kind      EventKind
	At        time.Time
	Resource  string
	ProcessID string // the process whose hold or wait the event is about
	Token     int64  // of the hold; 0 for EventQueued and EventGaveUp

	Since    time.Time // when the hold that ended, or the wait that ended, had begun; else At
	Renewals int       // the number of renewals of the hold
	Reason   string    // the caller's, or an EndReason for EventGaveUp and EventReleased
	By       string    // EventForceReleased: who asked for it

	HoldReason string // end of a hold: the reason that the hold had been given
}

// EventKind is what happened.
type EventKind string

// The kinds of events: two beginnings of a hold, its three ends, and of a wait the
// beginning and the end without a hold.
const (
	EventAcquired      EventKind = "acquired" // at once
	EventGranted       EventKind = "granted"  // after waiting
	EventReleased      EventKind = "released"
	EventForceReleased EventKind = "force_released"
	EventExpired       EventKind = "expired"
	EventQueued        EventKind = "queued"
	EventGaveUp        EventKind = "gave_up"
)

// EventKinds returns all kinds.
func EventKinds() []EventKind {
	return []EventKind{
		EventAcquired, EventGranted, EventReleased, EventForceReleased, EventExpired, EventQueued, EventGaveUp,
	}
}

// Begins reports whether a hold begins with the event.
func (k EventKind) Begins() bool { return k == EventAcquired || k == EventGranted }

// EndReason is why a wait ended without a hold, or why the server ended a hold that its
// process had not released. The history keeps it as the reason of EventGaveUp and
// EventReleased.
type EndReason string

// The reasons that the server itself writes into the history.
const (
	WaitTimeout    EndReason = "wait_timeout"      // the request waited for its wait_seconds
	ClientGone     EndReason = "client_gone"       // the client disconnected, or was answered 503
	ServerStopping EndReason = "server_stopping"   // the server was stopped while the request waited
	DidNotComeBack EndReason = "did_not_come_back" // the place was kept, and the client did not retry in time
)

// EndReasons returns all of them.
func EndReasons() []EndReason {
	return []EndReason{WaitTimeout, ClientGone, ServerStopping, DidNotComeBack}
}

// holdEvent returns an event of a hold.
func holdEvent(kind EventKind, resource string, h Hold, at time.Time) Event {
	e := Event{
		Kind: kind, At: at, Resource: resource, ProcessID: h.ProcessID, Token: h.Token,
		Since: h.LockedAt, Renewals: h.Renewals,
	}
	if !kind.Begins() {
		e.HoldReason = h.Reason
	}
	return e
}

// grantEvent returns the event of the beginning of a hold.
func grantEvent(resource string, h Hold) Event {
	e := holdEvent(EventAcquired, resource, h, h.LockedAt)
	e.Reason = h.Reason
	if !h.QueuedAt.IsZero() {
		e.Kind, e.Since = EventGranted, h.QueuedAt
	}
	return e
}

// queuedEvent returns the event of the beginning of a wait.
func queuedEvent(resource string, w *Waiter, at time.Time) Event {
	return waiterEvent(EventQueued, resource, w, at, w.Request.Reason)
}

// gaveUpEvent returns the event of the end of a wait without a hold.
func gaveUpEvent(resource string, w *Waiter, at time.Time, why EndReason) Event {
	return waiterEvent(EventGaveUp, resource, w, at, string(why))
}

func waiterEvent(kind EventKind, resource string, w *Waiter, at time.Time, reason string) Event {
	return Event{Kind: kind, At: at, Resource: resource, ProcessID: w.Request.ProcessID, Since: w.Since, Reason: reason}
}
