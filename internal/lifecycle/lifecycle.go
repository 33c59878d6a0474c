// Package lifecycle starts and stops background loops. All of them follow one rule: Start
// may be called once, and Stop any number of times, also without Start.
package lifecycle

import (
	"context"
	"sync"
	"time"
)

// Loops is a set of goroutines that start and stop together. The zero value is ready to
// use. Start and Stop must not run at the same time.
type Loops struct {
	cancel  context.CancelFunc // nil before Start
	running sync.WaitGroup
}

// Start runs each function in a goroutine of its own. Stop cancels the context that the
// functions get. Start must be called at most once.
func (l *Loops) Start(loops ...func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for _, loop := range loops {
		l.running.Go(func() { loop(ctx) })
	}
}

// Stop cancels the context of the functions and waits until all of them have returned. It
// may be called any number of times, also without Start, and concurrently with itself.
func (l *Loops) Stop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.running.Wait()
}

// Sleep waits for d. It returns early with ctx.Err() if ctx ends before that.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
