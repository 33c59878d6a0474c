package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// attempts is how often a batch is tried when another server's transaction, or a connection that broke before COMMIT,
// came in its way.
const attempts = 5

// commit is the committer's transaction.
func (s *Store) commit(batch []lock.Command) ([]groupcommit.Result[lock.Outcome], error) {
	if err := s.file.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", groupcommit.ErrUnavailable, err)
	}
	needs := needsOf(batch)
	for attempt := 1; ; attempt++ {
		results, commit, err := s.transact(needs, batch)
		if err == nil { // what was committed to a file that is not there any more may be lost
			if missing := s.file.check(); missing != nil {
				err = fmt.Errorf("%w: %w", groupcommit.ErrOutcomeUnknown, missing)
			}
		}
		commit.Unknown = errors.Is(err, groupcommit.ErrOutcomeUnknown)
		s.unproven = s.unproven || commit.Unknown
		if err == nil || commit.Unknown {
			if len(commit.Events)+len(commit.Contended)+len(commit.Granted)+len(commit.Superseded) > 0 {
				s.onCommit(commit)
			}
			return results, err
		}
		switch s.classify(err) {
		case faulty:
			return nil, err
		case unavailable:
			return nil, fmt.Errorf("%w: %w", groupcommit.ErrUnavailable, err)
		case again:
			if attempt == attempts {
				return nil, fmt.Errorf("%w: after %d attempts: %w", groupcommit.ErrUnavailable, attempts, err)
			}
			time.Sleep(time.Duration(attempt) * rand.N(5*time.Millisecond)) //nolint:forbidigo // the loop is the timer here
		}
	}
}

// prove returns nil when the database commits. It asks after a COMMIT of unknown outcome: as
// long as a synchronous standby is silent, each COMMIT would leave a connection of the database
// waiting, and soon there would be none left. What it commits may be shown early, so it can be
// cancelled, which ends the wait.
func (s *Store) prove() error {
	if !s.unproven || s.dialect.proof == "" {
		return nil
	}
	ctx, cancel := s.bounded(context.Background())
	defer cancel()
	err := s.writer.WithContext(ctx).Exec(s.dialect.proof, s.server).Error
	s.unproven = err != nil
	return err
}

// needsOf returns what each command of a batch needs.
func needsOf(batch []lock.Command) []lock.Needs {
	needs := make([]lock.Needs, len(batch))
	for i, c := range batch {
		needs[i] = c.Needs()
	}
	return needs
}

// namesOf returns the name of every resource that a batch needs, each once, in the order in
// which all servers lock them.
func namesOf(needs []lock.Needs) []string {
	var names []string
	for _, n := range needs {
		names = append(names, n.Resources...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// transact runs one transaction. What it returns of the commit is sound when it was committed, or may have been.
func (s *Store) transact(needs []lock.Needs, batch []lock.Command) (
	results []groupcommit.Result[lock.Outcome], commit service.Commit, err error,
) {
	if err := s.prove(); err != nil {
		return nil, commit, err
	}
	ctx, cancel := s.bounded(context.Background())
	defer cancel()
	var committed map[string]lock.Resource
	err = s.transaction(ctx, func(tx *gorm.DB) error {
		states, now, err := s.lockRows(tx, namesOf(needs))
		if err != nil {
			return err
		}
		commit = service.Commit{Now: now, ReadAt: time.Now()}
		queues, err := s.loadQueues(tx, now, states, needs)
		if err != nil {
			return err
		}
		var changed []string
		var replaced []notice
		results, changed, commit.Events = decide(now, states, needs, batch)
		s.known.drop(changed)
		if err := s.save(tx, states, changed, commit.Events); err != nil {
			return err
		}
		if err := s.saveQueues(tx, queues, states, changed); err != nil {
			return err
		}
		for i := range results {
			out := &results[i].Value
			out.AssignIDs(func(name string) int64 { return states[name].ID })
			commit.Granted = append(commit.Granted, out.Granted...)
			for _, w := range out.Superseded {
				if w.Local {
					commit.Superseded = append(commit.Superseded, w.Connection)
				} else {
					replaced = append(replaced, notice{Server: queues[w.Request.Resource].servers[w.Ticket], Connection: w.Connection})
				}
			}
		}
		for _, r := range states {
			if r.Waiters > 0 || len(queues[r.Name].waiters) > 0 {
				commit.Contended = append(commit.Contended, r)
			}
		}
		if err := s.notify(tx, now, commit.Contended, queues, replaced); err != nil {
			return err
		}
		committed = states
		return nil
	})
	if err == nil {
		s.known.keep(committed)
	}
	return results, commit, err
}

// decide runs the commands in their order. It updates states and returns the names of those that changed, sorted, and all
// events.
func decide(now time.Time, states map[string]lock.Resource, needs []lock.Needs, batch []lock.Command) (
	results []groupcommit.Result[lock.Outcome], changed []string, events []lock.Event,
) {
	results = make([]groupcommit.Result[lock.Outcome], len(batch))
	for i, c := range batch {
		before := make([]lock.Resource, len(needs[i].Resources))
		for j, name := range needs[i].Resources {
			before[j] = states[name]
		}
		results[i].Value, results[i].Err = c.Decide(now, before)
		for _, r := range results[i].Value.Changed {
			states[r.Name] = r
			changed = append(changed, r.Name)
		}
		events = append(events, results[i].Value.Events...)
	}
	slices.Sort(changed)
	return results, slices.Compact(changed), events
}

// lockRows returns the state of every named resource, their rows locked until the transaction ends, and the moment after
// that.
func (s *Store) lockRows(tx *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	states, unknown, err := s.known.recall(tx, names)
	if err != nil {
		return nil, time.Time{}, err
	}
	var now time.Time
	if len(unknown) > 0 {
		if now, err = s.readRows(tx, unknown, states); err != nil {
			return nil, time.Time{}, err
		}
	}
	if s.dialect.clock != nil {
		now = s.dialect.clock()
	}
	if len(states) == len(names) {
		return states, now, nil
	}
	var floor int64
	if err := tx.Raw("SELECT fencing_token FROM token_floor").Row().Scan(&floor); err != nil {
		return nil, time.Time{}, err
	}
	for _, name := range names {
		if _, found := states[name]; !found {
			states[name] = lock.Resource{Name: name, Token: floor}
		}
	}
	return states, now, nil
}

// readRows adds the states of those named resources that have a row, and returns the moment by the database.
func (s *Store) readRows(tx *gorm.DB, names []string, states map[string]lock.Resource) (now time.Time, err error) {
	wanted, err := json.Marshal(names)
	if err != nil {
		return now, err
	}
	err = s.statements.query(tx, func(rows *sql.Rows) error {
		var moment instant
		var row lockRow
		err := row.scan(rows, &moment)
		if moment.After(now) { // of several rows the last was read after all were locked
			now = moment.Time
		}
		if row.ID != 0 {
			states[row.ResourceName] = row.resource()
		}
		return err
	}, s.dialect.lock, string(wanted))
	return now, err
}

// save writes the states of the named resources, gives new ones their ids, and appends the events.
func (s *Store) save(tx *gorm.DB, states map[string]lock.Resource, names []string, events []lock.Event) error {
	saved := make([]lockRow, 0, len(names))
	var forgotten []int64
	var floor int64
	for _, name := range names {
		if r := states[name]; r.Deleted {
			forgotten = append(forgotten, r.ID)
			floor = max(floor, r.Token)
		} else {
			saved = append(saved, rowOf(r))
		}
	}
	if len(forgotten) > 0 {
		if err := tx.Exec("UPDATE token_floor SET fencing_token = ? WHERE fencing_token < ?", floor, floor).Error; err != nil {
			return err
		}
		if err := tx.Exec("DELETE FROM resource_locks WHERE id IN ?", forgotten).Error; err != nil {
			return err
		}
	}
	if len(saved)+len(events) == 0 {
		return nil
	}
	eventRows := make([]eventRow, len(events)) // as JSON a list, also when it is empty
	for i, e := range events {
		eventRows[i] = eventRowOf(e)
	}
	if err := s.dialect.write(tx, saved, eventRows); err != nil {
		return err
	}
	for _, row := range saved {
		r := states[row.ResourceName]
		r.ID = row.ID
		states[row.ResourceName] = r
	}
	return nil
}
