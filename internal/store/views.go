package store

import (
	"context"
	"database/sql"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
)

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, name string) (lock.Resource, time.Time, error) {
	found, now, err := s.list(ctx, "(SELECT 1) AS one LEFT JOIN resource_locks ON resource_name = ?", name)
	if err != nil || len(found) == 0 {
		return lock.Resource{Name: name}, now, err
	}
	return found[0], now, nil
}

// Held implements lock.Store.
func (s *Store) Held(ctx context.Context) ([]lock.Resource, time.Time, error) {
	return s.list(ctx, "resource_locks WHERE is_active ORDER BY id")
}

// list reads resources from what follows FROM, and the moment.
func (s *Store) list(ctx context.Context, from string, args ...any) (found []lock.Resource, now time.Time, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		return query(db, func(rows *sql.Rows) error {
			moment, row, ok, err := scanOptional(rows)
			now = moment.Time
			if ok {
				found = append(found, row.resource())
			}
			return err
		}, "SELECT "+s.dialect.now+", "+columns+" FROM "+from, args...)
	})
	if s.dialect.clock != nil {
		now = s.dialect.clock()
	}
	return found, now, err
}

// Expired implements lock.Store.
func (s *Store) Expired(ctx context.Context, limit int) ([]string, error) {
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	err = s.read(ctx, func(db *gorm.DB) error {
		return db.Raw("SELECT resource_name FROM resource_locks WHERE is_active AND expires_at <= ? ORDER BY expires_at LIMIT ?",
			instant{now}, limit).Scan(&names).Error
	})
	return names, err
}

// Idle implements lock.Store.
func (s *Store) Idle(ctx context.Context, afterID int64, window int, idle time.Duration) (names []string, before time.Time, next int64, err error) {
	now, err := s.now(ctx)
	if err != nil {
		return nil, time.Time{}, 0, err
	}
	before = now.Add(-idle)
	seen := 0
	err = s.read(ctx, func(db *gorm.DB) error {
		return query(db, func(rows *sql.Rows) error {
			var name string
			var idle bool
			err := rows.Scan(&next, &name, &idle)
			if idle {
				names = append(names, name)
			}
			seen++
			return err
		}, "SELECT id, resource_name, NOT is_active AND ended_at < ? FROM resource_locks WHERE id > ? ORDER BY id LIMIT ?",
			instant{before}, afterID, window)
	})
	if seen < window {
		next = 0
	}
	return names, before, next, err
}

// now reads the moment outside any transaction.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	if s.dialect.clock != nil {
		return s.dialect.clock(), nil
	}
	var now instant
	err := s.read(ctx, func(db *gorm.DB) error { return db.Raw("SELECT " + s.dialect.now).Row().Scan(&now) })
	return now.Time, err
}
