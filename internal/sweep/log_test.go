package sweep_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Of failures in a row only the first is logged.
func TestOutageIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		log := sweepFor(target{expired: func(int) (int, error) {
			if calls++; calls == 4 {
				return 0, nil
			}
			return 0, errors.New("boom")
		}}, untilAfterRound(6))
		if lines := strings.Count(log, "boom"); calls != 6 || lines != 2 {
			t.Errorf("%d lines of %d rounds, want one before the success and one after it:\n%s", lines, calls, log)
		}
	})
}

func TestErrorIsLoggedAndTheNextRoundRuns(t *testing.T) {
	boom := errors.New("boom")
	t.Run("expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			log := sweepFor(target{expired: func(int) (int, error) {
				if calls++; calls == 2 {
					return 0, boom
				}
				return 0, nil
			}}, untilAfterRound(3))
			if calls != 3 {
				t.Errorf("%d rounds, want 3", calls)
			}
			wantOneLine(t, log, "boom")
		})
	})
	t.Run("places", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, events := 0, 0
			log := sweepFor(target{
				places: func(int) (int, error) {
					if calls++; calls == 2 {
						return 0, boom
					}
					return 0, nil
				},
				events: func(time.Duration, int) (int, error) { events++; return 0, nil },
			}, untilAfterChores(3))
			if calls != 3 || events != 2 { // the error ends its round
				t.Errorf("%d rounds, %d of them complete, want 3 and 2", calls, events)
			}
			wantOneLine(t, log, "boom")
		})
	})
	t.Run("events", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			log := sweepFor(target{events: func(time.Duration, int) (int, error) {
				if calls++; calls == 2 {
					return 0, boom
				}
				return 0, nil
			}}, untilAfterChores(3))
			if calls != 3 {
				t.Errorf("%d rounds, want 3", calls)
			}
			wantOneLine(t, log, "boom")
		})
	})
	t.Run("idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var after []int64
			log := sweepFor(target{idle: func(afterID int64, _ int, _ time.Duration) (int64, error) {
				after = append(after, afterID)
				switch len(after) {
				case 1:
					return 7, nil
				case 2:
					return 0, boom
				}
				return 0, nil
			}}, untilAfterChores(2))
			// The window that failed is read again.
			if diff := cmp.Diff([]int64{0, 7, 7}, after); diff != "" {
				t.Errorf("windows start after these ids (-want +got):\n%s", diff)
			}
			wantOneLine(t, log, "boom")
		})
	})
}

func wantOneLine(t *testing.T, log, text string) {
	t.Helper()
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, text) {
		t.Errorf("log is %q, want one line with %q", log, text)
	}
}
