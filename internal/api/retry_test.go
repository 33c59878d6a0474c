package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestRepeatedRequestGetsTheSameHold: a client that lost the response repeats the request
// and gets the same hold.
func TestRepeatedRequestGetsTheSameHold(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		first := dataOf[wire.Acquired](t,
			s.acquireWith(t, "r", "p", fields{"request_id": "run 7", "ttl_seconds": 300, "reason": "first"}))
		s.clock.advance(time.Minute)
		want := first
		want.Repeated = true
		if s.driver == store.SQLite {
			want.ExpiresInSeconds = new(240.0)
		}
		for _, repeat := range []fields{
			{"request_id": "run 7", "ttl_seconds": 300, "reason": "first"},
			// The other fields of the repeated request have no effect. A renewal has its
			// own endpoint.
			{"request_id": "run 7"},
			{
				"request_id": "run 7", "ttl_seconds": 3000, "min_hold_seconds": 2000, "reason": "second",
				"metadata": fields{"a": 1},
			},
		} {
			a := s.acquireWith(t, "r", "p", repeat)
			if diff := cmp.Diff(want, dataOf[wire.Acquired](t, a), s.equalHolds()); diff != "" {
				t.Errorf("%v (-first +repeated):\n%s", repeat, diff)
			}
			wantMessage(t, a, "Lock acquired successfully for resource 'r'")
		}
		got := s.status(t, "r")
		if got.Reason == nil || *got.Reason != "first" || orNull(got.Metadata) != "null" || got.MinHoldUntil != nil ||
			*got.Renewals != 0 {
			t.Errorf("a repeated request changed the hold to %+v", got)
		}
		if diff := cmp.Diff([]string{"acquired r p"}, eventLines(s.history(t).Events)); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
	})
}

// TestRequestIDBelongsToItsProcess: only the same request_id of the same process gets the hold
// again.
func TestRequestIDBelongsToItsProcess(t *testing.T) {
	tests := []struct {
		name, resource, process string
		id                      any
	}{
		{"another process with the same id", "r", "q", "run"},
		{"the holder with another id", "r", "p", "run 2"},
		{"the holder with the id in other case", "r", "p", "RUN"},
		{"the holder without an id", "r", "p", nil},
		{"the holder without an id, of a hold without one", "plain", "p", nil},
		{"the holder with an id, of a hold without one", "plain", "p", "run"},
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireWith(t, "r", "p", fields{"request_id": "run"}).want(t, 200)
		s.acquire(t, "plain", "p", nil).want(t, 200)
		before := s.state(t)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				s.acquireWith(t, test.resource, test.process, fields{"request_id": test.id}).wantCode(t, 409,
					wire.CodeAlreadyLocked)
				if diff := cmp.Diff(before, s.state(t)); diff != "" {
					t.Error("a refusal changed (-before +after):\n" + diff)
				}
			})
		}
		// One id may belong to a hold of each of several resources.
		s.acquireWith(t, "other", "p", fields{"request_id": "run"}).want(t, 200)
	})
}

func TestRequestIDAcquiresAgainAfterTheEnd(t *testing.T) {
	tests := []struct {
		name string
		ttl  func(s *server) any
		end  func(t *testing.T, s *server)
	}{
		{"release", nil, func(t *testing.T, s *server) { s.release(t, "r", "p").want(t, 200) }},
		{
			"release-all", nil,
			func(t *testing.T, s *server) { s.delete(t, "/locks/release-all", "process_id", "p").want(t, 200) },
		},
		{"force-release", nil, func(t *testing.T, s *server) { s.forceRelease(t, "r", "stuck").want(t, 200) }},
		{"expiry", func(s *server) any { return s.brief().Seconds() }, func(t *testing.T, s *server) {
			s.outlive(t, func() bool { return !s.status(t, "r").IsLocked })
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				body := fields{"request_id": "run"}
				if test.ttl != nil {
					body["ttl_seconds"] = test.ttl(s)
				}
				first := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", body))
				test.end(t, s)
				second := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", fields{"request_id": "run"}))
				if second.FencingToken <= first.FencingToken || second.ExpiresAt != nil {
					t.Errorf("the first hold was %+v, the next one is %+v", first, second)
				}
			})
		})
	}
}

// TestRequestsWithOneIDAtOnce: a client repeats a request before it has got the first
// response.
func TestRequestsWithOneIDAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		bodies := make([]string, 2*crowd)
		for i := range bodies {
			bodies[i] = `{"resource_name":"r","process_id":"p","request_id":"run"}`
		}
		holds := map[int64]int{}
		for _, a := range s.callMany(t, "/locks/request", bodies) {
			holds[dataOf[wire.Acquired](t, a).FencingToken]++
		}
		if len(holds) != 1 {
			t.Errorf("tokens and the number of responses with each: %v", holds)
		}
		if diff := cmp.Diff([]string{"acquired r p"}, eventLines(s.history(t).Events)); diff != "" {
			t.Error("history (-want +got):\n" + diff)
		}
	})
}

// TestRepeatedRelease: "released before" and "never held" have different codes.
func TestRepeatedRelease(t *testing.T) {
	tests := []struct {
		name string
		step func(t *testing.T, s *server, resource string) answer
		code wire.Code
	}{
		{"released", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			return s.release(t, r, "p")
		}, wire.CodeAlreadyReleased},
		{"released, by its token", func(t *testing.T, s *server, r string) answer {
			token := s.hold(t, r, "p", nil).FencingToken
			s.releaseToken(t, r, "p", token).want(t, 200)
			return s.releaseToken(t, r, "p", token)
		}, wire.CodeAlreadyReleased},
		{"released by release-all", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "p", nil)
			s.delete(t, "/locks/release-all", "process_id", "p").want(t, 200)
			return s.release(t, r, "p")
		}, wire.CodeAlreadyReleased},
		{"released, by a token that never was", func(t *testing.T, s *server, r string) answer {
			token := s.hold(t, r, "p", nil).FencingToken
			s.release(t, r, "p").want(t, 200)
			return s.releaseToken(t, r, "p", token+1)
		}, wire.CodeNotHeld},
		{"released by another", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "q", nil)
			s.release(t, r, "q").want(t, 200)
			return s.release(t, r, "p")
		}, wire.CodeNotHeld},
		{"by the token of another's released hold", func(t *testing.T, s *server, r string) answer {
			token := s.hold(t, r, "q", nil).FencingToken
			s.release(t, r, "q").want(t, 200)
			return s.releaseToken(t, r, "p", token)
		}, wire.CodeNotHeld},
		{"released, and taken by another since", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			s.hold(t, r, "q", nil)
			return s.release(t, r, "p")
		}, wire.CodeAlreadyReleased},
		{"released, and taken again since, by the earlier token", func(t *testing.T, s *server, r string) answer {
			token := s.hold(t, r, "p", nil).FencingToken
			s.release(t, r, "p").want(t, 200)
			s.hold(t, r, "p", nil)
			return s.releaseToken(t, r, "p", token)
		}, wire.CodeAlreadyReleased},
		{
			"never held", func(t *testing.T, s *server, r string) answer { return s.release(t, r, "p") },
			wire.CodeNotHeld,
		},
		{"held by another", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "q", nil)
			return s.release(t, r, "p")
		}, wire.CodeNotHeld},
		{"with the holder's token, by another", func(t *testing.T, s *server, r string) answer {
			return s.releaseToken(t, r, "p", s.hold(t, r, "q", nil).FencingToken)
		}, wire.CodeNotHeld},
		{"force-released", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "p", nil)
			s.forceRelease(t, r, "stuck").want(t, 200)
			return s.release(t, r, "p")
		}, wire.CodeForceReleased},
		{"expired", func(t *testing.T, s *server, r string) answer {
			s.acquireAndOutlive(t, r, "p")
			return s.release(t, r, "p")
		}, wire.CodeExpired},
		{"expired, by its token", func(t *testing.T, s *server, r string) answer {
			return s.releaseToken(t, r, "p", s.acquireAndOutlive(t, r, "p").FencingToken)
		}, wire.CodeExpired},
		{"expired, after an earlier release, swept", func(t *testing.T, s *server, r string) answer {
			s.hold(t, r, "p", nil)
			s.release(t, r, "p").want(t, 200)
			s.acquireAndOutlive(t, r, "p")
			s.sweepExpired(t)
			return s.release(t, r, "p")
		}, wire.CodeExpired},
		{
			// This hold expired: it was lost, and its process must learn that, swept or
			// not.
			"expired, after an earlier release, not swept", func(t *testing.T, s *server, r string) answer {
				s.hold(t, r, "p", nil)
				s.release(t, r, "p").want(t, 200)
				s.acquireAndOutlive(t, r, "p")
				return s.release(t, r, "p")
			}, wire.CodeExpired,
		},
		{"expired, and taken by another since", func(t *testing.T, s *server, r string) answer {
			token := s.acquireAndOutlive(t, r, "p").FencingToken
			s.hold(t, r, "q", nil)
			s.release(t, r, "p").wantCode(t, 404, wire.CodeExpired)
			return s.releaseToken(t, r, "p", token)
		}, wire.CodeExpired},
		{"another's expired", func(t *testing.T, s *server, r string) answer {
			return s.releaseToken(t, r, "p", s.acquireAndOutlive(t, r, "q").FencingToken)
		}, wire.CodeNotHeld},
		{"a typo in the name", func(t *testing.T, s *server, r string) answer {
			s.acquireAndOutlive(t, r, "p")
			return s.release(t, r+" ", "p")
		}, wire.CodeNotHeld},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				resource := fmt.Sprint("r", i)
				test.step(t, s, resource).wantCode(t, 404, test.code)
			})
		}
	})
}

// sweepExpired records all expiries.
func (s *server) sweepExpired(t *testing.T) {
	t.Helper()
	if _, err := s.locks.SweepExpired(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
}

// TestTwoRunsUnderOneProcessID: a run that lost its hold does not affect the run that
// holds now.
func TestTwoRunsUnderOneProcessID(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		lost := s.acquireAndOutlive(t, "r", "p").FencingToken
		current := s.hold(t, "r", "p", nil).FencingToken
		before := s.state(t)
		for _, token := range []int64{lost, current + 1, 1} {
			s.releaseToken(t, "r", "p", token).
				wantFailure(t, 404, wire.CodeTokenMismatch,
					"No active lock found for resource 'r' by process 'p' with this fencing token")
			s.renew(t, "r", "p", 60, token).
				wantFailure(t, 404, wire.CodeTokenMismatch,
					"No active lock found for resource 'r' by process 'p' with this fencing token")
		}
		if diff := cmp.Diff(before, s.state(t)); diff != "" {
			t.Error("a refusal changed (-before +after):\n" + diff)
		}
		s.renew(t, "r", "p", 60, current).want(t, 200)
		s.releaseToken(t, "r", "p", current).want(t, 200)
	})
}
