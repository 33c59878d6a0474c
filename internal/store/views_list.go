package store

import (
	"context"
	"database/sql"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Held implements service.Reader. It reads a whole page before it passes any of it on. It
// passes on a list without a limit row by row, so that the list is never in memory.
func (s *Store) Held(
	ctx context.Context, f service.ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	if f.Limit == 0 {
		return s.snapshot(ctx, func(tx *gorm.DB) error {
			now, w, err := s.whereHeld(tx, f)
			if err != nil {
				return err
			}
			var total int
			if err := tx.Raw("SELECT count(*) FROM resource_locks"+w.text, w.args...).Row().Scan(&total); err != nil {
				return err
			}
			if err := begin(total, now); err != nil {
				return err
			}
			return s.eachHeld(tx, f, w, each)
		})
	}
	var page []lock.Resource
	var now time.Time
	err := s.read(ctx, func(db *gorm.DB) (err error) {
		var w where
		if now, w, err = s.whereHeld(db, f); err != nil {
			return err
		}
		return s.eachHeld(db, f, w, func(r lock.Resource) error {
			page = append(page, r)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if err := begin(len(page), now); err != nil {
		return err
	}
	for _, r := range page {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// whereHeld returns the conditions of a filter at the present time.
func (s *Store) whereHeld(db *gorm.DB, f service.ListFilter) (now time.Time, w where, err error) {
	if now, err = s.backend.now(db); err != nil {
		return now, w, err
	}
	// In this form no planner uses the index of expiries, which would find nearly all
	// holds.
	w.add("is_active AND coalesce(expires_at > ?, true)", instant{now})
	if f.ProcessID != "" {
		w.add("process_id = ?", f.ProcessID)
	}
	if f.Prefix != "" { // not LIKE: no character is special, and case counts
		if f.After < f.Prefix { // of two lower bounds SQLite would use only one in an index
			w.add(s.names.from, f.Prefix)
		} else {
			w.add(s.names.after, f.After)
		}
		if end, bounded := prefixEnd(f.Prefix); bounded {
			w.add(s.names.before, end)
		}
	}
	if f.AfterID != 0 {
		w.add("id > ?", f.AfterID)
	}
	return now, w, nil
}

// prefixEnd returns the least text that is greater than every text with the prefix. There
// is none if the prefix consists of the highest code point only.
func prefixEnd(prefix string) (end string, bounded bool) {
	last, size := utf8.DecodeLastRuneInString(prefix)
	switch rest := prefix[:len(prefix)-size]; {
	case size == 0:
		return "", false
	case last == utf8.MaxRune:
		return prefixEnd(rest)
	case last == 0xD7FF: // the surrogates come next, which are not characters
		return rest + "\uE000", true
	default:
		return rest + string(last+1), true
	}
}

// eachHeld calls each for the rows that meet the conditions, in the order of the filter.
func (s *Store) eachHeld(db *gorm.DB, f service.ListFilter, w where, each func(lock.Resource) error) error {
	text := s.selectHeld(f, &w)
	return query(db, func(rows *sql.Rows) error {
		var row lockRow
		if err := row.scan(rows); err != nil {
			return err
		}
		return each(row.resource())
	}, text, w.args...)
}

// selectHeld returns the query of a list, and completes the arguments of w.
func (s *Store) selectHeld(f service.ListFilter, w *where) string {
	order := "id"
	if f.Prefix != "" {
		order = s.names.sorted
	}
	return "SELECT " + lockList + " FROM resource_locks" + w.page(order, f.Limit)
}

// HeldBy implements service.Reader.
func (s *Store) HeldBy(ctx context.Context, process, after string, limit int) (names []string, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		var w where
		w.add("is_active AND process_id = ?", process)
		w.add(s.names.after, after)
		text := "SELECT resource_name FROM resource_locks" + w.page(s.names.sorted, limit)
		return db.Raw(text, w.args...).Scan(&names).Error
	})
	return names, err
}
