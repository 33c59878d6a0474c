// Package sweep does the housekeeping of a lock database. It records the end of expired
// holds, removes abandoned places from queues, deletes idle resources, and deletes old
// history. Correctness does not depend on it: an expired hold has ended, swept or not.
package sweep

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"resource-lock-manager/internal/lifecycle"
)

// Target is the database to sweep. Each call handles a small batch, so that other
// transactions do not wait long behind it. A count below limit means that nothing is
// left.
type Target interface {
	// SweepExpired ends at most limit expired holds and returns their number.
	SweepExpired(ctx context.Context, limit int) (int, error)
	// SweepIdle reads the next window rows after afterID and deletes the resources that
	// have been idle for longer than idle. It returns the ID to continue after, or 0 at
	// the end of the table.
	SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (deleted int, next int64, err error)
	// SweepAbandoned removes at most limit abandoned places from queues and returns their
	// number.
	SweepAbandoned(ctx context.Context, limit int) (int, error)
	// SweepEvents deletes at most limit events older than age and returns their number.
	SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error)
}

const (
	expiredBatch = 100  // maximum number of holds or places in one transaction
	eventsBatch  = 500  // maximum number of events in one transaction
	idleWindow   = 1000 // rows read in one transaction
	idleWindows  = 10   // windows in one round: a large table takes many rounds

	// choresEvery is the number of intervals between two rounds of work that is not
	// urgent.
	choresEvery = 10

	// pauseFactor makes the sweeper use at most a third of the database's time: after a
	// batch that took d it sleeps for pauseFactor*d.
	pauseFactor = 2
)

// Config is the configuration of a Sweeper.
type Config struct {
	Interval  time.Duration // maximum time until an expired hold is recorded as ended; other work runs at every tenth
	Retention time.Duration // resources that have been idle for longer are deleted
	History   time.Duration // events older than this are deleted
	Logger    *slog.Logger
}

// Sweeper runs two loops: the end of a hold is recorded in time, even if other work takes
// long. It runs between Start and Stop.
type Sweeper struct {
	target Target
	cfg    Config
	loops  lifecycle.Loops
	after  int64 // the ID after which the scan for idle rows continues
}

// New returns a sweeper that does nothing before Start.
func New(target Target, cfg Config) *Sweeper {
	return &Sweeper{target: target, cfg: cfg}
}

// Start starts the loops. It must be called at most once.
func (s *Sweeper) Start() {
	s.loops.Start(
		func(ctx context.Context) { s.run(ctx, s.cfg.Interval, s.expired) },
		func(ctx context.Context) { s.run(ctx, choresEvery*s.cfg.Interval, s.chores) },
	)
}

// Stop ends the loops after the batches in progress. It may be called any number of
// times, also without Start.
func (s *Sweeper) Stop() { s.loops.Stop() }

// run starts a round within every interval, 10 to 20 percent early. This leaves time for
// the round itself, and spreads the rounds of several servers. Of failures in a row only
// the first is logged.
func (s *Sweeper) run(ctx context.Context, interval time.Duration, round func(context.Context) error) {
	failing := false
	for lifecycle.Sleep(ctx, interval-interval/5+rand.N(interval/10+1)) == nil {
		err := round(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.cfg.Logger.Warn("sweep failed; retrying in each round", "error", err)
		}
		failing = err != nil
	}
}

// expired ends all expired holds.
func (s *Sweeper) expired(ctx context.Context) error {
	return inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepExpired(ctx, expiredBatch) })
}

// chores removes all abandoned places, deletes all old events and scans some windows for
// idle rows.
func (s *Sweeper) chores(ctx context.Context) error {
	err := inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepAbandoned(ctx, expiredBatch) })
	if err != nil {
		return err
	}
	err = inBatches(ctx, eventsBatch, func() (int, error) {
		return s.target.SweepEvents(ctx, s.cfg.History, eventsBatch)
	})
	if err != nil {
		return err
	}
	for i := 0; i < idleWindows && ctx.Err() == nil; i++ {
		_, next, err := s.target.SweepIdle(ctx, s.after, idleWindow, s.cfg.Retention)
		if err != nil {
			return err
		}
		s.after = next
		if next == 0 {
			break
		}
	}
	return nil
}

// inBatches calls sweep until a batch is not full, or ctx ends.
func inBatches(ctx context.Context, limit int, sweep func() (int, error)) error {
	for ctx.Err() == nil {
		began := time.Now()
		if n, err := sweep(); err != nil || n < limit {
			return err
		}
		_ = lifecycle.Sleep(ctx, pauseFactor*time.Since(began))
	}
	return nil
}
