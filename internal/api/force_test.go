package api_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/wire"
)

func TestForceRelease(t *testing.T) {
	const why = "the host is gone:\r\n\t50 % & more\n"
	tests := []struct {
		name string
		more fields
		by   string // empty: the address is used
	}{
		{"without an expiry", fields{}, "ops"},
		{
			"with an expiry",
			fields{"ttl_seconds": 600, "reason": "nightly", "metadata": fields{"host": "db-1"}},
			"数据库 ops",
		},
		{"within its minimum", fields{"min_hold_seconds": 600}, "ops"},
		{"without a process_id", fields{}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				hold := dataOf[wire.Acquired](t, s.acquireWith(t, "r", "p", test.more))
				query, by := []string{"resource_name", "r", "reason", why}, test.by
				if by == "" {
					var err error
					// the client is on the same host
					if by, _, err = net.SplitHostPort(s.Listener.Addr().String()); err != nil {
						t.Fatal(err)
					}
				} else {
					query = append(query, "process_id", by)
				}
				a := s.delete(t, "/locks/force-release", query...)
				got := dataOf[wire.ForceReleased](t, a)
				wantMessage(t, a, "Lock force-released for resource 'r'")
				want := wire.ForceReleased{
					ResourceName: "r", ReleasedAt: got.ReleasedAt, Reason: why, By: by,
					Holder: wire.Hold{ProcessID: "p", Times: hold.Times, FencingToken: hold.FencingToken},
				}
				if test.more["reason"] != nil {
					want.Holder.Reason, want.Holder.Metadata = new("nightly"), []byte(`{"host":"db-1"}`)
				}
				if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
					t.Error("force-released (-want +got):\n" + diff)
				}

				if s.status(t, "r").IsLocked || s.validate(t, "r", hold.FencingToken).Valid {
					t.Error("the resource is still held")
				}
				event := s.history(t).Events[0]
				lasted := time.Time(got.ReleasedAt).Sub(time.Time(hold.LockedAt)).Seconds()
				wantEvent := wire.Event{
					ID: event.ID, Event: "force_released", At: got.ReleasedAt, ResourceName: "r", ProcessID: "p",
					FencingToken: &hold.FencingToken,
					HeldSeconds:  &lasted, Renewals: new(0), Reason: &want.Reason, By: &by,
					HoldReason: want.Holder.Reason,
				}
				if diff := cmp.Diff(wantEvent, event, s.equalHolds()); diff != "" {
					t.Error("history (-want +got):\n" + diff)
				}
				s.forceRelease(t, "r", "again").wantFailure(t, 404, wire.CodeNotLocked, "Resource 'r' is not locked")
				if next := s.hold(t, "r", "q", nil); next.FencingToken <= hold.FencingToken {
					t.Errorf("the next token %d comes after %d", next.FencingToken, hold.FencingToken)
				}
			})
		})
	}
}

// TestForceReleaseOfWhatIsFree: a refused force-release records nothing.
func TestForceReleaseOfWhatIsFree(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, s *server)
	}{
		{"never held", func(*testing.T, *server) {}},
		{"released", func(t *testing.T, s *server) {
			s.hold(t, "r", "p", nil)
			s.release(t, "r", "p").want(t, 200)
		}},
		{"expired", func(t *testing.T, s *server) { s.acquireAndOutlive(t, "r", "p") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				test.prepare(t, s)
				before := s.state(t)
				s.forceRelease(t, "r", "stuck").wantFailure(t, 404, wire.CodeNotLocked, "Resource 'r' is not locked")
				if diff := cmp.Diff(before, s.state(t)); diff != "" {
					t.Error("a refusal changed (-before +after):\n" + diff)
				}
			})
		})
	}
}

// TestForceReleaseFreesWhatItsMinimumKeeps: the process has already released the lock.
func TestForceReleaseFreesWhatItsMinimumKeeps(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireWith(t, "r", "p", fields{"min_hold_seconds": 600}).want(t, 200)
		s.release(t, "r", "p").want(t, 200)
		got := dataOf[wire.ForceReleased](t, s.forceRelease(t, "r", strings.Repeat("x", 500)))
		if got.Holder.ProcessID != "p" || len(got.Reason) != 500 {
			t.Errorf("got %+v", got)
		}
		s.hold(t, "r", "q", nil)
	})
}

// TestForceReleaseOfACertainHold: with a token it ends that hold or none.
func TestForceReleaseOfACertainHold(t *testing.T) {
	forms := map[string]func(t *testing.T, s *server, token int64) answer{
		"DELETE": func(t *testing.T, s *server, token int64) answer {
			return s.delete(t, "/locks/force-release", "resource_name", "r", "reason", "stuck", "fencing_token",
				strconv.FormatInt(token, 10))
		},
		"POST": func(t *testing.T, s *server, token int64) answer {
			return s.post(t, "/locks/force-release",
				fields{"resource_name": "r", "reason": "stuck", "fencing_token": token})
		},
	}
	for name, force := range forms {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				const free = "Resource 'r' is not locked"
				force(t, s, 1).wantFailure(t, 404, wire.CodeNotLocked, free)
				seen := s.hold(t, "r", "p", nil).FencingToken
				s.release(t, "r", "p").want(t, 200)
				force(t, s, seen).wantFailure(t, 404, wire.CodeNotLocked, free)
				now := s.hold(t, "r", "p", nil).FencingToken
				before := s.state(t)
				for _, token := range []int64{seen, now + 1, 1} {
					force(t, s, token).wantFailure(t, 404, wire.CodeTokenMismatch, fmt.Sprintf(
						"Resource 'r' is not locked with this fencing token, but by process 'p' with the fencing token %d", now))
				}
				if diff := cmp.Diff(before, s.state(t)); diff != "" {
					t.Error("a refusal changed (-before +after):\n" + diff)
				}
				if got := dataOf[wire.ForceReleased](t, force(t, s, now)); got.Holder.FencingToken != now {
					t.Errorf("got %+v, want the hold %d", got, now)
				}

				// The process has released it, and its minimum keeps the resource taken.
				kept := dataOf[wire.Acquired](t,
					s.acquireWith(t, "r", "p", fields{"min_hold_seconds": 600})).FencingToken
				s.release(t, "r", "p").want(t, 200)
				force(t, s, now).wantCode(t, 404, wire.CodeTokenMismatch)
				force(t, s, kept).want(t, 200)
				force(t, s, kept).wantFailure(t, 404, wire.CodeNotLocked, free)
			})
		})
	}
}
