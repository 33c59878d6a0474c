// Package lock is the domain: resources, holds, queues and fencing tokens, and the rules
// by which commands change them. It is pure. It imports only the standard library and
// knows no SQL, no HTTP, no clock, no goroutine and no logger.
//
// # States
//
// A [Resource] is free or held. At time t it is held if it has a [Hold] that is live at
// t: a hold that never expires, or one whose ExpiresAt is after t. An expired hold counts
// as ended at once, whether or not its end has been recorded: every rule gets the time as
// an argument and asks [Hold.Live]. (If the clock steps back, which only a Postgres
// server's clock can, a hold whose end was not recorded is live again, for every client
// alike.)
//
//	   Acquire, or a waiter's turn     Release, ForceRelease, or ExpiresAt comes
//	free ────────────────▶ held ──────────────────────────────────────────▶ free
//	                       │ ▲ │                                             ▲
//	                       │ │ │ Release before MinHoldUntil                 │
//	                       └─┘ └────────────▶ released, not yet free ────────┘
//	                      Renew: a new                        ForceRelease, or MinHoldUntil comes
//	                      ExpiresAt
//
// An [Acquire] of a resource that is not free is refused with *HeldError or queued,
// unless it is an idempotent retry: if the process holds the resource under the same
// RequestID, it gets that hold again, unchanged. A hold that was released before its
// minimum no longer belongs to its process: it cannot be renewed or released again.
//
// # The queue
//
// The queue of a resource consists of places, each a [Waiter] with a ticket. Tickets grow
// in the order in which the requests were queued. A waiter is connected while its request
// is open on a live server. A free resource goes to the first connected waiter. If that
// waiter is connected to the server that decides (it is local), the command that freed
// the resource grants it at once. Otherwise the resource stays free but reserved: no
// other request gets it, and the waiter's own server grants it with [ExpireAndGrant] once
// it is notified.
//
//	Acquire with Wait            its turn: granted
//	────────────────▶ connected ───────────────────▶ a hold
//	                    ▲   │
//	  Acquire with the  │   │ TimeOut or Disconnect   ┌▶ removed: DetachedUntil has passed
//	  same RequestID    │   ▼ with Keep               │  ([RemoveAbandoned])
//	                  detached ───────────────────────┘
//
// TimeOut or Disconnect without Keep removes the place at once. A detached waiter keeps
// its place and delays no other waiter. The waiter of a dead server counts as detached,
// too.
//
// # Invariants
//
//	I1  At any time at most one hold of a resource is live.
//	I2  The Token of a hold is greater than the token of every earlier hold of the same name,
//	    also after the resource was deleted and created again:
//	    Token = max(previous token + 1, now in microseconds).
//	I3  A refused command changes nothing.
//	I4  Only the process that holds a resource releases or renews it, and with a Token only
//	    that very hold. An ended hold cannot be released, renewed or revived. ForceRelease is
//	    the one exception, and is recorded.
//	I5  A resource is deleted only if it is free and has been idle since before the given time.
//	I6  A resource with a minimum hold is not granted again before the minimum has passed,
//	    except after a ForceRelease and by I9.
//	I7  The events record once for each hold that it began and how it ended, in the transaction
//	    that made it true. A ForceRelease of a hold that its process had released before the
//	    minimum is recorded in addition. For each wait they record its start and its end, with
//	    or without a hold.
//	I8  Of the connected waiters of a resource only the one with the lowest ticket is granted
//	    it. While there is one, no other request is.
//	I9  No resource is granted to a waiter that is detached or whose server is dead. If the
//	    client disconnects before it got its answer, the hold ends at once, regardless of its
//	    minimum.
//	I10 The times of a resource's events never decrease while the clock does not. An expiry is
//	    recorded before any later event of the resource, with the time at which it came.
//
// # How rules become durable
//
// A [Command] names the resources that it needs and decides their new states from their
// states and one timestamp. It may be decided several times, because a failed transaction
// is repeated, so it has no effect but its [Outcome]. Commands that share a transaction
// are decided one after another at the same timestamp; each sees the states that the
// earlier ones left. The store reads the timestamp after it has locked the rows; its
// package documentation says which clock that is. A waiting request holds no database
// resource: the commit that grants it the resource wakes it.
//
// # What is not promised
//
// A hold with a TTL ends when the TTL has passed, whatever its holder believes. A process
// that was paused may go on as if it still held the resource. Only a check of the fencing
// token where the work is written prevents that.
//
// If a server dies after it committed a grant and before it answered, the hold stays
// until it expires or the client retries with its RequestID. A server that stalls for
// longer than its lease counts as dead in that time, and its waiters are passed over.
package lock
