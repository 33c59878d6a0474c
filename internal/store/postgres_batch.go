package store

import (
	"database/sql"
	"encoding/json"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
)

var (
	postgresLockRows   = statement("postgres/lock_rows.sql")
	postgresReadRows   = statement("postgres/read_rows.sql")
	postgresLoadQueues = statement("postgres/load_queues.sql")
	postgresWrite      = statement("postgres/write.sql")
	postgresEnqueue    = statement("postgres/enqueue.sql")
	postgresDequeue    = statement("postgres/dequeue.sql")
	postgresNotify     = statement("postgres/notify.sql")
)

// lockRows implements backend.
func (p *postgres) lockRows(tx *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	return readStates(tx, postgresLockRows, names)
}

// readRows implements backend.
func (p *postgres) readRows(db *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	return readStates(db, postgresReadRows, names)
}

// readStates runs a query for the rows of the named resources. Each row starts with the
// time.
func readStates(db *gorm.DB, text string, names []string) (states map[string]lock.Resource, now time.Time, err error) {
	wanted, err := json.Marshal(names)
	if err != nil {
		return nil, now, err
	}
	states = make(map[string]lock.Resource, len(names))
	err = query(db, func(rows *sql.Rows) error {
		var at instant
		var row lockRow
		err := row.scan(rows, &at)
		if at.After(now) { // the last of several times is the one after all rows were locked
			now = at.Time
		}
		if row.ID != 0 {
			states[row.ResourceName] = row.resource()
		}
		return err
	}, text, string(wanted))
	return states, now, err
}

// loadQueues implements backend.
func (p *postgres) loadQueues(tx *gorm.DB, part queuePart, each func(*waiterRow)) error {
	args, err := part.args()
	if err != nil {
		return err
	}
	return query(tx, scanWaiters(each), postgresLoadQueues, args...)
}

// write implements backend.
func (p *postgres) write(tx *gorm.DB, saved []lockRow, events []eventRow) error {
	savedList, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	eventList, err := json.Marshal(events)
	if err != nil {
		return err
	}
	ids := make(map[string]int64, len(saved))
	err = query(tx, func(rows *sql.Rows) error {
		var id int64
		var name string
		err := rows.Scan(&id, &name)
		ids[name] = id
		return err
	}, postgresWrite, string(eventList), string(savedList))
	if err == nil && len(ids) < len(saved) {
		err = errRace
	}
	for i := range saved {
		saved[i].ID = ids[saved[i].ResourceName]
	}
	return err
}

// writeQueues implements backend.
func (p *postgres) writeQueues(tx *gorm.DB, dequeued, enqueued []waiterRow) error {
	if len(dequeued) > 0 {
		if err := execute(tx, postgresDequeue, dequeued); err != nil {
			return err
		}
	}
	if len(enqueued) > 0 {
		return execute(tx, postgresEnqueue, enqueued)
	}
	return nil
}

// notify implements backend.
func (p *postgres) notify(tx *gorm.DB, notices []notice) error {
	if !p.notifications {
		return nil
	}
	return execute(tx, postgresNotify, notices)
}

// execute runs a statement whose parameter is a JSON array of rows.
func execute[T any](tx *gorm.DB, statement string, rows []T) error {
	list, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return tx.Exec(statement, string(list)).Error
}
