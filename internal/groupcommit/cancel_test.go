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
				gone := f.do(ctx, 1)
				second, third := f.do(t.Context(), 2), f.do(t.Context(), 3)
				if errors.Is(test.want, context.Canceled) {
					cancel()
				}
				<-ctx.Done()
				synctest.Wait()

				wantErr(t, gone, 1, test.want) // at once, not when its turn would have come
				if errors.Is(gone.err, groupcommit.ErrOutcomeUnknown) {
					t.Errorf("got %v for a command that never ran", gone.err)
				}
				f.open()
				wantDone(t, second, 2)
				wantDone(t, third, 3)
				f.wantRuns([]int{0}, []int{2, 3}) // nor does it take up room in a batch
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
		// With this context a command that is queued at all has run before Do looks whether the caller has gone.
		_, err := f.committer.Do(crossing{ctx, cancel}, 1)
		if !errors.Is(err, context.Canceled) || errors.Is(err, groupcommit.ErrOutcomeUnknown) {
			t.Errorf("got %v, want the context's error", err)
		}
		f.wantRuns()
	})
}

// Stop must not wait for, or run, commands whose callers have all gone.
func TestStopWithOnlyAbandonedCommands(t *testing.T) {
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
				return groupcommit.ErrUnavailable
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
				gone := f.do(ctx, 1)
				neighbour := f.do(t.Context(), 2)
				f.step()
				cancel()
				synctest.Wait()
				wantErr(t, gone, 1, groupcommit.ErrOutcomeUnknown)
				wantErr(t, gone, 1, context.Canceled) // the cause is told as well
				wantWaiting(t, neighbour, 2)

				f.step()
				if !neighbour.done {
					t.Error("the neighbour got no answer")
				}
				f.wantCommitted(test.want...)
			})
		})
	}
}

// crossing is a context that ends exactly when the answer arrives: Do asks for Done once it waits for both.
type crossing struct {
	context.Context
	cancel context.CancelFunc
}

func (c crossing) Done() <-chan struct{} {
	synctest.Wait()
	c.cancel()
	return c.Context.Done()
}

func TestAnswerThatCrossedWithTheCancellationIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		f.open()
		for cmd := range 50 { // each time select picks one of the two at random
			ctx, cancel := context.WithCancel(t.Context())
			value, err := f.committer.Do(crossing{ctx, cancel}, cmd)
			wantDone(t, &reply{done: true, value: value, err: err}, cmd)
		}
	})
}
