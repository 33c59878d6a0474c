package lifecycle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/lifecycle"
)

func TestStopWaitsForEveryLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loops lifecycle.Loops
		ended := make(chan time.Duration, 2)
		started := time.Now()
		loop := func(cleanup time.Duration) func(context.Context) {
			return func(ctx context.Context) {
				<-ctx.Done()
				<-time.After(cleanup)
				ended <- cleanup
			}
		}
		loops.Start(loop(time.Second), loop(time.Minute))
		<-time.After(time.Hour)
		for range 2 { // concurrently
			go loops.Stop()
		}
		loops.Stop()
		if took := time.Since(started); took != time.Hour+time.Minute || len(ended) != 2 {
			t.Errorf("stopped after %v with %d of 2 loops ended", took, len(ended))
		}
	})
}

func TestStopWithoutStart(t *testing.T) {
	var loops lifecycle.Loops
	loops.Stop()
	loops.Stop()
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		started := time.Now()
		if err := lifecycle.Sleep(ctx, time.Second); err != nil || time.Since(started) != time.Second {
			t.Errorf("returned %v after %v, want nil after 1s", err, time.Since(started))
		}
		err := lifecycle.Sleep(ctx, time.Hour)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != time.Minute {
			t.Errorf("returned %v after %v, want the context's error after 1m", err, time.Since(started))
		}
	})
}
