package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// History implements service.Reader.
func (s *Store) History(ctx context.Context, f service.HistoryFilter) ([]lock.Event, error) {
	if f.ByTime() {
		return s.eventsByTime(ctx, f)
	}
	w := whereSubject(f)
	if f.BeforeID != 0 {
		w.add("id < ?", f.BeforeID)
	}
	return s.eventsByID(ctx, w, f.Limit)
}

// whereSubject returns the conditions of a resource and a process.
func whereSubject(f service.HistoryFilter) (w where) {
	if f.Resource != "" {
		w.add("resource_name = ?", f.Resource)
	}
	if f.ProcessID != "" {
		w.add("process_id = ?", f.ProcessID)
	}
	return w
}

// LastEnd implements service.Reader.
func (s *Store) LastEnd(ctx context.Context, resource, process string, token int64) (lock.Event, bool, error) {
	var w where
	w.add("resource_name = ? AND process_id = ? AND kind NOT IN (?, ?)", resource, process, lock.EventQueued,
		lock.EventGaveUp)
	if token != 0 {
		w.add("fencing_token = ?", token)
	}
	found, err := s.eventsByID(ctx, w, 2)
	if err != nil || len(found) == 0 || found[0].Kind.Begins() {
		return lock.Event{}, false, err
	}
	if len(found) == 2 && found[1].Token == found[0].Token && !found[1].Kind.Begins() {
		return found[1], true, nil // released first; then the rest of its minimum was force-released
	}
	return found[0], true, nil
}

// eventsByID returns the newest events that meet the conditions, by id.
func (s *Store) eventsByID(ctx context.Context, w where, limit int) (found []lock.Event, err error) {
	for _, part := range s.backend.historyParts() {
		err := s.read(ctx, func(db *gorm.DB) error {
			part := w.both(part)
			some, err := selectEvents(db, "FROM lock_events"+part.page("id DESC", limit-len(found)), part.args)
			found = append(found, some...)
			return err
		})
		if err != nil || len(found) == limit {
			return found, err
		}
	}
	return found, nil
}

// fewEvents is the number of events of a resource or a process below which all of them
// are read to find those of a time.
const fewEvents = 10_000

// eventsByTime returns the latest events that match a filter.
func (s *Store) eventsByTime(ctx context.Context, f service.HistoryFilter) (found []lock.Event, err error) {
	err = s.read(ctx, func(db *gorm.DB) error {
		from, args, err := s.byTime(db, f)
		if errors.Is(err, sql.ErrNoRows) { // BeforeID is not kept any more, and so are the events behind it
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

var selectEventTime = statement("event_time.sql")

// byTime returns the clauses from FROM on that find the latest events of a filter.
func (s *Store) byTime(db *gorm.DB, f service.HistoryFilter) (from string, args []any, err error) {
	var w where
	if !f.Since.IsZero() {
		w.add("at >= ?", instant{f.Since})
	}
	if !f.Until.IsZero() {
		w.add("at < ?", instant{f.Until})
	}
	if f.BeforeID != 0 {
		var at instant
		if err := db.Raw(selectEventTime, f.BeforeID).Row().Scan(&at); err != nil {
			return "", nil, err
		}
		w.add("(at, id) < (?, ?)", at, f.BeforeID)
	}
	subject, parts := whereSubject(f), s.backend.historyParts()
	few, err := isFew(db, subject, parts[len(parts)-1])
	if err != nil {
		return "", nil, err
	}
	from, args = latest(f, w, subject, parts, few)
	return from, args, nil
}

// isFew reports whether a resource or a process has few events in a part of the history.
func isFew(db *gorm.DB, subject, part where) (bool, error) {
	if subject.text == "" {
		return false, nil
	}
	its := subject.both(part)
	var n int
	text := "SELECT count(*) FROM (SELECT 1 FROM lock_events" + its.text + limitClause + ") AS its"
	err := db.Raw(text, append(its.args, fewEvents)...).Row().Scan(&n)
	return n < fewEvents, err
}

// latest returns the clauses from FROM on that find the latest events of a filter. An
// index has the events of each kind in the order of time, so some of each kind are read,
// and none without need. If a resource or a process has few events, these are read
// instead.
func latest(f service.HistoryFilter, w, subject where, parts []where, few bool) (from string, args []any) {
	const order = "at DESC, id DESC"
	kinds := f.Kinds
	if len(kinds) == 0 {
		kinds = lock.EventKinds()
	}
	var selects []string
	add := func(table string, before []any, w where) {
		selects = append(selects, "SELECT * FROM (SELECT * FROM "+table+w.page(order, f.Limit)+") AS part")
		args = slices.Concat(args, before, w.args)
	}
	last := len(parts) - 1
	for _, unindexed := range parts[:last] {
		add("lock_events", nil, subject.both(w).and("kind IN ?", kinds).both(unindexed))
	}
	its := subject.both(parts[last])
	if few {
		text := its.page("id DESC", 2*fewEvents)
		add("(SELECT * FROM lock_events"+text+") AS its", its.args, w.and("kind IN ?", kinds))
	} else {
		for _, kind := range kinds {
			add("lock_events", nil, its.both(w).and("kind = ?", kind))
		}
	}
	all := where{args: args}
	from = "FROM (" + strings.Join(selects, " UNION ALL ") + ") AS parts" + all.page(order, f.Limit)
	return from, all.args
}

// selectEvents reads events; from is what follows the columns.
func selectEvents(db *gorm.DB, from string, args []any) (found []lock.Event, err error) {
	err = query(db, func(rows *sql.Rows) error {
		var row eventRow
		err := row.scan(rows)
		found = append(found, row.event())
		return err
	}, "SELECT "+eventList+" "+from, args...)
	return found, err
}
