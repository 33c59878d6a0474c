package robust

import (
	"slices"
	"sync"
	"time"

	"resource-lock-manager/internal/wire"
)

// Kind of a call.
type Kind string

const (
	Acquire Kind = "acquire"
	Release Kind = "release"
	Renew   Kind = "renew"
	Status  Kind = "status" // reads who holds a resource
	Queue   Kind = "queue"  // reads who waits for it
)

// Outcome of a call.
type Outcome string

const (
	Done    Outcome = "done"    // 200
	Refused Outcome = "refused" // 404 or 409: the lock rules say no, and nothing was changed
	Failed  Outcome = "failed"  // another answer that promises that nothing was changed, or the request was never sent
	Unknown Outcome = "unknown" // no whole answer, or the code outcome_unknown: it may have happened, even later than Returned
)

// Operation is one call of a client and what it learnt. Times since the run began are of this machine's steady clock, moments
// of the service's.
type Operation struct {
	Client    int
	Kind      Kind
	Resource  string
	Process   string        // who calls, but for reads
	RequestID string        // of an acquire; empty: it has none
	Token     int64         // that a release or renew was for
	TTL       time.Duration // of an acquire or renew; 0: the hold does not end by itself
	Wait      time.Duration // how long an acquire may wait for its turn
	Server    int           // whom it was sent to; Balancer: whom the balancer chose

	Called   time.Duration // right before it was sent
	Returned time.Duration // right after the answer was read, or the client gave up
	HungUp   bool          // the client closed the connection without waiting for the answer

	Direct     bool // no proxy was between: a proxy may not pass on that a connection was reset
	HalfClosed bool // the client had finished sending before it was answered, and read the answer
	Frozen     bool // the client stayed connected until Returned and read nothing; the same request was made again meanwhile

	Outcome Outcome
	Code    wire.Code // of any answer but 200

	Holder Hold          // the hold that the answer tells: one's own if granted or renewed, otherwise the one in the way; zero: none
	At     time.Time     // when the service decided, as far as the answer tells
	Waited time.Duration // in the queue, as a grant tells
	Queue  []string      // the processes that wait, in their order
}

// Balancer is the server of an operation that went through the load balancer.
const Balancer = -1

// Hold is a hold as answers tell it.
type Hold struct {
	Process   string
	Token     int64
	LockedAt  time.Time
	ExpiresAt time.Time // zero: never
}

// FaultKind names what was broken.
type FaultKind string

// Fault is a time during which something was broken.
type Fault struct {
	Kind     FaultKind
	Server   int // whose waiters or clients were affected; Everyone: all
	From, To time.Duration
}

const (
	Everyone = -1 // is the server of a fault that affects them all
	Nobody   = -2 // of one that no guarantee may suffer from: it is counted, and excuses nothing
)

// History is what the clients of a run have seen, and what was broken meanwhile. It may be used by many goroutines.
type History struct {
	began time.Time

	mu         sync.Mutex
	operations []Operation
	faults     []Fault
	claims     []Claim
}

// Claim is a time in which a client said that it held a lock.
type Claim struct {
	Resource string
	Token    int64
	From, To time.Duration // since the run began
}

// NewHistory begins a run.
func NewHistory() *History { return &History{began: time.Now()} }

// Since tells how long the run has lasted.
func (h *History) Since() time.Duration { return time.Since(h.began) }

// Add records an operation that has returned.
func (h *History) Add(o Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
}

// AddFault records a fault that is over.
func (h *History) AddFault(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
}

// AddClaim records a claim that is over.
func (h *History) AddClaim(c Claim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claims = append(h.claims, c)
}

// Claims in the order in which they ended.
func (h *History) Claims() []Claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.claims)
}

// Operations in the order in which they were called.
func (h *History) Operations() []Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	operations := slices.Clone(h.operations)
	slices.SortStableFunc(operations, func(a, b Operation) int { return int(a.Called - b.Called) })
	return operations
}

// Faults in the order in which they ended.
func (h *History) Faults() []Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.faults)
}
