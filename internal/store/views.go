package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Find implements service.Reader. Callers that arrive while a read is under way share the next one.
func (s *Store) Find(ctx context.Context, name string) (service.Snapshot, error) {
	if s.dialect.clock != nil {
		now := s.dialect.clock() // before the look, see look
		if r, known := s.known.find(name); known {
			return service.Snapshot{Resource: r, At: now}, s.file.checkForReading()
		}
	}
	seen, err := s.looks.Do(ctx, name)
	switch {
	case err == nil:
		return seen, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = translateCommit(err)
	}
	return service.Snapshot{}, err
}

// look is the looks' transaction: it reads what is stored under the names. The moment is read
// before the rows: a hold whose renewal is committed in between may be taken for live, which it
// is, but never for over. A renewal that is committed later is not seen, even if it was decided
// before the moment: the hold is taken for over once its committed end has passed.
func (s *Store) look(names []string) ([]groupcommit.Result[service.Snapshot], error) {
	list, err := json.Marshal(slices.Compact(slices.Sorted(slices.Values(names))))
	if err != nil {
		return nil, err
	}
	var now time.Time
	if s.dialect.clock != nil {
		now = s.dialect.clock()
	}
	found := make(map[string]lock.Resource, len(names))
	err = s.read(context.Background(), func(db *gorm.DB) error {
		return query(db, func(rows *sql.Rows) error {
			var moment instant
			var row lockRow
			err := row.scan(rows, &moment)
			if s.dialect.clock == nil {
				now = moment.Time
			}
			if row.ID != 0 {
				found[row.ResourceName] = row.resource()
			}
			return err
		}, s.dialect.look, string(list))
	})
	if errors.Is(err, service.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", groupcommit.ErrUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	results := make([]groupcommit.Result[service.Snapshot], len(names))
	for i, name := range names {
		r, ok := found[name]
		if !ok {
			r.Name = name
		}
		results[i].Value = service.Snapshot{Resource: r, At: now}
	}
	return results, nil
}

// Held implements service.Reader. A page is read before anything of it is handed on. The whole list is handed on as it
// comes, so that it is never in memory.
func (s *Store) Held(ctx context.Context, f service.ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error) error {
	if f.Limit == 0 {
		return s.snapshot(ctx, func(tx *gorm.DB) error {
			now, c, err := s.heldConditions(tx, f)
			if err != nil {
				return err
			}
			var total int
			if err := tx.Raw("SELECT count(*) FROM resource_locks"+c.text, c.args...).Row().Scan(&total); err != nil {
				return err
			}
			if err := begin(total, now); err != nil {
				return err
			}
			return s.eachHeld(tx, f, c, each)
		})
	}
	var page []lock.Resource
	var now time.Time
	err := s.read(ctx, func(db *gorm.DB) (err error) {
		var c conditions
		if now, c, err = s.heldConditions(db, f); err != nil {
			return err
		}
		return s.eachHeld(db, f, c, func(r lock.Resource) error {
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

// heldConditions are those of a filter at the present moment.
func (s *Store) heldConditions(db *gorm.DB, f service.ListFilter) (now time.Time, c conditions, err error) {
	if now, err = s.moment(db); err != nil {
		return now, c, err
	}
	// In this form no planner takes the index of expiries for it, which finds nearly all that is held.
	c.add("is_active AND coalesce(expires_at > ?, true)", instant{now})
	if f.ProcessID != "" {
		c.add("process_id = ?", f.ProcessID)
	}
	if f.Prefix != "" { // not LIKE: no character is special, and case counts
		if f.After < f.Prefix { // of two lower bounds SQLite would give the index but one
			c.add(s.dialect.names.from, f.Prefix)
		} else {
			c.add(s.dialect.names.after, f.After)
		}
		if end, bounded := prefixEnd(f.Prefix); bounded {
			c.add(s.dialect.names.before, end)
		}
	}
	if f.AfterID != 0 {
		c.add("id > ?", f.AfterID)
	}
	return now, c, nil
}

// prefixEnd returns the least text that is greater than every text with the prefix. There is none when the prefix has
// only the highest code point.
func prefixEnd(prefix string) (end string, bounded bool) {
	last, size := utf8.DecodeLastRuneInString(prefix)
	switch rest := prefix[:len(prefix)-size]; {
	case size == 0:
		return "", false
	case last == utf8.MaxRune:
		return prefixEnd(rest)
	case last == 0xD7FF: // the surrogates come next, which are no characters
		return rest + "\uE000", true
	default:
		return rest + string(last+1), true
	}
}

// eachHeld hands on the rows that meet the conditions, in the order of the filter.
func (s *Store) eachHeld(db *gorm.DB, f service.ListFilter, c conditions, each func(lock.Resource) error) error {
	text := s.heldText(f, &c)
	return query(db, func(rows *sql.Rows) error {
		var row lockRow
		if err := row.scan(rows); err != nil {
			return err
		}
		return each(row.resource())
	}, text, c.args...)
}

// heldText is the query of a list, and completes the conditions' arguments.
func (s *Store) heldText(f service.ListFilter, c *conditions) string {
	order := "id"
	if f.Prefix != "" {
		order = s.dialect.names.sorted
	}
	return "SELECT " + columns + " FROM resource_locks" + c.page(order, f.Limit)
}

// HeldBy implements service.Reader.
func (s *Store) HeldBy(ctx context.Context, process, after string, limit int) (names []string, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		var c conditions
		c.add("is_active AND process_id = ?", process)
		c.add(s.dialect.names.after, after)
		text := "SELECT resource_name FROM resource_locks" + c.page(s.dialect.names.sorted, limit)
		return db.Raw(text, c.args...).Scan(&names).Error
	})
	return names, err
}

// History implements service.Reader.
func (s *Store) History(ctx context.Context, f service.HistoryFilter) ([]lock.Event, error) {
	if f.ByTime() {
		return s.eventsByTime(ctx, f)
	}
	c := whose(f)
	if f.BeforeID != 0 {
		c.add("id < ?", f.BeforeID)
	}
	return s.events(ctx, c, f.Limit)
}

// whose are the conditions of a resource and a process.
func whose(f service.HistoryFilter) (c conditions) {
	if f.Resource != "" {
		c.add("resource_name = ?", f.Resource)
	}
	if f.ProcessID != "" {
		c.add("process_id = ?", f.ProcessID)
	}
	return c
}

// LastEnd implements service.Reader.
func (s *Store) LastEnd(ctx context.Context, resource, process string, token int64) (lock.Event, bool, error) {
	var c conditions
	c.add("resource_name = ? AND process_id = ? AND kind NOT IN (?, ?)", resource, process, lock.EventQueued, lock.EventGaveUp)
	if token != 0 {
		c.add("fencing_token = ?", token)
	}
	found, err := s.events(ctx, c, 2)
	if err != nil || len(found) == 0 || found[0].Kind.Begins() {
		return lock.Event{}, false, err
	}
	if len(found) == 2 && found[1].Token == found[0].Token && !found[1].Kind.Begins() {
		return found[1], true, nil // released first, and then what was left of its minimum broken
	}
	return found[0], true, nil
}

// events returns the newest events that meet the conditions, by id.
func (s *Store) events(ctx context.Context, c conditions, limit int) (found []lock.Event, err error) {
	read := func(c conditions) error {
		return s.read(ctx, func(db *gorm.DB) error {
			some, err := selectEvents(db, "FROM lock_events"+c.page("id DESC", limit-len(found)), c.args)
			found = append(found, some...)
			return err
		})
	}
	if s.known == nil {
		return found, read(c)
	}
	filed := s.known.filed.Load()
	if err := read(c.and("id > ?", filed)); err != nil || len(found) == limit {
		return found, err
	}
	return found, read(c.and("filed AND id <= ?", filed))
}

// fewEvents is how many events of a resource or a process are all read to find those of some
// time.
const fewEvents = 10_000

// eventsByTime returns the latest events that match a filter.
func (s *Store) eventsByTime(ctx context.Context, f service.HistoryFilter) (found []lock.Event, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		from, args, err := s.byTime(db, f)
		if errors.Is(err, sql.ErrNoRows) { // BeforeID was too old to be kept, and so are the events behind it
			return nil
		}
		if err != nil {
			return err
		}
		found, err = selectEvents(db, from, args)
		return err
	})
	return found, err
}

// byTime is the clause from FROM on that finds the latest events of a filter.
func (s *Store) byTime(db *gorm.DB, f service.HistoryFilter) (from string, args []any, err error) {
	var c conditions
	if !f.Since.IsZero() {
		c.add("at >= ?", instant{f.Since})
	}
	if !f.Until.IsZero() {
		c.add("at < ?", instant{f.Until})
	}
	if f.BeforeID != 0 {
		var at instant
		if err := db.Raw("SELECT at FROM lock_events WHERE id = ?", f.BeforeID).Row().Scan(&at); err != nil {
			return "", nil, err
		}
		c.add("(at, id) < (?, ?)", at, f.BeforeID)
	}
	its := whose(f)
	few, err := s.few(db, its)
	if err != nil {
		return "", nil, err
	}
	from, args = s.latest(f, c, its, few)
	return from, args, nil
}

// few reports whether there are few events that meet the conditions of a resource and a process.
func (s *Store) few(db *gorm.DB, its conditions) (bool, error) {
	if its.text == "" {
		return false, nil
	}
	if s.known != nil {
		its.add("filed")
	}
	var n int
	text := "SELECT count(*) FROM (SELECT 1 FROM lock_events" + its.text + limited + ") AS its"
	err := db.Raw(text, append(its.args, fewEvents)...).Row().Scan(&n)
	return n < fewEvents, err
}

// latest is the clause from FROM on that finds the latest events of a filter. An index has the
// events of each kind in the order of time, so that some of each kind are read and none in vain.
// But of a resource or a process that has few events, those are read.
func (s *Store) latest(f service.HistoryFilter, c, its conditions, few bool) (from string, args []any) {
	const order = "at DESC, id DESC"
	kinds := f.Kinds
	if len(kinds) == 0 {
		kinds = lock.EventKinds()
	}
	var parts []string
	add := func(table string, before []any, c conditions) {
		parts = append(parts, "SELECT * FROM (SELECT * FROM "+table+c.page(order, f.Limit)+") AS part")
		args = slices.Concat(args, before, c.args)
	}
	if s.known != nil {
		filed := s.known.filed.Load()
		add("lock_events", nil, its.both(c).and("kind IN ?", kinds).and("id > ?", filed))
		its = its.and("filed AND id <= ?", filed)
	}
	if few {
		text := its.page("id DESC", 2*fewEvents)
		add("(SELECT * FROM lock_events"+text+") AS its", its.args, c.and("kind IN ?", kinds))
	} else {
		for _, kind := range kinds {
			add("lock_events", nil, its.both(c).and("kind = ?", kind))
		}
	}
	all := conditions{args: args}
	from = "FROM (" + strings.Join(parts, " UNION ALL ") + ") AS parts" + all.page(order, f.Limit)
	return from, all.args
}

// selectEvents reads events; from is what comes behind the columns.
func selectEvents(db *gorm.DB, from string, args []any) (found []lock.Event, err error) {
	err = query(db, func(rows *sql.Rows) error {
		var row eventRow
		err := row.scan(rows)
		found = append(found, row.event())
		return err
	}, "SELECT id, "+eventColumns+" "+from, args...)
	return found, err
}

// conditions are what follows WHERE, and the arguments.
type conditions struct {
	text string
	args []any
}

func (c *conditions) add(condition string, args ...any) {
	if c.text == "" {
		c.text = " WHERE " + condition
	} else {
		c.text += " AND " + condition
	}
	c.args = append(c.args, args...)
}

// and returns the conditions with one more.
func (c conditions) and(condition string, args ...any) conditions {
	c.args = slices.Clip(c.args)
	c.add(condition, args...)
	return c
}

// both returns the conditions and other ones.
func (c conditions) both(other conditions) conditions {
	if other.text == "" {
		return c
	}
	return c.and(strings.TrimPrefix(other.text, " WHERE "), other.args...)
}

// page returns the clauses from WHERE on; limit 0 means all.
func (c *conditions) page(order string, limit int) string {
	text := c.text + " ORDER BY " + order
	if limit != 0 {
		text += limited
		c.args = append(c.args, limit)
	}
	return text
}

// Expired implements service.Housekeeping.
func (s *Store) Expired(ctx context.Context, limit int) (names []string, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
		if err != nil {
			return err
		}
		return db.Raw("SELECT resource_name FROM resource_locks WHERE is_active AND expires_at <= ? ORDER BY expires_at"+limited,
			instant{now}, limit).Scan(&names).Error
	})
	return names, err
}

// IdleResources implements service.Housekeeping.
func (s *Store) IdleResources(ctx context.Context, afterID int64, window int, idle time.Duration) (page service.IdlePage, err error) {
	seen := 0
	err = s.read(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
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
			seen++
			return err
		}, "SELECT id, resource_name, NOT is_active AND ended_at < ? FROM resource_locks WHERE id > ? ORDER BY id"+limited,
			instant{page.Before}, afterID, window)
	})
	if seen < window {
		page.Next = 0
	}
	return page, err
}

// DeleteEvents implements service.Housekeeping. Ids grow with time, so the oldest events are the first rows of the table.
func (s *Store) DeleteEvents(ctx context.Context, age time.Duration, limit int) (deleted int, err error) {
	err = s.write(ctx, func(db *gorm.DB) error {
		now, err := s.moment(db)
		if err != nil {
			return err
		}
		if err := s.needNotLast(db); err != nil {
			return err
		}
		result := db.Exec("DELETE FROM lock_events WHERE at < ? AND id IN (SELECT id FROM lock_events ORDER BY id"+limited+")",
			instant{now.Add(-age)}, limit)
		deleted = int(result.RowsAffected)
		return result.Error
	})
	return deleted, err
}

// needNotLast has a transaction of the housekeeping commit without waiting for a disk or a standby: what it deletes again
// after a fail-over harms nobody, and a connection that waits for a silent standby is missed elsewhere.
func (s *Store) needNotLast(tx *gorm.DB) error {
	if s.dialect.clock != nil {
		return nil
	}
	return tx.Exec("SET LOCAL synchronous_commit = off").Error
}

// moment reads the clock.
func (s *Store) moment(db *gorm.DB) (time.Time, error) {
	if s.dialect.clock != nil {
		return s.dialect.clock(), nil
	}
	var now instant
	err := db.Raw("SELECT " + s.dialect.now).Row().Scan(&now)
	return now.Time, err
}
