package groupcommit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/internal/groupcommit"
)

func TestCancelledBeforeItsTurn(t *testing.T) {
	tests := []struct {
		name    string
		context func(context.Context) (context.Context, context.CancelFunc)
		want    error
	}{
		{"cancelled", context.WithCancel, context.Canceled},
		{"past its deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, context.DeadlineExceeded},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, 2, 10)
				ctx, cancel := test.context(t.Context())
				defer cancel()
				f.do(t.Context(), 0)
				canceled := f.do(ctx, 1)
				second, third := f.do(t.Context(), 2), f.do(t.Context(), 3)
				if errors.Is(test.want, context.Canceled) {
					cancel()
				}
				<-ctx.Done()
				synctest.Wait()

				wantErr(t, canceled, 1, test.want) // immediately, before its batch would have run
				if errors.Is(canceled.err, groupcommit.ErrOutcomeUnknown) {
					t.Errorf("got %v for a command that was not run", canceled.err)
				}
				f.open()
				wantDone(t, second, 2)
				wantDone(t, third, 3)
				f.wantRuns([]int{0}, []int{2, 3}) // it does not count against the batch size
			})
		})
	}
}

func TestCancelledBeforeDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		f.open()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		// If Do queued the command, the command would run before Do reads this context's
		// Done channel.
		_, err := f.committer.Do(racingContext{ctx, cancel}, 1)
		if !errors.Is(err, context.Canceled) || errors.Is(err, groupcommit.ErrOutcomeUnknown) {
			t.Errorf("got %v, want the context's error", err)
		}
		f.wantRuns()
	})
}

func TestStopIgnoresCanceledCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		ctx, cancel := context.WithCancel(t.Context())
		f.do(t.Context(), 0)
		for cmd := 1; cmd < 6; cmd++ {
			f.do(ctx, cmd)
		}
		cancel()
		synctest.Wait()
		f.open()
		f.committer.Stop()
		f.wantRuns([]int{0})
	})
}

func TestCancelledDuringItsTurn(t *testing.T) {
	tests := []struct {
		name  string
		fault func([]int) error
		want  []int
	}{
		{"and then it commits", nil, []int{0, 1, 2}},
		{"and then it fails", func(batch []int) error {
			if batch[0] == 1 {
				return errUnavailable
			}
			return nil
		}, []int{0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, 2, 10)
				f.fault = test.fault
				ctx, cancel := context.WithCancel(t.Context())
				f.do(t.Context(), 0)
				canceled := f.do(ctx, 1)
				other := f.do(t.Context(), 2)
				f.step()
				cancel()
				synctest.Wait()
				wantErr(t, canceled, 1, groupcommit.ErrOutcomeUnknown)
				wantErr(t, canceled, 1, context.Canceled) // the error also wraps the cause
				wantWaiting(t, other, 2)

				f.step()
				if !other.done {
					t.Error("the other command of the batch got no result")
				}
				f.wantCommitted(test.want...)
			})
		})
	}
}

// racingContext is a context that ends exactly when the result arrives: Do calls Done
// when it starts to wait for both.
type racingContext struct {
	context.Context
	cancel context.CancelFunc
}

func (c racingContext) Done() <-chan struct{} {
	synctest.Wait()
	c.cancel()
	return c.Context.Done()
}

func TestResultThatRacesWithTheCancellationIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		f.open()
		for cmd := range 50 { // select picks one of the two at random
			ctx, cancel := context.WithCancel(t.Context())
			value, err := f.committer.Do(racingContext{ctx, cancel}, cmd)
			wantDone(t, &reply{done: true, value: value, err: err}, cmd)
		}
	})
}
