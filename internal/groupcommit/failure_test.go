package groupcommit_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"resource-lock-manager/internal/groupcommit"
)

var errPoison = errors.New("poison")

// faultOf fails every batch that contains the command.
func faultOf(cmd int, fault func() error) func([]int) error {
	return func(batch []int) error {
		if slices.Contains(batch, cmd) {
			return fault()
		}
		return nil
	}
}

func TestPoisonCommandFailsAlone(t *testing.T) {
	tests := []struct {
		name  string
		fault func() error
		want  string // a part of the error that its caller gets
	}{
		{"error", func() error { return errPoison }, "poison"},
		{"panic with an error", func() error { panic(errPoison) }, "poison"},
		{"panic with a nil pointer", func() error { return *(*error)(nil) }, "nil pointer dereference"},
	}
	for _, test := range tests {
		for cmd := 1; cmd <= 3; cmd++ { // the first, middle and last of the batch
			t.Run(fmt.Sprintf("%s, command %d of 3", test.name, cmd), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := start(t, 3, 10)
					f.fault = faultOf(cmd, test.fault)
					replies := f.queue(4) // command 4 is in the next batch, which must not fail
					f.open()
					var want []int
					for i, r := range replies {
						if i != cmd {
							wantDone(t, r, i)
							want = append(want, i)
						} else if !r.done || r.err == nil || !strings.Contains(r.err.Error(), test.want) {
							t.Errorf("command %d: got %+v, want an error with %q", i, *r, test.want)
						}
					}
					f.wantCommitted(want...)
					f.wantRuns([]int{0}, []int{1, 2, 3}, []int{1}, []int{2}, []int{3}, []int{4})
				})
			})
		}
	}
}

func TestFailureOfASingleCommandIsReturnedUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 3, 10)
		f.fault = faultOf(0, func() error { return errPoison })
		f.open()
		wantErr(t, f.do(t.Context(), 0), 0, errPoison)
		wantDone(t, f.do(t.Context(), 1), 1) // the committer still runs
		f.wantRuns([]int{0}, []int{1})       // command 0 is not repeated: it was alone in its batch
	})
}

func TestPanicOfASingleCommandDoesNotEndTheCommitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 3, 10)
		f.fault = faultOf(0, func() error { panic("boom") })
		f.open()
		r := f.do(t.Context(), 0)
		if !r.done || r.err == nil || !strings.Contains(r.err.Error(), "boom") ||
			!strings.Contains(r.err.Error(), "failure_test.go") {
			t.Errorf("got %+v, want an error with the panic and its stack", *r)
		}
		wantDone(t, f.do(t.Context(), 1), 1)
	})
}

// A failure of the whole batch, such as a deadlock, may not happen when its commands run
// alone.
func TestResultsOfTheSecondAttemptComeAfterEachCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.fault = func(batch []int) error {
			if len(batch) > 1 {
				return errPoison
			}
			return nil
		}
		replies := f.queue(3)
		f.step()
		f.step() // the batch fails
		for done := 1; done <= 3; done++ {
			for cmd := done; cmd <= 3; cmd++ {
				wantWaiting(t, replies[cmd], cmd)
			}
			f.step()
			wantDone(t, replies[done], done)
		}
		f.wantRuns([]int{0}, []int{1, 2, 3}, []int{1}, []int{2}, []int{3})
		f.wantCommitted(0, 1, 2, 3)
	})
}

func TestFailureThatNoCommandCausedIsReturnedToTheWholeBatch(t *testing.T) {
	tests := []struct {
		name string
		err  error
	}{
		{"unavailable", errUnavailable},
		{"outcome unknown", groupcommit.ErrOutcomeUnknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, 3, 10)
				f.fault = faultOf(2, func() error { return fmt.Errorf("%w: power failure", test.err) })
				replies := f.queue(5)
				f.open()
				for cmd, r := range replies {
					if 1 <= cmd && cmd <= 3 {
						wantErr(t, r, cmd, test.err)
					} else {
						wantDone(t, r, cmd)
					}
				}
				f.wantRuns([]int{0}, []int{1, 2, 3}, []int{4, 5})
				f.wantCommitted(0, 4, 5)
			})
		})
	}
}

// faultAlone fails every batch of several commands, and command 2 alone with the given
// error.
func faultAlone(err error) func([]int) error {
	return func(batch []int) error {
		switch {
		case len(batch) > 1:
			return errPoison
		case batch[0] == 2:
			return fmt.Errorf("%w: power failure", err)
		}
		return nil
	}
}

func TestUnavailableEndsTheSecondAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 4, 10)
		f.fault = faultAlone(errUnavailable)
		replies := f.queue(5)
		f.open()
		wantDone(t, replies[1], 1)
		for cmd := 2; cmd <= 4; cmd++ {
			wantErr(t, replies[cmd], cmd, errUnavailable)
		}
		wantDone(t, replies[5], 5)
		f.wantRuns([]int{0}, []int{1, 2, 3, 4}, []int{1}, []int{2}, []int{5})
	})
}

func TestUnknownOutcomeInTheSecondAttemptConcernsOneCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 4, 10)
		f.fault = faultAlone(groupcommit.ErrOutcomeUnknown)
		replies := f.queue(4)
		f.open()
		for cmd, r := range replies {
			if cmd == 2 {
				wantErr(t, r, cmd, groupcommit.ErrOutcomeUnknown)
			} else {
				wantDone(t, r, cmd)
			}
		}
		f.wantRuns([]int{0}, []int{1, 2, 3, 4}, []int{1}, []int{2}, []int{3}, []int{4})
	})
}

// The batch was committed, so its commands must not run again.
func TestWrongNumberOfResultsIsAnUnknownOutcome(t *testing.T) {
	tests := []struct {
		name   string
		answer func([]result) []result
	}{
		{"none", func([]result) []result { return nil }},
		{"too few", func(r []result) []result { return r[1:] }},
		{"too many", func(r []result) []result { return append(r, result{}) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, 10, 10)
				f.answer = test.answer
				replies := f.queue(3)
				f.open()
				for cmd, r := range replies {
					wantErr(t, r, cmd, groupcommit.ErrOutcomeUnknown)
				}
				f.wantRuns([]int{0}, []int{1, 2, 3})
			})
		})
	}
}
