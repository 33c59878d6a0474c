// Package sweep runs the housekeeping of a lock database: it records the end of holds whose time is over and of places in
// queues that nobody came back for, forgets resources that nothing has held for long, and deletes old history. Nothing depends on it for correctness: an expired
// hold counts as gone whether or not it was swept.
package sweep

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Target is what is swept, in small batches so that nobody waits long behind one.
type Target interface {
	// SweepExpired ends up to limit expired holds and returns how many; fewer than limit means that none is left.
	SweepExpired(ctx context.Context, limit int) (int, error)
	// SweepIdle looks at the next rows after an id and returns the id to go on after, 0 at the end.
	SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (forgotten int, next int64, err error)
	// SweepPlaces takes up to limit places in queues away that are not kept any more and returns how many; fewer than limit
	// means that none is left.
	SweepPlaces(ctx context.Context, limit int) (int, error)
	// SweepEvents deletes up to limit events of a greater age and returns how many; fewer than limit means that none is left.
	SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error)
}

const (
	expiredBatch = 100  // holds or places ended in one transaction
	eventsBatch  = 500  // events deleted in one transaction
	idleWindow   = 1000 // rows looked at in one transaction
	idleWindows  = 10   // windows in one round: a large table is walked over many rounds
)

// Config says how often and how far.
type Config struct {
	Interval  time.Duration // between two rounds, give or take a tenth so that several servers spread out
	Retention time.Duration // resources that nothing has held for this long are forgotten
	History   time.Duration // events of a greater age are deleted
	Logger    *slog.Logger
}

// Sweeper is the loop. Make one with New; it runs between Start and Stop.
type Sweeper struct {
	target Target
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{}
	after  int64 // where the walk over idle rows goes on
}

// New returns a sweeper that does nothing before Start.
func New(target Target, cfg Config) *Sweeper {
	return &Sweeper{target: target, cfg: cfg, done: make(chan struct{})}
}

// Start begins the rounds. It is called once.
func (s *Sweeper) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.loop(ctx)
}

// Stop ends the loop, after the batch in progress. It is called once, after Start.
func (s *Sweeper) Stop() {
	s.cancel()
	<-s.done
}

func (s *Sweeper) loop(ctx context.Context) {
	defer close(s.done)
	for {
		spread := s.cfg.Interval / 10
		timer := time.NewTimer(s.cfg.Interval - spread + rand.N(2*spread+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("sweep failed; it goes on with the next round", "error", err)
		}
	}
}

// round ends all expired holds and places, deletes all old events and walks some way over the idle rows.
func (s *Sweeper) round(ctx context.Context) error {
	err := inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepExpired(ctx, expiredBatch) })
	if err != nil {
		return err
	}
	err = inBatches(ctx, expiredBatch, func() (int, error) { return s.target.SweepPlaces(ctx, expiredBatch) })
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
