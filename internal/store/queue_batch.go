package store

import (
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
)

// queue is what was loaded of the queue of a resource.
type queue struct {
	waiters []*lock.Waiter
	servers map[int64]int64 // of each waiter, by ticket
}

// loadQueues adds to the states what the commands need of the queues: see [lock.Command].
// Most batches need nothing. The query is a statement of its own because it must see what
// was committed before the rows were locked.
func (s *Store) loadQueues(tx *gorm.DB, now time.Time, states map[string]lock.Resource, needs []lock.Needs) (
	map[string]queue, error,
) {
	part := queuePart{server: s.server, now: now, places: []placeKey{}}
	names := map[int64]string{}
	for _, r := range states {
		if r.Waiters > 0 || r.Detached > 0 {
			names[r.ID] = r.Name
			part.resources = append(part.resources, r.ID)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	mayFree := map[string]int{} // the number of commands that may free a resource
	maxFree := 0
	for _, n := range needs {
		if n.MayFree {
			for _, name := range n.Resources {
				mayFree[name]++
				maxFree = max(maxFree, mayFree[name])
			}
		}
		for _, p := range n.Places {
			part.places = append(part.places, placeKey{states[p.Resource].ID, p.ProcessID, p.RequestID})
		}
	}
	part.first = maxFree + 2 // one more for all acquires, and one that remains
	queues := make(map[string]queue, len(names))
	err := s.backend.loadQueues(tx, part, func(row *waiterRow) {
		name := names[row.ResourceID]
		r, q := states[name], queues[name]
		w := row.waiter(name, s.server)
		if q.servers == nil {
			q.servers = map[int64]int64{}
		}
		q.waiters = append(q.waiters, w)
		q.servers[w.Ticket] = row.ServerID
		r.Queue = q.waiters
		states[name], queues[name] = r, q
	})
	return queues, err
}

// saveQueues writes the changes of the queues of changed resources.
func (s *Store) saveQueues(
	tx *gorm.DB, before map[string]queue, states map[string]lock.Resource, changed []string,
) error {
	var enqueued, dequeued []waiterRow
	for _, name := range changed {
		r := states[name]
		loaded := make(map[int64]*lock.Waiter, len(before[name].waiters))
		for _, w := range before[name].waiters {
			loaded[w.Ticket] = w
		}
		for _, w := range r.Queue {
			if loaded[w.Ticket] != w {
				enqueued = append(enqueued, waiterRowOf(r.ID, s.server, w))
			}
			delete(loaded, w.Ticket)
		}
		for ticket := range loaded {
			dequeued = append(dequeued, waiterRow{ResourceID: r.ID, Ticket: ticket})
		}
	}
	if len(dequeued)+len(enqueued) == 0 {
		return nil
	}
	return s.backend.writeQueues(tx, dequeued, enqueued)
}

// notify adds to the given notices one for each waiter of another server that a free
// resource is reserved for, and sends all of them.
func (s *Store) notify(
	tx *gorm.DB, now time.Time, contended []lock.Resource, queues map[string]queue, notices []notice,
) error {
	for _, r := range contended {
		if _, held := r.Holder(now); held {
			continue
		}
		if first := r.First(now); first != nil && !first.Local {
			notices = append(notices, notice{Server: queues[r.Name].servers[first.Ticket], Name: r.Name})
		}
	}
	if len(notices) == 0 {
		return nil
	}
	return s.backend.notify(tx, notices)
}
