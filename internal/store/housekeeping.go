package store

import (
	"context"
	"database/sql"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// longDead is how long a server must have been dead before it is deleted, in addition to
// the time for which places are kept.
const longDead = time.Hour

var (
	selectExpired         = statement("expired.sql")
	selectIdleResources   = statement("idle_resources.sql")
	deleteEvents          = statement("delete_events.sql")
	selectAbandonedPlaces = statement("abandoned_places.sql")
	deleteDeadServers     = statement("delete_dead_servers.sql")
)

// Expired implements service.Housekeeping.
func (s *Store) Expired(ctx context.Context, limit int) (names []string, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.backend.now(db)
		if err != nil {
			return err
		}
		return db.Raw(selectExpired, instant{now}, limit).Scan(&names).Error
	})
	return names, err
}

// IdleResources implements service.Housekeeping.
func (s *Store) IdleResources(ctx context.Context, afterID int64, window int, idle time.Duration) (
	page service.IdlePage, err error,
) {
	read := 0
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.backend.now(db)
		if err != nil {
			return err
		}
		page.Before = now.Add(-idle)
		return query(db, func(rows *sql.Rows) error {
			var name string
			var idle bool
			err := rows.Scan(&page.Next, &name, &idle)
			if idle {
				page.Names = append(page.Names, name)
			}
			read++
			return err
		}, selectIdleResources, instant{page.Before}, afterID, window)
	})
	if read < window {
		page.Next = 0
	}
	return page, err
}

// DeleteEvents implements service.Housekeeping.
func (s *Store) DeleteEvents(ctx context.Context, age time.Duration, limit int) (deleted int, err error) {
	err = s.tidy(ctx, func(tx *gorm.DB, now time.Time) error {
		result := tx.Exec(deleteEvents, instant{now.Add(-age)}, limit)
		deleted = int(result.RowsAffected)
		return result.Error
	})
	return deleted, err
}

// AbandonedPlaces implements service.Housekeeping.
func (s *Store) AbandonedPlaces(ctx context.Context, keep time.Duration, limit int) (places []lock.Place, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.backend.now(db)
		if err != nil {
			return err
		}
		return query(db, func(rows *sql.Rows) error {
			var p lock.Place
			err := rows.Scan(&p.Resource, &p.ProcessID, &p.RequestID)
			places = append(places, p)
			return err
		}, selectAbandonedPlaces, instant{now}, s.server, instant{now.Add(-keep)}, limit)
	})
	return places, err
}

// DeleteDeadServers implements service.Housekeeping.
func (s *Store) DeleteDeadServers(ctx context.Context, keep time.Duration) error {
	return s.tidy(ctx, func(tx *gorm.DB, now time.Time) error {
		return tx.Exec(deleteDeadServers, s.server, instant{now.Add(-keep - longDead)}).Error
	})
}

// tidy runs a transaction that deletes what is not needed any more.
func (s *Store) tidy(ctx context.Context, statements func(tx *gorm.DB, now time.Time) error) error {
	return s.write(ctx, func(tx *gorm.DB) error {
		now, err := s.backend.now(tx)
		if err != nil {
			return err
		}
		if err := s.backend.relaxDurability(tx); err != nil {
			return err
		}
		return statements(tx, now)
	})
}
