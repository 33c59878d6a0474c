// Package sweep runs the housekeeping of a lock database: it records the end of holds whose time is over and of places in
// queues that nobody came back for, forgets resources that nothing has held for long, and deletes
// old history. Nothing depends on it for correctness: an expired hold counts as gone whether or
// not it was swept.
package sweep

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Target is what is swept, in small batches so that nobody waits long behind one.
type Target interface {
	// SweepExpired ends up to limit expired holds and returns how many; fewer than limit means that none is left.
	SweepExpired(ctx context.Context, limit int) (int, error)
	// SweepIdle looks at the next rows after an id and returns the id to go on after, 0 at the end.
	SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (forgotten int, next int64, err error)
	// SweepAbandoned takes up to limit places in queues away that are not kept any more and returns how many; fewer than limit
	// means that none is left.
	SweepAbandoned(ctx context.Context, limit int) (int, error)
	// SweepEvents deletes up to limit events of a greater age and returns how many; fewer than limit means that none is left.
	SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error)
}

const (
	expiredBatch = 100  // holds or places ended in one transaction
	eventsBatch  = 500  // events deleted in one transaction
	idleWindow   = 1000 // rows looked at in one transaction
	idleWindows  = 10   // windows in one round: a large table is walked over many rounds
)

// choresEvery is how many intervals lie between two rounds of what is in no hurry.
const choresEvery = 10

// Config says how often and how far.
type Config struct {
	Interval  time.Duration // by when the end of a hold is recorded; other work is done at every tenth
	Retention time.Duration // resources that nothing has held for this long are forgotten
	History   time.Duration // events of a greater age are deleted
	Logger    *slog.Logger
}

// Sweeper runs two loops, so that whatever else there is to do, the end of a hold is recorded in
// time. Make one with New; it runs between Start and Stop.
type Sweeper struct {
	target Target
	cfg    Config
	cancel context.CancelFunc // nil before Start
	loops  sync.WaitGroup
	after  int64 // where the walk over idle rows goes on
}

// New returns a sweeper that does nothing before Start.
func New(target Target, cfg Config) *Sweeper {
	return &Sweeper{target: target, cfg: cfg}
}

// Start begins the rounds. It is called once.
func (s *Sweeper) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.loops.Go(func() { s.loop(ctx, s.cfg.Interval, s.expired) })
	s.loops.Go(func() { s.loop(ctx, choresEvery*s.cfg.Interval, s.chores) })
}

// Stop ends the loops, after the batches in progress. It may be called again, and without Start.
func (s *Sweeper) Stop() {
	if s.cancel != nil {
		s.cancel()
	}
	s.loops.Wait()
}

// loop begins a round within every interval, a tenth to a fifth of it early: that leaves time for
// the round itself, and lets several servers drift apart.
func (s *Sweeper) loop(ctx context.Context, interval time.Duration, round func(context.Context) error) {
	for {
		timer := time.NewTimer(interval - interval/5 + rand.N(interval/10+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := round(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("sweep failed; it goes on with the next round", "error", err)
		}
	}
}

// expired ends all expired holds.
func (s *Sweeper) expired(ctx context.Context) error {
	return inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepExpired(ctx, expiredBatch) })
}

// chores ends all places that are not kept any more, deletes all old events and walks some way
// over the idle rows.
func (s *Sweeper) chores(ctx context.Context) error {
	err := inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepAbandoned(ctx, expiredBatch) })
	if err != nil {
		return err
	}
	err = inBatches(ctx, eventsBatch, func() (int, error) { return s.target.SweepEvents(ctx, s.cfg.History, eventsBatch) })
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

// rest is how many times as long as a batch took the sweeper leaves the database to others before the next: nobody waits for
// it, and those who want a lock would have to wait behind it.
const rest = 2

// inBatches repeats until a batch is not full, or ctx ends.
func inBatches(ctx context.Context, limit int, sweep func() (int, error)) error {
	for ctx.Err() == nil {
		begun := time.Now()
		if n, err := sweep(); err != nil || n < limit {
			return err
		}
		pause := time.NewTimer(rest * time.Since(begun))
		select {
		case <-ctx.Done():
			pause.Stop()
		case <-pause.C:
		}
	}
	return nil
}
