package service_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// end is an event of the end of p's hold of "r".
func endEvent(kind lock.EventKind, token int64) lock.Event {
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
	otherProcess, otherResource := endEvent(lock.EventReleased, 90), endEvent(lock.EventForceReleased, 90)
	otherProcess.ProcessID, otherResource.Resource = "q", "s"
	tests := []struct {
		name          string
		stored        lock.Resource
		events        []lock.Event // oldest first
		token         int64
		why           lock.NotHeldReason
		asked, refuse bool
	}{
		{"never held", free, nil, 0, lock.ReasonUnknown, true, true},
		{"released", free, []lock.Event{endEvent(lock.EventReleased, 90)}, 0, lock.ReasonReleased, true, true},
		{"broken", free, []lock.Event{endEvent(lock.EventForceReleased, 90)}, 0, lock.ReasonForceReleased, true, true},
		{"expired", free, []lock.Event{endEvent(lock.EventExpired, 90)}, 0, lock.ReasonExpired, true, true},
		{"released, and held by another now", others, []lock.Event{endEvent(lock.EventReleased, 90)}, 0, lock.ReasonReleased, true, true},
		{"broken, and held by another now", others, []lock.Event{endEvent(lock.EventForceReleased, 90)}, 0, lock.ReasonForceReleased, true, true},
		{"expired, and held by another now", others, []lock.Event{endEvent(lock.EventExpired, 90)}, 0, lock.ReasonExpired, true, true},
		{"only the newest end counts", free, []lock.Event{endEvent(lock.EventReleased, 80), endEvent(lock.EventForceReleased, 85), endEvent(lock.EventExpired, 90)}, 0, lock.ReasonExpired, true, true},
		{"another's end, and another resource's", free, []lock.Event{otherProcess, otherResource}, 0, lock.ReasonUnknown, true, true},

		{"the token's hold was released", free, []lock.Event{endEvent(lock.EventReleased, 90), endEvent(lock.EventExpired, 95)}, 90, lock.ReasonReleased, true, true},
		{"the token's hold was broken", free, []lock.Event{endEvent(lock.EventForceReleased, 90), endEvent(lock.EventReleased, 95)}, 90, lock.ReasonForceReleased, true, true},
		{"the token's hold expired", free, []lock.Event{endEvent(lock.EventExpired, 90), endEvent(lock.EventReleased, 95)}, 90, lock.ReasonExpired, true, true},
		{"of the token's hold nothing is known", free, []lock.Event{endEvent(lock.EventReleased, 95)}, 90, lock.ReasonUnknown, true, true},

		// The process has acquired it anew; the token is that of the hold before.
		{"an earlier hold was released", anew, []lock.Event{endEvent(lock.EventReleased, 90)}, 90, lock.ReasonReleased, true, true},
		{"an earlier hold was broken", anew, []lock.Event{endEvent(lock.EventForceReleased, 90)}, 90, lock.ReasonForceReleased, true, true},
		{"an earlier hold expired", anew, []lock.Event{endEvent(lock.EventExpired, 90)}, 90, lock.ReasonTokenMismatch, true, true},
		{"a token never seen", anew, []lock.Event{endEvent(lock.EventReleased, 80)}, 90, lock.ReasonTokenMismatch, true, true},

		// The state tells it, so the history is not asked.
		{"expired, not noticed", overdue, []lock.Event{endEvent(lock.EventReleased, 90)}, 0, lock.ReasonExpired, false, true},
		{"expired, not noticed, with its token", overdue, nil, 100, lock.ReasonExpired, false, true},
		{"another hold expired, not noticed", overdue, []lock.Event{endEvent(lock.EventReleased, 90)}, 90, lock.ReasonReleased, true, true},
		{"released within the minimum", kept, []lock.Event{endEvent(lock.EventForceReleased, 90)}, 0, lock.ReasonReleased, false, true},
		{"released within the minimum, with its token", kept, nil, 100, lock.ReasonReleased, false, true},

		{"not refused", anew, []lock.Event{endEvent(lock.EventForceReleased, 90)}, 0, 0, false, false},
		{"not refused, with its token", anew, []lock.Event{endEvent(lock.EventReleased, 90)}, 100, 0, false, false},
	}
	for _, test := range tests {
		commands := []struct {
			name string
			call func(context.Context, *service.Service) (lock.Outcome, error)
		}{
			{"release", func(ctx context.Context, s *service.Service) (lock.Outcome, error) {
				return s.Release(ctx, lock.Release{Resource: "r", ProcessID: "p", Token: test.token})
			}},
			{"renew", func(ctx context.Context, s *service.Service) (lock.Outcome, error) {
				return s.Renew(ctx, lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute, Token: test.token})
			}},
		}
		for _, command := range commands {
			t.Run(test.name+"/"+command.name, func(t *testing.T) {
				m := newMemory(test.stored)
				m.events = test.events
				out, err := command.call(t.Context(), newService(m))
				var asked []any
				if test.asked {
					asked = []any{lastEnd{"r", "p", test.token}}
				}
				wantEqual(t, "asked", asked, m.arguments)
				if !test.refuse {
					if err != nil || out.Hold.Token != 100 {
						t.Errorf("got %+v, %v, want it done", out, err)
					}
					return
				}
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Reason: test.why}, out, err)

				// Should the history not answer, the refusal is what the rules said, and not that error.
				m.readErr = errRead
				plain := lock.ReasonUnknown
				if !test.asked {
					plain = test.why
				} else if test.stored.Holds != nil && test.stored.Holds[0].ProcessID == "p" && test.stored.Holds[0].Owned(t0) {
					plain = lock.ReasonTokenMismatch
				}
				out, err = command.call(t.Context(), newService(m))
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Reason: plain}, out, err)
			})
		}
	}
}

// The same through the commands themselves, in the order in which a client meets them.
func TestRepeatedReleaseIsTold(t *testing.T) {
	m := newMemory()
	s := newService(m)
	acquire := func(minimum time.Duration) int64 {
		t.Helper()
		out, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", MinHold: minimum})
		if err != nil {
			t.Fatal(err)
		}
		return out.Hold.Token
	}
	release := func(token int64) error {
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p", Token: token})
		return err
	}
	wantWhy := func(what string, want lock.NotHeldReason, err error) {
		t.Helper()
		var refusal *lock.NotHeldError
		if !errors.As(err, &refusal) || refusal.Reason != want {
			t.Errorf("%s: got %v, want it refused because of %d", what, err, want)
		}
	}
	wantWhy("never held", lock.ReasonUnknown, release(0))
	first := acquire(time.Minute)
	if err := release(first); err != nil {
		t.Fatal(err)
	}
	wantWhy("repeated within the minimum", lock.ReasonReleased, release(first))
	wantWhy("repeated within the minimum, without a token", lock.ReasonReleased, release(0))
	m.now = after(time.Minute)
	wantWhy("repeated after the minimum", lock.ReasonReleased, release(first))
	second := acquire(0)
	wantWhy("repeated when the process has acquired it anew", lock.ReasonReleased, release(first))
	wantEqual(t, "the new hold", second, m.resources["r"].Holds[0].Token)

	if _, err := s.ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", Reason: "it hangs"}); err != nil {
		t.Fatal(err)
	}
	wantWhy("released when it was broken", lock.ReasonForceReleased, release(second))
	_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
	wantWhy("renewed when it was broken", lock.ReasonForceReleased, err)
	wantWhy("the first hold's end is what it was", lock.ReasonReleased, release(first))
	_, err = s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute, Token: first})
	wantWhy("which a renewal is told as well", lock.ReasonReleased, err)

	// The newest hold expired and nobody has noticed. How an earlier one ended says nothing about it: a caller that is told
	// that it has released, or that it was stopped by force, would not look for what happened while it did not hold.
	third, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	m.now = third.Hold.ExpiresAt
	for _, swept := range []string{"not swept", "swept"} {
		wantWhy("released when it had expired, "+swept, lock.ReasonExpired, release(0))
		_, err = s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute})
		wantWhy("renewed when it had expired, "+swept, lock.ReasonExpired, err)
		if _, err := s.SweepExpired(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
}
