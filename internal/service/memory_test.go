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

// memory is a minimal Store without a queue. It has a map and a clock that only the test
// moves, and it records how it is called.
type memory struct {
	now       time.Time
	resources map[string]lock.Resource
	events    []lock.Event // oldest first

	executed      []lock.Command
	arguments     []any  // of HeldBy, LastEnd, Held, History and DeleteEvents
	readCount     int    // the number of calls of Find, Expired, IdleResources and those
	beforeExecute func() // called just before each command is decided
	readErr       error  // returned by every read
	executeErr    error  // returned by every command
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
	if m.executeErr != nil {
		return lock.Outcome{}, m.executeErr
	}
	if m.beforeExecute != nil {
		m.beforeExecute()
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

// Queue is for waiting requests, like Waiting and AbandonedPlaces. Tests of these use
// memstore.
func (m *memory) Queue(context.Context, string, int64, int) (service.QueuePage, error) {
	return service.QueuePage{At: m.now}, m.readErr
}

func (m *memory) DeleteDeadServers(context.Context, time.Duration) error { return m.readErr }

func (m *memory) Waiting(context.Context, bool) ([]service.Waiting, error) { return nil, m.readErr }

func (m *memory) AbandonedPlaces(context.Context, time.Duration, int) ([]lock.Place, error) {
	return nil, m.readErr
}

// read notes a call and its arguments.
func (m *memory) read(arguments any) {
	m.readCount++
	m.arguments = append(m.arguments, arguments)
}

func (m *memory) Find(_ context.Context, name string) (service.Snapshot, error) {
	m.readCount++
	if m.readErr != nil {
		return service.Snapshot{}, m.readErr
	}
	r := m.resources[name]
	r.Name = name
	return service.Snapshot{Resource: r, At: m.now}, nil
}

// Held notes the filter and ignores it: the tests of the store cover filters.
func (m *memory) Held(
	_ context.Context, f service.ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	m.read(f)
	if m.readErr != nil {
		return m.readErr
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

// page holds the arguments of HeldBy.
type page struct {
	Process, After string
	Limit          int
}

// HeldBy returns an error for a page that it has already returned, so that no caller
// loops forever.
func (m *memory) HeldBy(_ context.Context, process, after string, limit int) ([]string, error) {
	arguments := page{process, after, limit}
	if slices.Contains(m.arguments, any(arguments)) {
		return nil, errRead
	}
	m.read(arguments)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.resources)) {
		holds := m.resources[name].Holds
		if name > after && len(holds) > 0 && holds[0].ProcessID == process && len(names) < limit {
			names = append(names, name)
		}
	}
	return names, m.readErr
}

// History notes the filter and ignores it.
func (m *memory) History(_ context.Context, f service.HistoryFilter) ([]lock.Event, error) {
	m.read(f)
	newest := slices.Clone(m.events)
	slices.Reverse(newest)
	return newest, m.readErr
}

func (m *memory) LastEnd(_ context.Context, resource, process string, token int64) (lock.Event, bool, error) {
	m.read(lastEnd{resource, process, token})
	for _, e := range slices.Backward(m.events) {
		if e.Resource == resource && e.ProcessID == process && (token == 0 || token == e.Token) {
			return e, e.Kind != lock.EventAcquired, m.readErr // the caller must ignore the event if there is an error
		}
	}
	return lock.Event{}, false, m.readErr
}

// lastEnd holds the arguments of LastEnd.
type lastEnd struct {
	Resource, Process string
	Token             int64
}

func (m *memory) Expired(_ context.Context, limit int) ([]string, error) {
	m.readCount++
	var names []string
	for _, r := range m.sorted() {
		if _, held := r.Holder(m.now); !held && len(r.Holds) > 0 && len(names) < limit {
			names = append(names, r.Name)
		}
	}
	return names, m.readErr
}

func (m *memory) IdleResources(
	_ context.Context, afterID int64, window int, idle time.Duration,
) (page service.IdlePage, err error) {
	m.readCount++
	page.Before = m.now.Add(-idle)
	for _, r := range m.sorted() {
		if r.ID <= afterID {
			continue
		}
		if window == 0 {
			page.Next = afterID
			return page, m.readErr
		}
		if len(r.Holds) == 0 && r.EndedAt.Before(page.Before) {
			page.Names = append(page.Names, r.Name)
		}
		afterID = r.ID
		window--
	}
	return page, m.readErr
}

// deletion holds the arguments of DeleteEvents.
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
	return old, m.readErr
}

// newService returns a service with the widest limits.
func newService(store service.Store) *service.Service {
	return withLimits(store, lock.Limits{MaxTTL: lock.LongestTTL})
}

func withLimits(store service.Store, limits lock.Limits) *service.Service {
	return service.New(store, service.Config{Limits: limits}, slog.New(slog.DiscardHandler))
}

// limited returns a service that allows a TTL of at most an hour, and so no hold without
// one.
func limited(store service.Store) *service.Service {
	return withLimits(store, lock.Limits{MaxTTL: time.Hour})
}
