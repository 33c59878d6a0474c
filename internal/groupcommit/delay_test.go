package groupcommit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/groupcommit"
)

const maxDelay = time.Millisecond

// doDelayed is like do, but calls DoWithin.
func (f *fixture) doDelayed(ctx context.Context, cmd int) *reply {
	r := &reply{}
	go func() {
		r.value, r.err = f.committer.DoWithin(ctx, cmd, maxDelay)
		r.done = true
	}()
	synctest.Wait()
	return r
}

// advance lets time pass, so that timers fire.
func advance(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
}

func TestDelayedCommandsJoinTheNextBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		first, second := f.doDelayed(t.Context(), 1), f.doDelayed(t.Context(), 2)
		advance(t, maxDelay/2)
		f.wantRuns()
		third := f.do(t.Context(), 3)
		f.wantRuns([]int{1, 2, 3})
		fourth := f.doDelayed(t.Context(), 4) // while a transaction runs
		f.step()
		wantDone(t, first, 1)
		wantDone(t, second, 2)
		wantDone(t, third, 3)
		f.wantRuns([]int{1, 2, 3})
		f.do(t.Context(), 5)
		f.wantRuns([]int{1, 2, 3}, []int{4, 5})
		f.step()
		wantDone(t, fourth, 4)
	})
}

// The delay of the first command limits that of all others.
func TestDelayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.doDelayed(t.Context(), 1)
		advance(t, maxDelay/2)
		f.doDelayed(t.Context(), 2)
		advance(t, maxDelay/2)
		f.wantRuns([]int{1, 2})
		f.step()
		f.doDelayed(t.Context(), 3) // starts a delay of its own
		advance(t, maxDelay-1)
		f.wantRuns([]int{1, 2})
		advance(t, 1)
		f.wantRuns([]int{1, 2}, []int{3})
		f.step()
	})
}

// A delayed command that a full batch has left in the queue is committed with the next
// batch: a command without a delay is queued behind it.
func TestDelayedCommandLeftByAFullBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		for cmd := range 3 {
			f.doDelayed(t.Context(), cmd)
		}
		f.do(t.Context(), 3)
		f.wantRuns([]int{0, 1})
		f.step()
		f.wantRuns([]int{0, 1}, []int{2, 3})
		f.step()
	})
}

func TestStopEndsTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.open()
		r := f.doDelayed(t.Context(), 1)
		began := time.Now()
		f.committer.Stop()
		synctest.Wait()
		wantDone(t, r, 1)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("Stop took %v", waited)
		}
	})
}

func TestDelayedCommandIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		ctx, cancel := context.WithCancel(t.Context())
		r := f.doDelayed(ctx, 1)
		cancel()
		synctest.Wait()
		if !r.done || !errors.Is(r.err, context.Canceled) || errors.Is(r.err, groupcommit.ErrOutcomeUnknown) {
			t.Errorf("got %+v", *r)
		}
		advance(t, 2*maxDelay)
		f.wantRuns()
	})
}
