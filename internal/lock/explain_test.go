package lock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// end is an event of the end of p's hold of "r".
func end(kind lock.EventKind, token int64) lock.Event {
	return lock.Event{Kind: kind, At: t0, Resource: "r", ProcessID: "p", Token: token, Since: after(-time.Minute)}
}

// How a hold ended is asked of the history only when the rules have refused.
func TestRefusalTellsHowTheHoldEnded(t *testing.T) {
	free := lock.Resource{Name: "r"}
	anew := heldBy("p", time.Time{}) // with token 100
	others := heldBy("q", time.Time{})
	overdue := heldBy("p", t0)
	kept := heldBy("p", after(time.Minute))
	kept.Holds[0].MinHoldUntil, kept.Holds[0].ReleasedAt = after(time.Minute), t0
	otherProcess, otherResource := end(lock.Released, 90), end(lock.ForceReleased, 90)
	otherProcess.ProcessID, otherResource.Resource = "q", "s"
	tests := []struct {
		name          string
		stored        lock.Resource
		events        []lock.Event // oldest first
		token         int64
		why           lock.Why
		asked, refuse bool
	}{
		{"never held", free, nil, 0, lock.Unknown, true, true},
		{"released", free, []lock.Event{end(lock.Released, 90)}, 0, lock.AlreadyReleased, true, true},
		{"broken", free, []lock.Event{end(lock.ForceReleased, 90)}, 0, lock.Broken, true, true},
		{"expired", free, []lock.Event{end(lock.Expired, 90)}, 0, lock.HasExpired, true, true},
		{"released, and held by another now", others, []lock.Event{end(lock.Released, 90)}, 0, lock.AlreadyReleased, true, true},
		{"broken, and held by another now", others, []lock.Event{end(lock.ForceReleased, 90)}, 0, lock.Broken, true, true},
		{"expired, and held by another now", others, []lock.Event{end(lock.Expired, 90)}, 0, lock.HasExpired, true, true},
		{"only the newest end counts", free, []lock.Event{end(lock.Released, 80), end(lock.ForceReleased, 85), end(lock.Expired, 90)}, 0, lock.HasExpired, true, true},
		{"another's end, and another resource's", free, []lock.Event{otherProcess, otherResource}, 0, lock.Unknown, true, true},

		{"the token's hold was released", free, []lock.Event{end(lock.Released, 90), end(lock.Expired, 95)}, 90, lock.AlreadyReleased, true, true},
		{"the token's hold was broken", free, []lock.Event{end(lock.ForceReleased, 90), end(lock.Released, 95)}, 90, lock.Broken, true, true},
		{"the token's hold expired", free, []lock.Event{end(lock.Expired, 90), end(lock.Released, 95)}, 90, lock.HasExpired, true, true},
		{"of the token's hold nothing is known", free, []lock.Event{end(lock.Released, 95)}, 90, lock.Unknown, true, true},

		// The process has acquired it anew; the token is that of the hold before.
		{"an earlier hold was released", anew, []lock.Event{end(lock.Released, 90)}, 90, lock.AlreadyReleased, true, true},
		{"an earlier hold was broken", anew, []lock.Event{end(lock.ForceReleased, 90)}, 90, lock.Broken, true, true},
		{"an earlier hold expired", anew, []lock.Event{end(lock.Expired, 90)}, 90, lock.OtherToken, true, true},
		{"a token never seen", anew, []lock.Event{end(lock.Released, 80)}, 90, lock.OtherToken, true, true},

		// The state tells it, so the history is not asked.
		{"expired, not noticed", overdue, []lock.Event{end(lock.Released, 90)}, 0, lock.HasExpired, false, true},
		{"expired, not noticed, with its token", overdue, nil, 100, lock.HasExpired, false, true},
		{"another hold expired, not noticed", overdue, []lock.Event{end(lock.Released, 90)}, 90, lock.AlreadyReleased, true, true},
		{"released within the minimum", kept, []lock.Event{end(lock.ForceReleased, 90)}, 0, lock.AlreadyReleased, false, true},
		{"released within the minimum, with its token", kept, nil, 100, lock.AlreadyReleased, false, true},

		{"not refused", anew, []lock.Event{end(lock.ForceReleased, 90)}, 0, 0, false, false},
		{"not refused, with its token", anew, []lock.Event{end(lock.Released, 90)}, 100, 0, false, false},
	}
	for _, test := range tests {
		commands := []struct {
			name string
			call func(context.Context, *lock.Service) (lock.Outcome, error)
		}{
			{"release", func(ctx context.Context, s *lock.Service) (lock.Outcome, error) {
				return s.Release(ctx, lock.Release{Resource: "r", ProcessID: "p", Token: test.token})
			}},
			{"renew", func(ctx context.Context, s *lock.Service) (lock.Outcome, error) {
				return s.Renew(ctx, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute, Token: test.token})
			}},
		}
		for _, command := range commands {
			t.Run(test.name+"/"+command.name, func(t *testing.T) {
				m := newMemory(test.stored)
				m.events = test.events
				out, err := command.call(t.Context(), service(m))
				var asked []any
				if test.asked {
					asked = []any{lastEnd{"r", "p", test.token}}
				}
				wantEqual(t, "asked", asked, m.asked)
				if !test.refuse {
					if err != nil || out.Hold.Token != 100 {
						t.Errorf("got %+v, %v, want it done", out, err)
					}
					return
				}
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Why: test.why}, out, err)

				// Should the history not answer, the refusal is what the rules said, and not that error.
				m.broken = errBroken
				plain := lock.Unknown
				if !test.asked {
					plain = test.why
				} else if test.stored.Holds != nil && test.stored.Holds[0].ProcessID == "p" && test.stored.Holds[0].Owned(t0) {
					plain = lock.OtherToken
				}
				out, err = command.call(t.Context(), service(m))
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Why: plain}, out, err)
			})
		}
	}
}

// The same through the commands themselves, in the order in which a client meets them.
func TestRepeatedReleaseIsTold(t *testing.T) {
	m := newMemory()
	s := service(m)
	acquire := func(minimum time.Duration) int64 {
		t.Helper()
		out, err := s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p", MinHold: minimum})
		if err != nil {
			t.Fatal(err)
		}
		return out.Hold.Token
	}
	release := func(token int64) error {
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p", Token: token})
		return err
	}
	wantWhy := func(what string, want lock.Why, err error) {
		t.Helper()
		var refusal *lock.NotHeldError
		if !errors.As(err, &refusal) || refusal.Why != want {
			t.Errorf("%s: got %v, want it refused because of %d", what, err, want)
		}
	}
	wantWhy("never held", lock.Unknown, release(0))
	first := acquire(time.Minute)
	if err := release(first); err != nil {
		t.Fatal(err)
	}
	wantWhy("repeated within the minimum", lock.AlreadyReleased, release(first))
	wantWhy("repeated within the minimum, without a token", lock.AlreadyReleased, release(0))
	m.now = after(time.Minute)
	wantWhy("repeated after the minimum", lock.AlreadyReleased, release(first))
	second := acquire(0)
	wantWhy("repeated when the process has acquired it anew", lock.AlreadyReleased, release(first))
	wantEqual(t, "the new hold", second, m.resources["r"].Holds[0].Token)

	if _, err := s.ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", Reason: "it hangs"}); err != nil {
		t.Fatal(err)
	}
	wantWhy("released when it was broken", lock.Broken, release(second))
	_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
	wantWhy("renewed when it was broken", lock.Broken, err)
	wantWhy("the first hold's end is what it was", lock.AlreadyReleased, release(first))
	_, err = s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute, Token: first})
	wantWhy("which a renewal is told as well", lock.AlreadyReleased, err)

	// The newest hold expired and nobody has noticed. How an earlier one ended says nothing about it: a caller that is told
	// that it has released, or that it was stopped by force, would not look for what happened while it did not hold.
	third, err := s.Acquire(t.Context(), lock.Acquire{Resource: "r", ProcessID: "p", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	m.now = third.Hold.ExpiresAt
	for _, swept := range []string{"not swept", "swept"} {
		wantWhy("released when it had expired, "+swept, lock.HasExpired, release(0))
		_, err = s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
		wantWhy("renewed when it had expired, "+swept, lock.HasExpired, err)
		if _, err := s.SweepExpired(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
}
