package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// maxAttempts is the maximum number of times that a batch is run because the transaction
// of another server, or a connection that broke before COMMIT, made it fail.
const maxAttempts = 5

// batchResults are the outcomes of a batch. They are pointers because an Outcome is large;
// that of a refused command is nil.
type batchResults = []groupcommit.Result[*lock.Outcome]

// commit is the committer's transaction.
func (s *Store) commit(batch []lock.Command) (batchResults, error) {
	if err := s.backend.checkWritable(); err != nil {
		return nil, err
	}
	needs := needsOf(batch)
	for attempt := 1; ; attempt++ {
		results, commit, err := s.runBatch(needs, batch)
		if err == nil { // what was committed to a file that has been moved away may be lost
			if missing := s.backend.checkWritable(); missing != nil {
				err = fmt.Errorf("%w: %w", groupcommit.ErrOutcomeUnknown, missing)
			}
		}
		commit.Unknown = errors.Is(err, groupcommit.ErrOutcomeUnknown)
		s.unproven = s.unproven || commit.Unknown
		if err == nil || commit.Unknown {
			if commit.Unknown || len(commit.Contended) > 0 || slices.ContainsFunc(results, hasChanged) {
				err = errors.Join(err, s.report(commit))
			}
			return results, err
		}
		switch s.classify(err) {
		case permanent:
			return nil, err
		case unavailable:
			return nil, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
		case retryable:
			if attempt == maxAttempts {
				return nil, fmt.Errorf("%w: after %d attempts: %w", service.ErrUnavailable, attempt, err)
			}
			time.Sleep(time.Duration(attempt) * rand.N(5*time.Millisecond)) //nolint:forbidigo // the loop is the timer here
		}
	}
}

// report calls the observer. A panic of the observer must not run the batch again, which
// has been committed.
func (s *Store) report(commit service.Commit) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the observer of commits panicked: %v\n%s", groupcommit.ErrOutcomeUnknown, p, debug.Stack())
		}
	}()
	s.onCommit(commit)
	return nil
}

// hasChanged reports whether a command changed a resource.
func hasChanged(r groupcommit.Result[*lock.Outcome]) bool {
	return r.Value != nil && len(r.Value.Changed) > 0
}

// prove returns an error if the outcome of the last COMMIT is unknown and the database
// does not commit now: see [backend].
func (s *Store) prove() error {
	if !s.unproven {
		return nil
	}
	ctx, cancel := s.withTimeout(context.Background())
	defer cancel()
	err := s.backend.prove(ctx, s.server)
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

// namesOf returns the name of every resource that a batch needs, each once, in the order
// in which all servers lock them.
func namesOf(needs []lock.Needs) []string {
	var names []string
	for _, n := range needs {
		names = append(names, n.Resources...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// runBatch runs one transaction. The returned Commit is meaningful only if the
// transaction committed or its outcome is unknown.
func (s *Store) runBatch(needs []lock.Needs, batch []lock.Command) (results batchResults, commit service.Commit, err error) {
	if err := s.prove(); err != nil {
		return nil, commit, err
	}
	ctx, cancel := s.withTimeout(context.Background())
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
		results, changed, commit.Events = decide(now, states, needs, batch)
		s.backend.changing(changed)
		if err := s.save(tx, states, changed, commit.Events); err != nil {
			return err
		}
		if err := s.saveQueues(tx, queues, states, changed); err != nil {
			return err
		}
		var replaced []notice
		idOf := func(name string) int64 { return states[name].ID }
		for _, result := range results {
			out := result.Value
			if out == nil {
				continue
			}
			out.AssignIDs(idOf)
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
		s.backend.committed(committed)
	}
	return results, commit, err
}

// decide runs the commands in their order. It updates states and returns the names of the
// resources that changed, sorted, and all events.
func decide(now time.Time, states map[string]lock.Resource, needs []lock.Needs, batch []lock.Command) (
	results batchResults, changed []string, events []lock.Event,
) {
	results = make(batchResults, len(batch))
	for i, c := range batch {
		before := make([]lock.Resource, len(needs[i].Resources))
		for j, name := range needs[i].Resources {
			before[j] = states[name]
		}
		out, err := c.Decide(now, before)
		if err != nil {
			results[i].Err = err
			continue
		}
		results[i].Value = &out
		for _, r := range out.Changed {
			states[r.Name] = r
			changed = append(changed, r.Name)
		}
		events = append(events, out.Events...)
	}
	slices.Sort(changed)
	return results, slices.Compact(changed), events
}

var (
	selectTokenFloor = statement("token_floor.sql")
	raiseTokenFloor  = statement("raise_token_floor.sql")
)

// lockRows returns the state of every named resource and the time after their rows were
// locked. The rows stay locked until the transaction ends.
func (s *Store) lockRows(tx *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error) {
	states, now, err := s.backend.lockRows(tx, names)
	if err != nil || len(states) == len(names) {
		return states, now, err
	}
	var floor int64
	if err := tx.Raw(selectTokenFloor).Row().Scan(&floor); err != nil {
		return nil, time.Time{}, err
	}
	for _, name := range names {
		if _, found := states[name]; !found {
			states[name] = lock.Resource{Name: name, Token: floor}
		}
	}
	return states, now, nil
}

// save writes the states of the named resources, sets the ids of new ones, and appends
// the events.
func (s *Store) save(tx *gorm.DB, states map[string]lock.Resource, names []string, events []lock.Event) error {
	saved := make([]lockRow, 0, len(names))
	var deleted []int64
	var floor int64
	for _, name := range names {
		if r := states[name]; r.Deleted {
			deleted = append(deleted, r.ID)
			floor = max(floor, r.Token)
		} else {
			saved = append(saved, rowOf(r))
		}
	}
	if len(deleted) > 0 {
		if err := tx.Exec(raiseTokenFloor, floor).Error; err != nil {
			return err
		}
		if err := tx.Exec("DELETE FROM resource_locks WHERE id IN ?", deleted).Error; err != nil {
			return err
		}
	}
	if len(saved)+len(events) == 0 {
		return nil
	}
	eventRows := make([]eventRow, len(events)) // not nil: as JSON it is a list, even if it is empty
	for i, e := range events {
		eventRows[i] = eventRowOf(e)
	}
	if err := s.backend.write(tx, saved, eventRows); err != nil {
		return err
	}
	for _, row := range saved {
		r := states[row.ResourceName]
		r.ID = row.ID
		states[row.ResourceName] = r
	}
	return nil
}
