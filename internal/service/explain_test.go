package service_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// endEvent returns the event of the end of a hold of "r" that the process p had.
func endEvent(kind lock.EventKind, token int64) lock.Event {
	return lock.Event{Kind: kind, At: t0, Resource: "r", ProcessID: "p", Token: token, Since: after(-time.Minute)}
}

// After a refusal the service reads the history, unless the state shows how the hold
// ended.
func TestRefusalReportsHowTheHoldEnded(t *testing.T) {
	type events = []lock.Event // oldest first
	released := func(token int64) lock.Event { return endEvent(lock.EventReleased, token) }
	forced := func(token int64) lock.Event { return endEvent(lock.EventForceReleased, token) }
	expired := func(token int64) lock.Event { return endEvent(lock.EventExpired, token) }
	otherProcess, otherResource := released(90), forced(90)
	otherProcess.ProcessID, otherResource.Resource = "q", "s"

	var (
		free       = lock.Resource{Name: "r"}
		held       = heldBy("p", time.Time{}) // with the token 100
		heldByQ    = heldBy("q", time.Time{})
		unrecorded = heldBy("p", t0) // an expiry that no command has recorded
		early      = heldBy("p", after(time.Minute))
	)
	early.Holds[0].MinHoldUntil, early.Holds[0].ReleasedAt = after(time.Minute), t0 // released before its minimum

	const (
		noRead, read = false, true
		notRefused   = lock.NotHeldReason(-1)
	)
	tests := []struct {
		name   string
		stored lock.Resource
		events events
		token  int64
		reads  bool // the history
		reason lock.NotHeldReason
	}{
		{"never held", free, nil, 0, read, lock.ReasonUnknown},
		{"released", free, events{released(90)}, 0, read, lock.ReasonReleased},
		{"force-released", free, events{forced(90)}, 0, read, lock.ReasonForceReleased},
		{"expired", free, events{expired(90)}, 0, read, lock.ReasonExpired},
		{"released, and held by q", heldByQ, events{released(90)}, 0, read, lock.ReasonReleased},
		{"force-released, and held by q", heldByQ, events{forced(90)}, 0, read, lock.ReasonForceReleased},
		{"expired, and held by q", heldByQ, events{expired(90)}, 0, read, lock.ReasonExpired},
		{"the newest end counts", free, events{released(80), forced(85), expired(90)}, 0, read, lock.ReasonExpired},
		{"events of other holds", free, events{otherProcess, otherResource}, 0, read, lock.ReasonUnknown},

		// The token is that of an earlier hold, and the resource is free.
		{"that hold was released", free, events{released(90), expired(95)}, 90, read, lock.ReasonReleased},
		{"that hold was force-released", free, events{forced(90), released(95)}, 90, read, lock.ReasonForceReleased},
		{"that hold expired", free, events{expired(90), released(95)}, 90, read, lock.ReasonExpired},
		{"the history does not have that hold", free, events{released(95)}, 90, read, lock.ReasonUnknown},

		// The process holds the resource again; the token is that of an earlier hold.
		{"an earlier hold was released", held, events{released(90)}, 90, read, lock.ReasonReleased},
		{"an earlier hold was force-released", held, events{forced(90)}, 90, read, lock.ReasonForceReleased},
		{"an earlier hold expired", held, events{expired(90)}, 90, read, lock.ReasonTokenMismatch},
		{"a token that never existed", held, events{released(80)}, 90, read, lock.ReasonTokenMismatch},

		// The state shows how the hold ended.
		{"expiry not recorded", unrecorded, events{released(90)}, 0, noRead, lock.ReasonExpired},
		{"expiry not recorded, with its token", unrecorded, nil, 100, noRead, lock.ReasonExpired},
		{"expiry of a later hold not recorded", unrecorded, events{released(90)}, 90, read, lock.ReasonReleased},
		{"released before its minimum", early, events{forced(90)}, 0, noRead, lock.ReasonReleased},
		{"released before its minimum, with its token", early, nil, 100, noRead, lock.ReasonReleased},

		{"not refused", held, events{forced(90)}, 0, noRead, notRefused},
		{"not refused, with its token", held, events{released(90)}, 100, noRead, notRefused},
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
				var reads []any
				if test.reads {
					reads = []any{lastEnd{"r", "p", test.token}}
				}
				wantEqual(t, "reads", reads, m.arguments)
				if test.reason == notRefused {
					if err != nil || out.Hold.Token != 100 {
						t.Errorf("got %+v, %v, want success", out, err)
					}
					return
				}
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Reason: test.reason}, out, err)

				// If the history cannot be read, the refusal is the one of the rules.
				m.readErr = errRead
				reason := test.reason
				if test.reads {
					reason = lock.ReasonUnknown
					if hold, isHeld := test.stored.Holder(t0); isHeld && hold.ProcessID == "p" {
						reason = lock.ReasonTokenMismatch
					}
				}
				out, err = command.call(t.Context(), newService(m))
				wantNotHeld(t, lock.NotHeldError{Resource: "r", ProcessID: "p", Reason: reason}, out, err)
			})
		}
	}
}

// A client that repeats its release gets the same explanation, whatever happened in
// between.
func TestRepeatedReleaseIsExplained(t *testing.T) {
	m := newMemory()
	s := newService(m)
	acquire := func(minimum, ttl time.Duration) lock.Hold {
		t.Helper()
		out, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: "p", TTL: ttl, MinHold: minimum})
		if err != nil {
			t.Fatal(err)
		}
		return out.Hold
	}
	release := func(token int64) error {
		_, err := s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: "p", Token: token})
		return err
	}
	renew := func(token int64) error {
		_, err := s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: "p", TTL: time.Minute, Token: token})
		return err
	}
	wantReason := func(what string, want lock.NotHeldReason, err error) {
		t.Helper()
		var refusal *lock.NotHeldError
		if !errors.As(err, &refusal) || refusal.Reason != want {
			t.Errorf("%s: got %v, want a NotHeldError with the reason %d", what, err, want)
		}
	}
	wantReason("never held", lock.ReasonUnknown, release(0))
	first := acquire(time.Minute, 0).Token
	if err := release(first); err != nil {
		t.Fatal(err)
	}
	wantReason("repeated before the minimum has passed", lock.ReasonReleased, release(first))
	wantReason("repeated before the minimum has passed, without a token", lock.ReasonReleased, release(0))
	m.now = after(time.Minute)
	wantReason("repeated after the minimum", lock.ReasonReleased, release(first))
	second := acquire(0, 0).Token
	wantReason("repeated after the process has acquired it again", lock.ReasonReleased, release(first))
	wantEqual(t, "the new hold", second, m.resources["r"].Holds[0].Token)

	if _, err := s.ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", Reason: "it hangs"}); err != nil {
		t.Fatal(err)
	}
	wantReason("release after a force-release", lock.ReasonForceReleased, release(second))
	wantReason("renewal after a force-release", lock.ReasonForceReleased, renew(0))
	wantReason("release of the first hold", lock.ReasonReleased, release(first))
	wantReason("renewal of the first hold", lock.ReasonReleased, renew(first))

	// The newest hold expires. The end of an earlier one must not hide that: the client
	// has to learn that the resource was not protected in the meantime.
	m.now = acquire(0, time.Second).ExpiresAt
	for _, recorded := range []string{"not recorded", "recorded"} {
		wantReason("release after an expiry, "+recorded, lock.ReasonExpired, release(0))
		wantReason("renewal after an expiry, "+recorded, lock.ReasonExpired, renew(0))
		if _, err := s.SweepExpired(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
}
