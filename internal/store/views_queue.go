package store

import (
	"context"
	"database/sql"

	"gorm.io/gorm"

	"resource-lock-manager/internal/service"
)

var (
	selectQueuePage      = statement("queue_page.sql")
	selectWaiting        = statement("waiting.sql")
	selectWaitingForFree = statement("waiting_for_free.sql")
)

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
	text := selectWaiting
	if onlyFree {
		text = selectWaitingForFree
	}
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.backend.now(db)
		if err != nil {
			return err
		}
		return query(db, func(rows *sql.Rows) error {
			var w service.Waiting
			err := rows.Scan(&w.Place.Resource, &w.Place.ProcessID, &w.Place.RequestID, &w.Connection, &w.Free)
			waiting = append(waiting, w)
			return err
		}, text, instant{now}, s.server)
	})
	return waiting, err
}
