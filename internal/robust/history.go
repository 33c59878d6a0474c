package robust

import (
	"slices"
	"sync"
	"time"

	"resource-lock-manager/internal/wire"
)

// Kind is the kind of a call.
type Kind string

const (
	Acquire Kind = "acquire"
	Release Kind = "release"
	Renew   Kind = "renew"
	Status  Kind = "status" // reads the holder of a resource
	Queue   Kind = "queue"  // reads the waiters of a resource
)

// Outcome is the outcome of a call.
type Outcome string

const (
	Done    Outcome = "done"    // 200
	Refused Outcome = "refused" // 404 or 409: the lock rules refuse it, and nothing was changed
	Failed  Outcome = "failed"  // another answer that states that nothing was changed, or the request was never sent
	// no complete answer, or the code outcome_unknown: it may have happened, even later
	// than Returned
	Unknown Outcome = "unknown"
)

// Operation is one call of a client and what its answer states. A time.Duration is the
// time since the start of the run, by this machine's steady clock. A time.Time is of the
// service's clock.
type Operation struct {
	Client    int
	Kind      Kind
	Resource  string
	Process   string        // the caller; empty for reads
	RequestID string        // of an acquire; empty: none
	Token     int64         // of a release or renew
	TTL       time.Duration // of an acquire or renew; 0: the hold does not expire
	Wait      time.Duration // how long an acquire may wait in the queue
	Server    int           // the server that it was sent to; Balancer: the balancer chose one

	Called       time.Duration // right before it was sent
	Returned     time.Duration // right after the answer was read, or the client stopped waiting for it
	Disconnected bool          // the client disconnected without waiting for the answer

	Direct     bool // without a proxy, which may not forward a reset of the connection
	HalfClosed bool // the client closed its sending half before the answer, and read the answer
	Frozen     bool // the client stayed connected until Returned and read nothing; meanwhile the request was made again

	Outcome Outcome
	Code    wire.Code // of an answer other than 200

	// Holder is the hold that the answer shows: the caller's own if it was granted or
	// renewed, otherwise the one in the way. It is zero if the answer shows none.
	Holder Hold
	At     time.Time     // when the service decided, if the answer states it
	Waited time.Duration // in the queue, as a grant states
	Queue  []string      // the waiting processes in their order
}

// Balancer is the Server of an operation that the load balancer forwarded.
const Balancer = -1

// Hold is a hold as answers show it.
type Hold struct {
	Process   string
	Token     int64
	LockedAt  time.Time
	ExpiresAt time.Time // zero: never
}

// FaultKind is what was broken.
type FaultKind string

// Fault is a period in which something was broken.
type Fault struct {
	Kind     FaultKind
	Server   int // its waiters or clients were affected; AllServers: those of all
	From, To time.Duration
}

const (
	AllServers = -1 // the Server of a fault that affects all servers
	NoServer   = -2 // the Server of a fault that may break no guarantee: it is counted and excuses nothing
)

// History is what the clients of a run recorded, and the faults meanwhile. It may be used
// by many goroutines.
type History struct {
	began time.Time

	mu         sync.Mutex
	operations []Operation
	faults     []Fault
	claims     []Claim
}

// Claim is a period in which a client said that it held a lock.
type Claim struct {
	Resource string
	Token    int64
	From, To time.Duration // since the start of the run
}

// NewHistory starts a run.
func NewHistory() *History { return &History{began: time.Now()} }

// Elapsed returns the time since the start of the run.
func (h *History) Elapsed() time.Duration { return time.Since(h.began) }

// Add records an operation that has returned.
func (h *History) Add(o Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
}

// AddFault records a fault that has ended.
func (h *History) AddFault(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
}

// AddClaim records a claim that has ended.
func (h *History) AddClaim(c Claim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claims = append(h.claims, c)
}

// Claims returns the claims in the order in which they ended.
func (h *History) Claims() []Claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.claims)
}

// Operations returns the operations in the order in which they were called.
func (h *History) Operations() []Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	operations := slices.Clone(h.operations)
	slices.SortStableFunc(operations, func(a, b Operation) int { return int(a.Called - b.Called) })
	return operations
}

// Faults returns the faults in the order in which they ended.
func (h *History) Faults() []Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.faults)
}
