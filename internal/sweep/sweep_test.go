package sweep_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"resource-lock-manager/internal/sweep"
)

const (
	interval  = 10 * time.Second
	retention = 36 * time.Hour
	history   = 50 * time.Hour
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// target is a database made of functions. A function that is nil does nothing. Like a
// database, it returns an error if the context has ended.
type target struct {
	expired func(limit int) (int, error)
	places  func(limit int) (int, error)
	events  func(age time.Duration, limit int) (int, error)
	idle    func(afterID int64, window int, idle time.Duration) (next int64, err error)
}

func (f target) SweepExpired(ctx context.Context, limit int) (int, error) {
	if ctx.Err() != nil || f.expired == nil {
		return 0, ctx.Err()
	}
	return f.expired(limit)
}

func (f target) SweepAbandoned(ctx context.Context, limit int) (int, error) {
	if ctx.Err() != nil || f.places == nil {
		return 0, ctx.Err()
	}
	return f.places(limit)
}

func (f target) SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error) {
	if ctx.Err() != nil || f.events == nil {
		return 0, ctx.Err()
	}
	return f.events(age, limit)
}

func (f target) SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (int, int64, error) {
	if ctx.Err() != nil || f.idle == nil {
		return 0, 0, ctx.Err()
	}
	next, err := f.idle(afterID, window, idle)
	return 0, next, err
}

// newSweeper returns a sweeper and its log.
func newSweeper(f target) (*sweep.Sweeper, *bytes.Buffer) {
	var log bytes.Buffer
	return sweep.New(f, sweep.Config{
		Interval:  interval,
		Retention: retention,
		History:   history,
		Logger:    slog.New(slog.NewTextHandler(&log, nil)),
	}), &log
}

// sweepFor runs a sweeper for the time d and returns its log.
func sweepFor(f target, d time.Duration) string {
	s, log := newSweeper(f)
	s.Start()
	<-time.After(d)
	s.Stop()
	return log.String()
}

// untilAfterRound returns a time after which exactly n rounds have started, whatever
// their random spread. It is valid for n up to 7.
func untilAfterRound(n int) time.Duration {
	return time.Duration(n)*interval*9/10 + 1
}

// untilAfterChores is like untilAfterRound for the rounds of work that is not urgent.
func untilAfterChores(n int) time.Duration { return 10 * untilAfterRound(n) }

func TestRoundsComeWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gaps []time.Duration
		last := time.Now()
		sweepFor(target{expired: func(int) (int, error) {
			gaps = append(gaps, time.Since(last))
			last = time.Now()
			return 0, nil
		}}, 1000*interval)

		if n := len(gaps); n < 1111 || n > 1250 {
			t.Fatalf("%d rounds in a thousand intervals", n)
		}
		shortest, longest := gaps[0], gaps[0]
		for _, gap := range gaps {
			shortest, longest = min(shortest, gap), max(longest, gap)
		}
		if shortest < interval*8/10 || longest > interval*9/10 { // leaves time for the round itself
			t.Errorf("gaps range from %v to %v, want them from 80 to 90 %% of %v", shortest, longest, interval)
		}
		// With 1000 random gaps, some must be in the lowest and in the highest quarter.
		if shortest > interval*825/1000 || longest < interval*875/1000 {
			t.Errorf("gaps range only from %v to %v, so several servers would sweep at the same times", shortest, longest)
		}
	})
}

// batches are amounts of work, with the number of calls in which one round does it.
var batches = []struct {
	name  string
	work  func(limit int) int
	calls int
}{
	{"none", func(int) int { return 0 }, 1},
	{"less than a batch", func(limit int) int { return limit - 1 }, 1},
	{"a full batch may not be the last", func(limit int) int { return limit }, 2},
	{"many batches", func(limit int) int { return 20*limit + 1 }, 21},
}

func TestRoundEndsEveryExpiredHold(t *testing.T) {
	for _, test := range batches {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, left := 0, 0
				sweepFor(target{expired: func(limit int) (int, error) {
					if calls == 0 {
						left = test.work(limit)
					}
					calls++
					ended := min(left, limit)
					left -= ended
					return ended, nil
				}}, untilAfterRound(1))

				if calls != test.calls || left != 0 {
					t.Errorf("one round made %d calls and left %d holds, want %d calls and 0 holds", calls, left, test.calls)
				}
			})
		})
	}
}

func TestPauseBetweenBatchesIsTwiceTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pauses []time.Duration
		var ended time.Time
		durations := []time.Duration{time.Millisecond, 20 * time.Millisecond, 3 * time.Millisecond, 0}
		calls := 0
		sweepFor(target{expired: func(limit int) (int, error) {
			if calls > 0 && calls < len(durations) {
				pauses = append(pauses, time.Since(ended))
			}
			if calls++; calls >= len(durations) {
				return 0, nil
			}
			<-time.After(durations[calls-1])
			ended = time.Now()
			return limit, nil
		}}, untilAfterRound(1)+time.Second) // time for the batches and their pauses
		want := []time.Duration{2 * time.Millisecond, 40 * time.Millisecond, 6 * time.Millisecond}
		if diff := cmp.Diff(want, pauses); diff != "" {
			t.Errorf("pauses (-want +got):\n%s", diff)
		}
	})
}

func TestRoundRemovesEveryAbandonedPlace(t *testing.T) {
	for _, test := range batches {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, left := 0, 0
				sweepFor(target{places: func(limit int) (int, error) {
					if limit < 1 || limit > 1000 {
						t.Errorf("limit %d, want 1 to 1000", limit)
					}
					if calls == 0 {
						left = test.work(limit)
					}
					calls++
					removed := min(left, limit)
					left -= removed
					return removed, nil
				}}, untilAfterChores(1))

				if calls != test.calls || left != 0 {
					t.Errorf("one round made %d calls and left %d places, want %d calls and 0 places", calls, left, test.calls)
				}
			})
		})
	}
}

func TestRoundDeletesAllOldEvents(t *testing.T) {
	for _, test := range batches {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, left := 0, 0
				sweepFor(target{events: func(age time.Duration, limit int) (int, error) {
					if age != history {
						t.Errorf("deletes events older than %v, want %v", age, history)
					}
					if limit < 1 || limit > 1000 {
						t.Errorf("limit %d, want 1 to 1000", limit)
					}
					if calls == 0 {
						left = test.work(limit)
					}
					calls++
					deleted := min(left, limit)
					left -= deleted
					return deleted, nil
				}}, untilAfterChores(1))

				if calls != test.calls || left != 0 {
					t.Errorf("one round made %d calls and left %d events, want %d calls and 0 events", calls, left, test.calls)
				}
			})
		})
	}
}

// The scan for idle rows is last, because it takes longest.
func TestOrderWithinARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		const batches = 3 // for each kind of work
		call := func(kind string, limit int) int {
			got = append(got, kind)
			if len(got)%batches == 0 {
				return 0
			}
			return limit
		}
		sweepFor(target{
			places: func(limit int) (int, error) { return call("places", limit), nil },
			events: func(_ time.Duration, limit int) (int, error) { return call("events", limit), nil },
			idle: func(afterID int64, _ int, _ time.Duration) (int64, error) {
				return int64(call("idle", int(afterID)+1)), nil
			},
		}, untilAfterChores(1))
		want := []string{"places", "places", "places", "events", "events", "events", "idle", "idle", "idle"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// The scan reads window after window over several rounds, and starts over after the last
// row.
func TestScanForIdleRows(t *testing.T) {
	const rounds = 4
	for name, windows := range map[string]int64{"one window": 1, "a few windows": 3, "more than a round": 25} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got, want []int64
				perRound := map[time.Time]int64{}
				lastRound := time.Time{}
				sweepFor(target{idle: func(afterID int64, window int, idle time.Duration) (int64, error) {
					if idle != retention {
						t.Errorf("deletes resources idle for %v, want %v", idle, retention)
					}
					if now := time.Now(); afterID == 0 && now.Equal(lastRound) {
						t.Error("started over within a round")
					}
					lastRound = time.Now()
					perRound[lastRound]++
					position := int64(len(got)) % windows
					got = append(got, afterID)
					want = append(want, position*int64(window))
					if position == windows-1 {
						return 0, nil
					}
					return afterID + int64(window), nil
				}}, untilAfterChores(rounds))

				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("windows start after these ids (-want +got):\n%s", diff)
				}
				if len(perRound) != rounds {
					t.Errorf("the scan continued in %d of %d rounds", len(perRound), rounds)
				}
				for _, n := range perRound {
					if n >= 25 {
						t.Errorf("%d windows in one round: a large table must take several rounds", n)
					}
				}
				if int64(len(got)) <= windows {
					t.Errorf("%d windows in %d rounds, so the scan did not start over", len(got), rounds)
				}
			})
		})
	}
}

func TestStopWaitsForTheBatchInProgress(t *testing.T) {
	tests := map[string]struct {
		target func(batch func()) target
	}{
		"expired": {func(batch func()) target {
			return target{expired: func(limit int) (int, error) { batch(); return limit, nil }} // a full batch: more may be left
		}},
		"places": {func(batch func()) target {
			return target{places: func(limit int) (int, error) { batch(); return limit, nil }}
		}},
		"events": {func(batch func()) target {
			return target{events: func(_ time.Duration, limit int) (int, error) { batch(); return limit, nil }}
		}},
		"idle": {func(batch func()) target {
			return target{idle: func(int64, int, time.Duration) (int64, error) { batch(); return 1, nil }}
		}},
		"a batch that fails because of Stop": {func(batch func()) target {
			return target{expired: func(int) (int, error) { batch(); return 0, context.Canceled }}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				batches := 0
				began, finish, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
				s, log := newSweeper(test.target(func() {
					if batches++; batches == 1 {
						close(began)
						<-finish
					}
				}))
				s.Start()
				<-began
				go func() {
					s.Stop()
					close(stopped)
				}()
				synctest.Wait()
				select {
				case <-stopped:
					t.Error("Stop returned while a batch was running")
				default:
				}

				close(finish)
				<-stopped
				<-time.After(10 * interval)
				if batches != 1 {
					t.Errorf("%d batches started after Stop was called", batches-1)
				}
				if log.Len() > 0 {
					t.Errorf("the stop was logged as a failure: %s", log)
				}
			})
		})
	}
}

func TestStopBetweenRoundsDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSweeper(target{expired: func(int) (int, error) {
			t.Error("swept before the first interval had passed")
			return 0, nil
		}})
		before := time.Now()
		s.Start()
		s.Stop()
		<-time.After(10 * interval)
		if waited := time.Since(before) - 10*interval; waited != 0 {
			t.Errorf("Stop took %v", waited)
		}
	})
}

// A slow deletion of events does not delay the recording of expired holds.
func TestChoresDoNotHoldUpTheEndOfAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds, finish := 0, make(chan struct{})
		s, _ := newSweeper(target{
			expired: func(int) (int, error) { rounds++; return 0, nil },
			events:  func(time.Duration, int) (int, error) { <-finish; return 0, nil },
		})
		s.Start()
		<-time.After(untilAfterChores(3))
		close(finish)
		s.Stop()
		if rounds < 27 {
			t.Errorf("%d rounds in 27 intervals", rounds)
		}
	})
}

func TestStopWithoutStartAndTwice(t *testing.T) {
	s, _ := newSweeper(target{})
	s.Stop()
	s.Start()
	s.Stop()
	s.Stop()
}
