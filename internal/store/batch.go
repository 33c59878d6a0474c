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
)

// attempts is how often a batch is tried when another server's transaction, or a connection that broke before COMMIT,
// came in its way.
const attempts = 5

// commit is the committer's transaction.
func (s *Store) commit(batch []lock.Command) ([]groupcommit.Result[lock.Outcome], error) {
	if err := s.file.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", groupcommit.ErrUnavailable, err)
	}
	names := namesOf(batch)
	for attempt := 1; ; attempt++ {
		results, commit, err := s.transact(names, batch)
		if err == nil { // what was committed to a file that is not there any more may be lost
			if missing := s.file.check(); missing != nil {
				err = fmt.Errorf("%w: %w", groupcommit.ErrOutcomeUnknown, missing)
			}
		}
		commit.Unknown = errors.Is(err, groupcommit.ErrOutcomeUnknown)
		s.unproven = s.unproven || commit.Unknown
		if err == nil || commit.Unknown {
			if len(commit.Awaited)+len(commit.Granted)+len(commit.Superseded) > 0 {
				s.watch(commit)
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

// namesOf returns every resource that a batch touches once, in the order in which all servers lock them.
func namesOf(batch []lock.Command) []string {
	var names []string
	for _, c := range batch {
		names = append(names, c.Resources()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// transact runs one transaction. What it returns of the commit is sound when it was committed, or may have been.
func (s *Store) transact(names []string, batch []lock.Command) (
	results []groupcommit.Result[lock.Outcome], commit lock.Commit, err error,
) {
	if err := s.prove(); err != nil {
		return nil, commit, err
	}
	ctx, cancel := s.bounded(context.Background())
	defer cancel()
	var committed map[string]lock.Resource
	err = s.transaction(ctx, func(tx *gorm.DB) error {
		states, now, err := s.lockRows(tx, names)
		if err != nil {
			return err
		}
		commit = lock.Commit{Now: now, Read: time.Now()}
		queues, err := s.loadQueues(tx, now, states, batch)
		if err != nil {
			return err
		}
		var changed []string
		var events []eventRow
		var replaced []notice
		results, changed, events = decide(now, states, batch)
		s.known.drop(changed)
		if err := s.save(tx, states, changed, events); err != nil {
			return err
		}
		if err := s.saveQueues(tx, queues, states, changed); err != nil {
			return err
		}
		for i := range results {
			out := &results[i].Value
			for j, r := range out.Changed {
				out.Changed[j].ID = states[r.Name].ID
			}
			for j, g := range out.Granted {
				out.Granted[j].ID = states[g.To.Resource].ID
			}
			commit.Granted = append(commit.Granted, out.Granted...)
			for _, w := range out.Superseded {
				if w.Here {
					commit.Superseded = append(commit.Superseded, w.Request.Connection)
				} else {
					replaced = append(replaced, notice{Server: queues[w.Request.Resource].servers[w.Ticket], Connection: w.Request.Connection})
				}
			}
		}
		for _, r := range states {
			if r.Waiters > 0 || len(queues[r.Name].waiters) > 0 {
				commit.Awaited = append(commit.Awaited, r)
			}
		}
		if err := s.notify(tx, now, commit.Awaited, queues, replaced); err != nil {
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
func decide(now time.Time, states map[string]lock.Resource, batch []lock.Command) (
	results []groupcommit.Result[lock.Outcome], changed []string, events []eventRow,
) {
	results = make([]groupcommit.Result[lock.Outcome], len(batch))
	events = []eventRow{} // as JSON a list, also when it is empty
	for i, c := range batch {
		names := c.Resources()
		before := make([]lock.Resource, len(names))
		for j, name := range names {
			before[j] = states[name]
		}
		results[i].Value, results[i].Err = c.Decide(now, before)
		for _, r := range results[i].Value.Changed {
			states[r.Name] = r
			changed = append(changed, r.Name)
		}
		for _, e := range results[i].Value.Events {
			events = append(events, eventRowOf(e))
		}
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
func (s *Store) save(tx *gorm.DB, states map[string]lock.Resource, names []string, events []eventRow) error {
	saved := make([]lockRow, 0, len(names))
	var forgotten []int64
	var floor int64
	for _, name := range names {
		if r := states[name]; r.Forgotten {
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
	if err := s.dialect.write(tx, saved, events); err != nil {
		return err
	}
	for _, row := range saved {
		r := states[row.ResourceName]
		r.ID = row.ID
		states[row.ResourceName] = r
	}
	return nil
}
