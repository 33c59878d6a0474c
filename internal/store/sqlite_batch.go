package store

import (
	"database/sql"
	"encoding/json"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
)

// The statements of a batch. Rows are written one by one: a prepared statement costs less
// for each row than a statement that takes many rows as JSON.
var (
	sqliteDataVersion = statement("sqlite/data_version.sql")
	sqliteLockRows    = statement("sqlite/lock_rows.sql")
	sqliteLoadQueues  = statement("sqlite/load_queues.sql")
	sqliteSaveRow     = statement("sqlite/save_row.sql")
	sqliteAppendEvent = statement("sqlite/append_event.sql")
	sqliteIndexEvents = statement("sqlite/index_events.sql")
	sqliteEnqueue     = statement("sqlite/enqueue.sql")
	sqliteDequeue     = statement("sqlite/dequeue.sql")

	sqliteBatch = []string{
		sqliteDataVersion, sqliteLockRows, sqliteLoadQueues, sqliteSaveRow, sqliteAppendEvent, sqliteIndexEvents,
		sqliteEnqueue, sqliteDequeue,
	}
)

// lockRows implements backend. The transaction has had the write lock since it began.
func (s *sqlite) lockRows(tx *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	s.index.begin()
	var version int64
	err := s.statements.query(tx, func(rows *sql.Rows) error { return rows.Scan(&version) }, sqliteDataVersion)
	if err != nil {
		return nil, time.Time{}, err
	}
	states, missing := s.cache.lookUp(version, names)
	if len(missing) > 0 {
		wanted, err := json.Marshal(missing)
		if err != nil {
			return nil, time.Time{}, err
		}
		if err := s.statements.query(tx, scanInto(states), sqliteLockRows, string(wanted)); err != nil {
			return nil, time.Time{}, err
		}
	}
	return states, s.clock.now(), nil
}

// readRows implements backend.
func (s *sqlite) readRows(db *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	now := s.clock.now()
	wanted, err := json.Marshal(names)
	if err != nil {
		return nil, now, err
	}
	states := make(map[string]lock.Resource, len(names))
	return states, now, query(db, scanInto(states), sqliteLockRows, string(wanted))
}

// scanInto returns a function that adds the state of each row.
func scanInto(states map[string]lock.Resource) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var row lockRow
		if err := row.scan(rows); err != nil {
			return err
		}
		states[row.ResourceName] = row.resource()
		return nil
	}
}

// loadQueues implements backend.
func (s *sqlite) loadQueues(tx *gorm.DB, part queuePart, each func(*waiterRow)) error {
	args, err := part.args()
	if err != nil {
		return err
	}
	return s.statements.query(tx, scanWaiters(each), sqliteLoadQueues, args...)
}

// write implements backend.
func (s *sqlite) write(tx *gorm.DB, rows []lockRow, events []eventRow) error {
	if err := s.saveRows(tx, rows); err != nil {
		return err
	}
	return s.appendEvents(tx, events)
}

func (s *sqlite) saveRows(tx *gorm.DB, rows []lockRow) error {
	write := s.statements.exec(tx, sqliteSaveRow)
	for i := range rows {
		result, err := write(rows[i].values()...)
		if err != nil {
			return err
		}
		switch written, err := result.RowsAffected(); {
		case err != nil:
			return err
		case written == 0:
			return errRace
		}
		if rows[i].ID == 0 {
			if rows[i].ID, err = result.LastInsertId(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sqlite) appendEvents(tx *gorm.DB, events []eventRow) error {
	write := s.statements.exec(tx, sqliteAppendEvent)
	var last int64
	for i := range events {
		result, err := write(events[i].values()...)
		if err == nil {
			last, err = result.LastInsertId()
		}
		if err != nil {
			return err
		}
	}
	after, due := s.index.due(last)
	if !due {
		return nil
	}
	_, err := s.statements.exec(tx, sqliteIndexEvents)(after)
	return err
}

// writeQueues implements backend.
func (s *sqlite) writeQueues(tx *gorm.DB, dequeued, enqueued []waiterRow) error {
	if len(dequeued) > 0 {
		remove := s.statements.exec(tx, sqliteDequeue)
		for i := range dequeued {
			if _, err := remove(dequeued[i].ResourceID, dequeued[i].Ticket); err != nil {
				return err
			}
		}
	}
	if len(enqueued) > 0 {
		insert := s.statements.exec(tx, sqliteEnqueue)
		for i := range enqueued {
			if _, err := insert(enqueued[i].values()...); err != nil {
				return err
			}
		}
	}
	return nil
}
