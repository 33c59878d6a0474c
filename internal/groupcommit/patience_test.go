package groupcommit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/groupcommit"
)

const patience = time.Millisecond

// doPatiently is do for a command that can wait.
func (f *fixture) doPatiently(ctx context.Context, cmd int) *reply {
	r := &reply{}
	go func() {
		r.value, r.err = f.committer.DoPatiently(ctx, cmd, patience)
		r.done = true
	}()
	synctest.Wait()
	return r
}

// later lets time pass, in which timers fire.
func later(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
}

func TestPatientCommandsWaitForOneThatIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		first, second := f.doPatiently(t.Context(), 1), f.doPatiently(t.Context(), 2)
		later(t, patience/2)
		f.wantRuns()
		third := f.do(t.Context(), 3)
		f.wantRuns([]int{1, 2, 3})
		fourth := f.doPatiently(t.Context(), 4) // while a transaction runs
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

// The patience of the first of them counts for all: nobody waits for longer than its own.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.doPatiently(t.Context(), 1)
		later(t, patience/2)
		f.doPatiently(t.Context(), 2)
		later(t, patience/2)
		f.wantRuns([]int{1, 2})
		f.step()
		f.doPatiently(t.Context(), 3) // has a patience of its own
		later(t, patience-1)
		f.wantRuns([]int{1, 2})
		later(t, 1)
		f.wantRuns([]int{1, 2}, []int{3})
		f.step()
	})
}

// What a full batch has left behind is not patient any more: somebody came after it who was not.
func TestPatientCommandLeftByAFullBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		for cmd := range 3 {
			f.doPatiently(t.Context(), cmd)
		}
		f.do(t.Context(), 3)
		f.wantRuns([]int{0, 1})
		f.step()
		f.wantRuns([]int{0, 1}, []int{2, 3})
		f.step()
	})
}

func TestStopDoesNotWaitForPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.open()
		r := f.doPatiently(t.Context(), 1)
		began := time.Now()
		f.committer.Stop()
		synctest.Wait()
		wantDone(t, r, 1)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it took %v", waited)
		}
	})
}

func TestPatientCommandIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		ctx, cancel := context.WithCancel(t.Context())
		r := f.doPatiently(ctx, 1)
		cancel()
		synctest.Wait()
		if !r.done || !errors.Is(r.err, context.Canceled) || errors.Is(r.err, groupcommit.ErrOutcomeUnknown) {
			t.Errorf("got %+v", *r)
		}
		later(t, 2*patience)
		f.wantRuns()
	})
}
