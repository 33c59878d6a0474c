package service_test

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// memory is the smallest Store: a map and a clock that stands still until the test moves it.
type memory struct {
	now       time.Time
	resources map[string]lock.Resource
	events    []lock.Event // oldest first
	executed  []lock.Command
	asked     []any  // the arguments of HeldBy, LastEnd, Held, History and DeleteEvents
	reads     int    // calls of all methods but Execute
	before    func() // what another server does just before a command
	broken    error  // what every look answers
	stuck     error  // what every command answers
}

func newMemory(resources ...lock.Resource) *memory {
	m := &memory{now: t0, resources: map[string]lock.Resource{}}
	for i, r := range resources {
		r.ID = int64(i + 1)
		m.resources[r.Name] = r
	}
	return m
}

func (m *memory) sorted() []lock.Resource {
	return slices.SortedFunc(maps.Values(m.resources), func(a, b lock.Resource) int { return cmp.Compare(a.ID, b.ID) })
}

func (m *memory) ExecuteWithin(ctx context.Context, c lock.Command, _ time.Duration) (lock.Outcome, error) {
	return m.Execute(ctx, c)
}

func (m *memory) Execute(_ context.Context, c lock.Command) (lock.Outcome, error) {
	m.executed = append(m.executed, c)
	if m.stuck != nil {
		return lock.Outcome{}, m.stuck
	}
	if m.before != nil {
		m.before()
	}
	var states []lock.Resource
	for _, name := range c.Needs().Resources {
		r := m.resources[name]
		r.Name = name
		states = append(states, r)
	}
	out, err := c.Decide(m.now, states)
	for _, r := range out.Changed {
		m.resources[r.Name] = r
		if r.Deleted {
			delete(m.resources, r.Name)
		}
	}
	for _, e := range out.Events {
		e.ID = int64(len(m.events) + 1)
		m.events = append(m.events, e)
	}
	return out, err
}

// Queue, Waiting and AbandonedPlaces are for waiting requests: see the tests of waiting.
func (m *memory) Queue(context.Context, string, int64, int) (service.QueuePage, error) {
	return service.QueuePage{At: m.now}, m.broken
}

func (m *memory) DeleteDeadServers(context.Context, time.Duration) error { return m.broken }

func (m *memory) Waiting(context.Context, bool) ([]service.Waiting, error) { return nil, m.broken }

func (m *memory) AbandonedPlaces(context.Context, time.Duration, int) ([]lock.Place, error) {
	return nil, m.broken
}

func (m *memory) read(arguments any) {
	m.reads++
	m.asked = append(m.asked, arguments)
}

func (m *memory) Find(_ context.Context, name string) (service.Snapshot, error) {
	m.reads++
	if m.broken != nil {
		return service.Snapshot{}, m.broken
	}
	r := m.resources[name]
	r.Name = name
	return service.Snapshot{Resource: r, At: m.now}, nil
}

// Held ignores the filter, which it notes: the tests of the store show what a filter means.
func (m *memory) Held(
	_ context.Context, f service.ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	m.read(f)
	if m.broken != nil {
		return m.broken
	}
	var held []lock.Resource
	for _, r := range m.sorted() {
		if _, live := r.Holder(m.now); live {
			held = append(held, r)
		}
	}
	if err := begin(len(held), m.now); err != nil {
		return err
	}
	for _, r := range held {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// page is what HeldBy was asked for.
type page struct {
	Process, After string
	Limit          int
}

// HeldBy fails when it is asked for the same page again, which would go on for ever.
func (m *memory) HeldBy(_ context.Context, process, after string, limit int) ([]string, error) {
	asked := page{process, after, limit}
	if slices.Contains(m.asked, any(asked)) {
		return nil, errBroken
	}
	m.read(asked)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.resources)) {
		holds := m.resources[name].Holds
		if name > after && len(holds) > 0 && holds[0].ProcessID == process && len(names) < limit {
			names = append(names, name)
		}
	}
	return names, m.broken
}

// History ignores the filter, which it notes.
func (m *memory) History(_ context.Context, f service.HistoryFilter) ([]lock.Event, error) {
	m.read(f)
	newest := slices.Clone(m.events)
	slices.Reverse(newest)
	return newest, m.broken
}

func (m *memory) LastEnd(_ context.Context, resource, process string, token int64) (lock.Event, bool, error) {
	m.read(lastEnd{resource, process, token})
	for _, e := range slices.Backward(m.events) {
		if e.Resource == resource && e.ProcessID == process && (token == 0 || token == e.Token) {
			return e, e.Kind != lock.EventAcquired, m.broken // an answer beside an error must not be believed
		}
	}
	return lock.Event{}, false, m.broken
}

// lastEnd is what LastEnd was asked for.
type lastEnd struct {
	Resource, Process string
	Token             int64
}

func (m *memory) Expired(_ context.Context, limit int) ([]string, error) {
	m.reads++
	var names []string
	for _, r := range m.sorted() {
		if _, held := r.Holder(m.now); !held && len(r.Holds) > 0 && len(names) < limit {
			names = append(names, r.Name)
		}
	}
	return names, m.broken
}

func (m *memory) IdleResources(
	_ context.Context, afterID int64, window int, idle time.Duration,
) (page service.IdlePage, err error) {
	m.reads++
	page.Before = m.now.Add(-idle)
	for _, r := range m.sorted() {
		if r.ID <= afterID {
			continue
		}
		if window == 0 {
			page.Next = afterID
			return page, m.broken
		}
		if len(r.Holds) == 0 && r.EndedAt.Before(page.Before) {
			page.Names = append(page.Names, r.Name)
		}
		afterID = r.ID
		window--
	}
	return page, m.broken
}

// deletion is what DeleteEvents was asked for.
type deletion struct {
	Age   time.Duration
	Limit int
}

func (m *memory) DeleteEvents(_ context.Context, age time.Duration, limit int) (int, error) {
	m.read(deletion{age, limit})
	old := 0
	for old < min(limit, len(m.events)) && m.events[old].At.Before(m.now.Add(-age)) {
		old++
	}
	m.events = m.events[old:]
	return old, m.broken
}

func newService(store service.Store) *service.Service {
	return withLimits(store, lock.Limits{MaxTTL: lock.LongestTTL})
}

func withLimits(store service.Store, limits lock.Limits) *service.Service {
	return service.New(store, service.Config{Limits: limits}, slog.New(slog.DiscardHandler))
}

// limited is a service whose operator allows an hour at most, and so no lock that never expires.
func limited(store service.Store) *service.Service {
	return withLimits(store, lock.Limits{MaxTTL: time.Hour})
}
