package store

import (
	"context"
	"database/sql"

	"gorm.io/gorm"

	"resource-lock-manager/internal/service"
)

var selectQueuePage = statement("queue_page.sql")

// Queue implements service.Reader.
func (s *Store) Queue(ctx context.Context, resource string, after int64, limit int) (
	page service.QueuePage, err error,
) {
	err = s.read(ctx, func(db *gorm.DB) error {
		var err error
		if page.At, err = s.backend.now(db); err != nil {
			return err
		}
		return query(db, func(rows *sql.Rows) error {
			var row waiterRow
			var position int
			err := row.scan(rows, &position)
			if len(page.Waiters) == 0 {
				page.Position = position
			}
			page.Waiters = append(page.Waiters, row.waiter(resource, s.server))
			return err
		}, selectQueuePage, s.server, instant{page.At}, resource, after, limit)
	})
	return page, err
}

// Waiting implements service.Reader.
func (s *Store) Waiting(ctx context.Context, onlyFree bool) (waiting []service.Waiting, err error) {
	const held = "r.is_active AND (r.expires_at IS NULL OR r.expires_at > ?)"
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.backend.now(db)
		if err != nil {
			return err
		}
		w := where{args: []any{instant{now}}}
		w.add("w.server_id = ? AND w.away_until IS NULL", s.server)
		if onlyFree {
			w.add("NOT ("+held+")", instant{now})
		}
		return query(db, func(rows *sql.Rows) error {
			var w service.Waiting
			err := rows.Scan(&w.Place.Resource, &w.Place.ProcessID, &w.Place.RequestID, &w.Connection, &w.Free)
			waiting = append(waiting, w)
			return err
		}, `SELECT r.resource_name, w.process_id, w.request_id, w.connection, NOT (`+held+`)
			FROM lock_waiters AS w JOIN resource_locks AS r ON r.id = w.resource_id`+w.text, w.args...)
	})
	return waiting, err
}
