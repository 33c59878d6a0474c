package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// connectedOf serves both dialects: the waiters that are connected to the given server, or to one that is alive at the
// given moment.
const connectedOf = `FROM lock_waiters AS w LEFT JOIN lock_servers AS s ON s.id = w.server_id
	WHERE w.away_until IS NULL AND (w.server_id = ? OR s.alive_until > ?)`

// theirServers completes waiterColumns, in the order of the queue.
const theirServers = `LEFT JOIN lock_servers AS s ON s.id = w.server_id ORDER BY w.ticket`

// queue is what was loaded of a resource's queue.
type queue struct {
	waiters []*lock.Waiter
	servers map[int64]int64 // of each waiter, by ticket
}

// placeRow names a place as the load statement reads it.
type placeRow struct {
	ResourceID int64  `json:"resource_id"`
	ProcessID  string `json:"process_id"`
	RequestID  string `json:"request_id"`
}

// loadQueues adds to the states what the commands need of the queues: see lock.Command. Most batches need nothing.
// It is a statement of its own because it must see what was committed before the rows were locked.
func (s *Store) loadQueues(tx *gorm.DB, now time.Time, states map[string]lock.Resource, needs []lock.Needs) (map[string]queue, error) {
	names := map[int64]string{}
	for _, r := range states {
		if r.Waiters > 0 || r.Detached > 0 {
			names[r.ID] = r.Name
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	ids := make([]int64, 0, len(names))
	for id := range names {
		ids = append(ids, id)
	}
	takes := map[string]int{}
	most := 0
	places := []placeRow{}
	for _, n := range needs {
		if n.MayFree {
			for _, name := range n.Resources {
				takes[name]++
				most = max(most, takes[name])
			}
		}
		for _, p := range n.Places {
			places = append(places, placeRow{states[p.Resource].ID, p.ProcessID, p.RequestID})
		}
	}
	idList, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	placeList, err := json.Marshal(places)
	if err != nil {
		return nil, err
	}
	queues := make(map[string]queue, len(names))
	err = s.statements.query(tx, func(rows *sql.Rows) error {
		var row waiterRow
		err := row.scan(rows)
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
		return err
	}, s.dialect.queues, string(idList), s.server, instant{now}, most+2, string(placeList)) // one more for all acquires, and one to remain
	return queues, err
}

// saveQueues writes what became of the queues of changed resources.
func (s *Store) saveQueues(tx *gorm.DB, before map[string]queue, states map[string]lock.Resource, changed []string) error {
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
	// In this order: a request that has lost its place may have got another one.
	if len(dequeued) > 0 {
		if err := s.dialect.dequeue(tx, dequeued); err != nil {
			return err
		}
	}
	if len(enqueued) > 0 {
		return s.dialect.enqueue(tx, enqueued)
	}
	return nil
}

// notice is what a server is notified of: a resource that may have come to one of its waiters, or a waiter whose place
// another request has taken.
type notice struct {
	Server     int64  `json:"server"`
	Name       string `json:"name,omitempty"`
	Connection int64  `json:"connection,omitempty"`
}

// notify adds to the given notices those for the waiters that free resources are reserved for, and sends them.
func (s *Store) notify(tx *gorm.DB, now time.Time, awaited []lock.Resource, queues map[string]queue, notices []notice) error {
	if s.dialect.notify == "" {
		return nil
	}
	for _, r := range awaited {
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
	return execute(tx, s.dialect.notify, notices)
}

// Queue implements service.Reader.
func (s *Store) Queue(ctx context.Context, resource string, after int64, limit int) (
	page service.QueuePage, err error,
) {
	err = s.read(ctx, func(db *gorm.DB) error {
		var err error
		if page.At, err = s.moment(db); err != nil {
			return err
		}
		return query(db, func(rows *sql.Rows) error {
			var row waiterRow
			var at int
			err := row.scan(rows, &at)
			if len(page.Waiters) == 0 {
				page.Position = at
			}
			page.Waiters = append(page.Waiters, row.waiter(resource, s.server))
			return err
		}, `SELECT w.position, `+waiterColumns+` FROM (
				SELECT w.*, row_number() OVER (ORDER BY w.ticket) AS position `+connectedOf+`
				AND w.resource_id = (SELECT id FROM resource_locks WHERE resource_name = ?)) AS w
			LEFT JOIN lock_servers AS s ON s.id = w.server_id WHERE w.ticket > ? ORDER BY w.ticket`+limited,
			s.server, instant{page.At}, resource, after, limit)
	})
	return page, err
}

// Waiting implements service.Reader.
func (s *Store) Waiting(ctx context.Context, onlyFree bool) (waiting []service.Waiting, err error) {
	const held = "r.is_active AND (r.expires_at IS NULL OR r.expires_at > ?)"
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
		if err != nil {
			return err
		}
		var c conditions
		c.args = append(c.args, instant{now})
		c.add("w.server_id = ? AND w.away_until IS NULL", s.server)
		if onlyFree {
			c.add("NOT ("+held+")", instant{now})
		}
		return query(db, func(rows *sql.Rows) error {
			var w service.Waiting
			err := rows.Scan(&w.Place.Resource, &w.Place.ProcessID, &w.Place.RequestID, &w.Connection, &w.Free)
			waiting = append(waiting, w)
			return err
		}, `SELECT r.resource_name, w.process_id, w.request_id, w.connection, NOT (`+held+`)
			FROM lock_waiters AS w JOIN resource_locks AS r ON r.id = w.resource_id`+c.text, c.args...)
	})
	return waiting, err
}

// longDead is how long a server must have been dead before it is forgotten.
const longDead = time.Hour

// AbandonedPlaces implements service.Housekeeping.
func (s *Store) AbandonedPlaces(ctx context.Context, keep time.Duration, limit int) (places []lock.Place, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
		if err != nil {
			return err
		}
		return query(db, func(rows *sql.Rows) error {
			var p lock.Place
			err := rows.Scan(&p.Resource, &p.ProcessID, &p.RequestID)
			places = append(places, p)
			return err
		}, `SELECT r.resource_name, w.process_id, w.request_id
			FROM lock_waiters AS w JOIN resource_locks AS r ON r.id = w.resource_id LEFT JOIN lock_servers AS s ON s.id = w.server_id
			WHERE w.away_until <= ? OR w.away_until IS NULL AND w.server_id <> ? AND (s.id IS NULL OR s.alive_until <= ?)`+
			limited, instant{now}, s.server, instant{now.Add(-keep)}, limit)
	})
	return places, err
}

// DeleteDeadServers implements service.Housekeeping.
func (s *Store) DeleteDeadServers(ctx context.Context, keep time.Duration) error {
	return s.write(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
		if err != nil {
			return err
		}
		if err := s.needNotLast(db); err != nil {
			return err
		}
		return db.Exec(`DELETE FROM lock_servers WHERE id <> ? AND alive_until < ? AND id NOT IN (SELECT server_id FROM lock_waiters)`,
			s.server, instant{now.Add(-keep - longDead)}).Error
	})
}
