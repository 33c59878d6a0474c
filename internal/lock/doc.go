// Package lock is the domain: what a resource, a hold and a fencing token are, and the rules by which commands change
// them. It imports only the standard library and knows no SQL, no HTTP and no clock.
//
// # States
//
// A [Resource] is free or held. It is held at a moment t while it has a [Hold] that is live at t: a hold without expiry,
// or one whose ExpiresAt lies after t. A hold whose ExpiresAt has come counts as gone at once, whether or not anything
// has recorded that: every rule takes the moment as an argument and asks [Hold.Live]. (Should the clock step
// back, which only a Postgres server's can, a hold whose end was not recorded counts again, for everyone alike.)
//
//	   Acquire, or a waiter's turn     Release, ForceRelease, or ExpiresAt comes
//	free ────────────────▶ held ──────────────────────────────────────────▶ free
//	                       │ ▲ │                                             ▲
//	                       │ │ │ Release before MinHoldUntil                 │
//	                       └─┘ └────────────▶ held, but released ────────────┘
//	                      Renew: a new        (nobody's, not free)   ForceRelease, or MinHoldUntil comes
//	                      ExpiresAt
//
// Acquire of a resource that is not free is refused with *HeldError or waits, unless it repeats the RequestID of the hold
// that the same process has: that hold is given again, unchanged. A hold that was released before its minimum is no hold of
// its process any more: it cannot be renewed or released.
//
// # The queue
//
// A resource has a queue of places, each a [Waiter] with a ticket; tickets grow in the order in which requests came to wait.
// A waiter is connected while its request is open on a server that is alive. A resource that becomes free goes to the first
// connected waiter: at once, by the command that freed it, if the server that decides is the one that waiter is connected
// to. Otherwise it stays free but reserved for that waiter, and nobody else is granted it; its server, once it learns of
// that, has it settled ([Settle]).
//
//	Acquire with Wait            its turn: granted
//	────────────────▶ connected ───────────────────▶ a hold
//	                    ▲   │
//	  Acquire with the  │   │ Leave with Keep,        ┌▶ given up: AwayUntil has come ([Vacate]),
//	  same RequestID    │   ▼ or its server dies      │
//	                   away ──────────────────────────┘   or Leave without Keep
//
// A waiter that is away keeps its place and holds nobody up.
//
// # Invariants
//
//	I1  At any moment at most one hold of a resource is live.
//	I2  Each hold's Token is greater than the token of every earlier hold of the same name, also after the resource was
//	    forgotten and made anew: Token = max(previous token + 1, now in microseconds).
//	I3  A refused command changes nothing.
//	I4  Only the process that holds a resource releases or renews it, and with a Token only that very hold; a hold that is
//	    gone cannot be released, renewed or revived. ForceRelease is the one exception, and is recorded.
//	I5  A resource is forgotten only when nothing holds it and it has been idle since before the given moment.
//	I6  A resource with a minimum hold is not granted again before it has passed, except after a ForceRelease, and I9.
//	I7  The events tell of each hold that it began and how it ended, once each, in the transaction that made it true. A
//	    ForceRelease of a hold that its process had released before its minimum is told besides. Each waiting is told when it
//	    begins, and when it ends, with a hold or without.
//	I8  Among the connected waiters of a resource only the one with the lowest ticket is granted it, and no other request
//	    while there is one.
//	I9  Nobody is granted a resource who is not there to be told: not a waiter that is away or whose server is dead. A hold
//	    whose request hung up before it was answered ends at once, its minimum notwithstanding.
//	I10 The moments of a resource's events never go back while the clock does not. An expiry is recorded before
//	    anything else that happens to the resource, at the moment when it came.
//
// # How rules become durable
//
// A [Command] names the resources it touches and decides, from their states and one moment, their new states. It may be
// decided several times (a transaction that failed is run again), so it has no effect but its [Outcome]. Commands that
// share a transaction are decided one after another, each seeing what the earlier ones decided, all at the same moment.
// The moment comes from the [Store], read after the rows are locked: see the store's package documentation for whose
// clock that is. A request that waits holds nothing there: it is woken by the commit that grants it the resource.
//
// # What is not promised
//
// A hold with a TTL ends when its time is over, whatever its holder believes: a process that was paused may go on as if
// it still held. Only a check of the fencing token where the work is written stops that.
//
// A server that dies after it has committed a grant and before it has answered leaves a hold that its client does not know
// of, until that hold expires or the client repeats its RequestID. A server that stalls for longer than its lease counts as
// dead meanwhile, and its waiters are passed over.
package lock
