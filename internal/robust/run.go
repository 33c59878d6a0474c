package robust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
)

// Config is the configuration of a run.
type Config struct {
	Program string        // the path of a lockd, see Build
	Seed    uint64        // of all random choices
	Length  time.Duration // how long faults are made
	Long    bool          // large sizes are permitted
}

// Run is one scenario: its servers, the clients that work on them, and the faults. Its
// methods are for the scenario's goroutine.
type Run struct {
	History *History
	Rand    *rand.Rand
	Summary Summary // set by Judge

	tb      testing.TB
	config  Config
	ends    time.Time
	clients int

	work     sync.WaitGroup
	working  context.Context //nolint:containedctx // of all workers
	stopWork context.CancelFunc
	alive    context.Context //nolint:containedctx // of all workers
	abort    context.CancelFunc

	mu        sync.Mutex
	kept      []Operation
	servers   []*Server // the servers that the workers use
	resources int       // the number of resources that the workers share
}

// endTimeout is how long the workers may take to stop: the longest wait, the answer
// timeout, and the recovery from the last fault.
const endTimeout = time.Minute

// NewRun starts a run. The time for its faults starts with Work or Begin.
func NewRun(tb testing.TB, config Config) *Run {
	tb.Helper()
	r := &Run{
		History: NewHistory(),
		Rand:    rand.New(rand.NewPCG(config.Seed, 0)),
		tb:      tb,
		config:  config,
	}
	r.working, r.stopWork = context.WithCancel(context.Background())
	r.alive, r.abort = context.WithCancel(context.Background())
	tb.Cleanup(func() {
		r.stopWork()
		r.abort()
		r.work.Wait()
	})
	return r
}

// Program returns the path of the run's lockd.
func (r *Run) Program() string { return r.config.Program }

// Long reports whether large sizes are permitted.
func (r *Run) Long() bool { return r.config.Long }

// Servers starts servers on one database. The history numbers them from 0.
func (r *Run) Servers(n int, databaseURL string, settings ...string) []*Server {
	r.tb.Helper()
	servers := make([]*Server, n)
	for i := range servers { // servers that start at the same time wait a second for each other's migrations
		servers[i] = StartServer(r.tb, r.config.Program, databaseURL, settings...)
	}
	return servers
}

// Begin starts the time for faults, for a scenario that does not use Work.
func (r *Run) Begin() { r.ends = time.Now().Add(r.config.Length) }

// Finish summarizes the faults of a run without operations.
func (r *Run) Finish() { r.Summary = summarize(nil, r.History.Faults(), nil) }

// Work starts clients that work on the servers, in turn. It may be called once.
func (r *Run) Work(w Workload, servers ...*Server) {
	w = w.withDefaults()
	r.servers, r.resources = servers, w.Resources
	r.Begin()
	for i := range w.Clients {
		worker := r.worker(w, i%len(servers))
		r.work.Go(worker.work)
	}
	for i := range w.Owners {
		o := owner{worker: r.worker(w, i%len(servers)), tb: r.tb}
		r.work.Go(o.work)
	}
	for i := range servers[:min(len(servers), 2)] {
		keeper := r.worker(w, i)
		r.work.Go(func() {
			kept := keeper.keep()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.kept = append(r.kept, kept...)
		})
	}
}

func (r *Run) worker(w Workload, server int) *worker {
	return &worker{
		Workload: w,
		Client:   r.Client(server, r.servers[server].URL),
		rand:     rand.New(rand.NewPCG(r.config.Seed, uint64(r.clients))),
		working:  r.working,
		alive:    r.alive,
	}
}

// Client returns a client of the run's history, which ends with the test.
func (r *Run) Client(server int, url string) *Client {
	r.clients++
	c := NewClient(r.History, r.clients, server, url)
	r.tb.Cleanup(c.Close)
	return c
}

// Running reports whether there is time for another fault.
func (r *Run) Running() bool { return time.Now().Before(r.ends) && !r.tb.Failed() }

// Pause waits while the clients work.
func (r *Run) Pause(d time.Duration) { <-time.After(d) }

// Fault records a fault. The function breaks something and repairs it.
func (r *Run) Fault(kind FaultKind, server int, broken func()) {
	from := r.History.Elapsed()
	broken()
	r.History.AddFault(Fault{Kind: kind, Server: server, From: from, To: r.History.Elapsed()})
}

// End ends the work of a run whose history the test judges itself.
func (r *Run) End() {
	r.stopWork()
	r.work.Wait()
}

// Judge ends the work, reads the final state, and runs the checkers. All faults must have
// been repaired.
func (r *Run) Judge() {
	r.tb.Helper()
	r.stopWork()
	abort := time.AfterFunc(endTimeout, r.abort)
	r.work.Wait()
	if !abort.Stop() {
		r.tb.Errorf("the clients could not end their work within %v", endTimeout)
	}
	violations := r.readAll()
	operations, faults := r.History.Operations(), r.History.Faults()
	violations = slices.Concat(CheckModel(operations, endTimeout), CheckInvariants(operations, faults),
		CheckClaims(r.History.Claims(), operations), violations)
	for i, v := range violations {
		if i == 10 {
			r.tb.Errorf("and %d more", len(violations)-i)
			break
		}
		r.tb.Errorf("%v", v)
	}
	r.Summary = summarize(operations, faults, violations)
}

// readAll reads the final state from every server. The resources that the workers shared
// must be free, at the latest after recovery: the workers released their holds, and no
// disconnected client may have one.
func (r *Run) readAll() (violations []Violation) {
	for i, server := range r.servers {
		reader := r.Client(i, server.URL)
		for n := range r.resources {
			o := reader.statusOnceFree(resourceName(n))
			if o.Outcome != Done || o.Holder != (Hold{}) {
				what := fmt.Sprintf("it is not free after all holds were released, according to server %d: %v", i, o)
				violations = append(violations, Violation{Guarantee: "G7", Resource: o.Resource, What: what})
			}
		}
		for _, k := range r.kept {
			o := reader.Status(r.alive, k.Resource)
			if o.Holder.Process != k.Process || o.Holder.Token != k.Holder.Token {
				what := fmt.Sprintf("acknowledged was %v, but server %d answered: %v", k, i, o)
				violations = append(violations, Violation{Guarantee: "G2", Resource: k.Resource, What: what})
			}
		}
	}
	return violations
}

// statusOnceFree reads a status until the resource is free, or until a hold that no
// client released must have ended.
func (c *Client) statusOnceFree(resource string) (o Operation) {
	ctx, cancel := context.WithTimeout(context.Background(), apptest.Timeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if o = c.Status(ctx, resource); o.Outcome == Done && o.Holder == (Hold{}) {
			return o
		}
		select {
		case <-ctx.Done():
			return o
		case <-ticker.C:
		}
	}
}

// Summary counts what a run did.
type Summary struct {
	Operations   map[Kind]int
	Outcomes     map[Outcome]int
	Holds        int // grants
	Waited       int // grants after a wait
	Disconnected int
	Faults       map[FaultKind]int
	Violations   []Violation
}

func summarize(operations []Operation, faults []Fault, violations []Violation) Summary {
	s := Summary{
		Operations: map[Kind]int{}, Outcomes: map[Outcome]int{}, Faults: map[FaultKind]int{}, Violations: violations,
	}
	for _, o := range operations {
		s.Operations[o.Kind]++
		s.Outcomes[o.Outcome]++
		if o.Kind == Acquire && o.Outcome == Done {
			s.Holds++
			if o.Waited > 0 {
				s.Waited++
			}
		}
		if o.Disconnected {
			s.Disconnected++
		}
	}
	for _, f := range faults {
		s.Faults[f.Kind]++
	}
	return s
}

// Add adds another summary's counts.
func (s *Summary) Add(other Summary) {
	add(&s.Operations, other.Operations)
	add(&s.Outcomes, other.Outcomes)
	add(&s.Faults, other.Faults)
	s.Holds += other.Holds
	s.Waited += other.Waited
	s.Disconnected += other.Disconnected
	s.Violations = append(s.Violations, other.Violations...)
}

func add[K comparable](sum *map[K]int, counts map[K]int) {
	if *sum == nil {
		*sum = map[K]int{}
	}
	for k, n := range counts {
		(*sum)[k] += n
	}
}

func (s Summary) String() string {
	return fmt.Sprintf("%d operations (%s; %s), %d holds, %d of them after waiting, %d disconnects; "+
		"faults: %s; %d violations", total(s.Operations), list(s.Operations), list(s.Outcomes),
		s.Holds, s.Waited, s.Disconnected, list(s.Faults), len(s.Violations))
}

func total[K comparable](counts map[K]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

func list[K ~string](counts map[K]int) string {
	var parts []string
	for k, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, string(k)))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
