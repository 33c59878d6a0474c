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

// Config of a run.
type Config struct {
	Program string        // a lockd, see Build
	Seed    uint64        // of everything that is left to chance
	Length  time.Duration // how long to break things
	Long    bool          // whether there is time for large sizes
}

// Run is one scenario under way: servers, clients at work on them, and what is broken meanwhile. Its methods are for the
// scenario's goroutine.
type Run struct {
	History *History
	Rand    *rand.Rand
	Summary Summary // of what was tried, once it is judged

	tb      testing.TB
	config  Config
	ends    time.Time
	clients int

	work    sync.WaitGroup
	working context.Context //nolint:containedctx // of all workers
	rest    context.CancelFunc
	alive   context.Context //nolint:containedctx // of all workers
	die     context.CancelFunc

	mu   sync.Mutex
	kept []Operation
	at   []*Server // the servers that the workers know
	used int       // resources that the workers share
}

// settled is how long the end of the work may take: the longest wait, patience, and a system that has just been mended.
const settled = time.Minute

// NewRun begins a run, whose time counts from its first Work.
func NewRun(tb testing.TB, config Config) *Run {
	tb.Helper()
	r := &Run{
		History: NewHistory(),
		Rand:    rand.New(rand.NewPCG(config.Seed, 0)),
		tb:      tb,
		config:  config,
	}
	r.working, r.rest = context.WithCancel(context.Background())
	r.alive, r.die = context.WithCancel(context.Background())
	tb.Cleanup(func() {
		r.rest()
		r.die()
		r.work.Wait()
	})
	return r
}

// Program is the lockd that the run is about.
func (r *Run) Program() string { return r.config.Program }

// Long tells whether there is time for large sizes.
func (r *Run) Long() bool { return r.config.Long }

// Servers starts servers on one database. In the history they have the numbers from 0.
func (r *Run) Servers(n int, databaseURL string, settings ...string) []*Server {
	r.tb.Helper()
	servers := make([]*Server, n)
	for i := range servers { // one by one: those that start at once wait for a second for each other's migrations
		servers[i] = StartServer(r.tb, r.config.Program, databaseURL, settings...)
	}
	return servers
}

// Begin begins the time in which things are broken, for a scenario with clients of its own.
func (r *Run) Begin() { r.ends = time.Now().Add(r.config.Length) }

// Finish summarizes the faults of a run without operations.
func (r *Run) Finish() { r.Summary = summarize(nil, r.History.Faults(), nil) }

// Work has clients begin to work on the servers, in turn. It may be called once.
func (r *Run) Work(w Workload, servers ...*Server) {
	w = w.withDefaults()
	r.at, r.used = servers, w.Resources
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
		Client:   r.Client(server, r.at[server].URL),
		rand:     rand.New(rand.NewPCG(r.config.Seed, uint64(r.clients))),
		working:  r.working,
		alive:    r.alive,
	}
}

// Client makes a client of the run's history, which ends with the test.
func (r *Run) Client(server int, url string) *Client {
	r.clients++
	c := NewClient(r.History, r.clients, server, url)
	r.tb.Cleanup(c.Close)
	return c
}

// Lasts tells whether there is time to break something more.
func (r *Run) Lasts() bool { return time.Now().Before(r.ends) && !r.tb.Failed() }

// Pause lets the clients work.
func (r *Run) Pause(d time.Duration) { <-time.After(d) }

// Fault does what breaks and mends something, and records it.
func (r *Run) Fault(kind FaultKind, server int, broken func()) {
	from := r.History.Since()
	broken()
	r.History.AddFault(Fault{Kind: kind, Server: server, From: from, To: r.History.Since()})
}

// End ends the work of a run whose history the test judges itself.
func (r *Run) End() {
	r.rest()
	r.work.Wait()
}

// Judge ends the work, on a system that must be whole again, reads what is left, and has the history judged.
func (r *Run) Judge() {
	r.tb.Helper()
	r.rest()
	giveUp := time.AfterFunc(settled, r.die)
	r.work.Wait()
	if !giveUp.Stop() {
		r.tb.Errorf("the clients could not end their work within %v", settled)
	}
	violations := r.readAll()
	operations, faults := r.History.Operations(), r.History.Faults()
	violations = slices.Concat(CheckModel(operations, settled), CheckInvariants(operations, faults),
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

// readAll has every server say who holds what. What the workers share must be free by now, or be so soon: they have given
// back what they had, and nobody may hold it who has gone.
func (r *Run) readAll() (violations []Violation) {
	for i, server := range r.at {
		reader := r.Client(i, server.URL)
		for n := range r.used {
			o := reader.settledStatus(resourceName(n))
			if o.Outcome != Done || o.Holder != (Hold{}) {
				what := fmt.Sprintf("it is not free after all was given back, as server %d says: %v", i, o)
				violations = append(violations, Violation{Guarantee: "G7", Resource: o.Resource, What: what})
			}
		}
		for _, k := range r.kept {
			o := reader.Status(r.alive, k.Resource)
			if o.Holder.Process != k.Process || o.Holder.Token != k.Holder.Token {
				what := fmt.Sprintf("acknowledged was %v, server %d says: %v", k, i, o)
				violations = append(violations, Violation{Guarantee: "G2", Resource: k.Resource, What: what})
			}
		}
	}
	return violations
}

// settledStatus reads until a resource is free, for as long as a hold may last that nobody has given back.
func (c *Client) settledStatus(resource string) (o Operation) {
	ctx, cancel := context.WithTimeout(context.Background(), apptest.Patience)
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

// Summary counts what was tried.
type Summary struct {
	Operations map[Kind]int
	Outcomes   map[Outcome]int
	Holds      int // grants
	Waited     int // of them, after waiting
	HungUp     int
	Faults     map[FaultKind]int
	Violations []Violation
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
		if o.HungUp {
			s.HungUp++
		}
	}
	for _, f := range faults {
		s.Faults[f.Kind]++
	}
	return s
}

// Add takes another summary's counts in.
func (s *Summary) Add(other Summary) {
	add(&s.Operations, other.Operations)
	add(&s.Outcomes, other.Outcomes)
	add(&s.Faults, other.Faults)
	s.Holds += other.Holds
	s.Waited += other.Waited
	s.HungUp += other.HungUp
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
	return fmt.Sprintf("%d operations (%s; %s), %d holds, %d of them after waiting, %d hung up; faults: %s; %d violations",
		total(s.Operations), list(s.Operations), list(s.Outcomes), s.Holds, s.Waited, s.HungUp, list(s.Faults), len(s.Violations))
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
