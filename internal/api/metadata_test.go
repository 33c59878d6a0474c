package api_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestReasonAndMetadataAreShown: the reason and the metadata of an acquire are shown
// literally wherever the hold is shown. Databases and decoders tend to sort keys, to
// round numbers and to normalize escapes.
func TestReasonAndMetadataAreShown(t *testing.T) {
	tests := []struct {
		name, reason, metadata string
	}{
		{"nothing", ``, `null`},
		{"only a reason", `nightly backup`, `null`},
		{"only metadata", ``, `{"host":"db-1"}`},
		{"no fields", `r`, `{}`},
		{"nested", `r`, `{"a":{"b":[1,[2,{"c":null}],true]},"d":[],"e":{}}`},
		{"order of keys", `r`, `{"z":1,"a":2,"m":3,"B":4,"":5}`},
		{"big integers", `r`, `{"a":9007199254740993,"b":18446744073709551616,"c":-9223372036854775809}`},
		{"digits of fractions", `r`, `{"a":0.10000000000000000555,"b":1.10,"c":1e-400,"d":-0.0,"e":1E+2}`},
		{"unicode", `déploiement 🚀`, `{"où":"数据库🔒","e\u0301":"é"}`},
		{"escapes", `a"b\c/d`, `{"a":"\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\udd12\u2028"}`},
		{"several lines", "moved by hand:\r\n\t1. db-1\n\t2. db-2\n", `{"steps":"1\n2\r\n\t3"}`},
		{"HTML", `<b>&amp;</b>`, `{"<script>":"a && b > c"}`},
		{"line separators of JavaScript", "a\u2028b", "{\"a\":\"x\u2028y\u2029\"}"},
		{"looks like a hold", `r`, `{"expires_at":"x","fencing_token":1,"reason":"none","metadata":{"metadata":{}}}`},
		{"SQL", `'; DROP TABLE resource_locks; --`, `{"a":"$1 ? :name @p1 '; --","?":"%s"}`},
		{"500 characters of four bytes", strings.Repeat("🔒", lock.MaxReasonLength), `{}`},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				name := fmt.Sprint("r", i)
				// White space between the parts of metadata is not kept.
				metadata := strings.Replace(test.metadata, "{", "{ \n\t ", 1)
				body := fmt.Sprintf(`{"resource_name":%q,"process_id":"p","ttl_seconds":600,"reason":%s,"metadata":%s}`,
					name, quoted(t, test.reason), metadata)
				hold := dataOf[wire.Acquired](t, s.call(t, "POST", "/locks/request", body))
				want := wire.Hold{
					ProcessID: "p", Times: hold.Times, FencingToken: hold.FencingToken,
					Metadata: json.RawMessage(test.metadata),
				}
				if test.reason != "" {
					want.Reason = &test.reason
				}

				status := s.status(t, name)
				got := map[string]wire.Hold{
					"status": {
						ProcessID: *status.LockedBy, FencingToken: *status.FencingToken, Reason: status.Reason,
						Metadata: status.Metadata,
						Times: wire.Times{
							LockedAt: *status.LockedAt, ExpiresAt: status.ExpiresAt,
							ExpiresInSeconds: status.ExpiresInSeconds,
						},
					},
					"conflict": *decode[wire.Conflict](t, s.acquire(t, name, "q", nil).want(t, 409).body).Holder,
				}
				list := s.allLocked(t).Locks
				if len(list) != 1 || list[0].ID != hold.LockID || list[0].ResourceName != name {
					t.Fatalf("all-locked: %+v", list)
				}
				got["all-locked"] = list[0].Hold
				got["force-release"] = dataOf[wire.ForceReleased](t, s.forceRelease(t, name, "the next")).Holder
				for place, hold := range got {
					if diff := cmp.Diff(want, hold, s.equalHolds()); diff != "" {
						t.Errorf("%s (-acquired +shown):\n%s", place, diff)
					}
				}
				// The history has the reason. The metadata ends with the hold.
				if e := s.history(t, "resource_name", name).Events[1]; !cmp.Equal(e.Reason, want.Reason) {
					t.Errorf("history: %+v", e)
				}
				if got := s.status(t, name); got.IsLocked || got.Reason != nil || orNull(got.Metadata) != "null" {
					t.Errorf("status after the end: %+v", got)
				}
			})
		}
	})
}

// TestNextHoldShowsItsOwnReason: nothing is left of the previous hold.
func TestNextHoldShowsItsOwnReason(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireWith(t, "r", "p", fields{
			"reason": "first", "metadata": fields{"a": 1}, "min_hold_seconds": 0, "ttl_seconds": 600,
			"request_id": "run",
		}).want(t, 200)
		s.renew(t, "r", "p", 60, 0).want(t, 200)
		s.release(t, "r", "p").want(t, 200)
		hold := s.hold(t, "r", "q", nil)
		want := wire.Status{
			ResourceName: "r", IsLocked: true, LockedBy: new("q"), LockedAt: &hold.LockedAt,
			FencingToken: &hold.FencingToken, Renewals: new(0),
		}
		if diff := cmp.Diff(want, s.status(t, "r"), s.equalHolds()); diff != "" {
			t.Error("status (-want +got):\n" + diff)
		}
	})
}

func quoted(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRetryAfter: the header has whole seconds, rounded up, so that a client does not
// retry too early.
func TestRetryAfter(t *testing.T) {
	tests := []struct {
		name    string
		more    fields
		release bool
		pass    time.Duration
		seconds float64 // 0: unknown
		header  string
	}{
		{"just taken", fields{"ttl_seconds": 300}, false, 0, 300, "300"},
		{"later", fields{"ttl_seconds": 300}, false, 500 * time.Millisecond, 299.5, "300"},
		{"much later", fields{"ttl_seconds": 300}, false, 299 * time.Second, 1, "1"},
		{"the last microsecond", fields{"ttl_seconds": 300}, false, 300*time.Second - time.Microsecond, 1e-6, "1"},
		{"never expires", fields{}, false, 0, 0, ""},
		{"never expires, with a minimum", fields{"min_hold_seconds": 300}, false, 0, 0, ""},
		{"released before its minimum", fields{"min_hold_seconds": 300}, true, 10 * time.Second, 290, "290"},
		{
			"released before its minimum, with a TTL",
			fields{"min_hold_seconds": 300, "ttl_seconds": 3000},
			true, 0,
			300, "300",
		},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				name := fmt.Sprint("r", i)
				s.acquireWith(t, name, "p", test.more).want(t, 200)
				if test.release {
					s.release(t, name, "p").want(t, 200)
				}
				s.clock.advance(test.pass)
				a := s.acquire(t, name, "q", nil).want(t, 409)
				got, header := decode[wire.Conflict](t, a.body), a.header.Get("Retry-After")
				if test.seconds == 0 {
					if got.RetryAfterSeconds != nil || got.Holder.ExpiresInSeconds != nil ||
						strings.Contains(a.body, "retry_after") || header != "" {
						t.Errorf("Retry-After %q, %s", header, a.body)
					}
					return
				}
				if got.RetryAfterSeconds == nil || got.Holder.ExpiresInSeconds == nil ||
					*got.RetryAfterSeconds != *got.Holder.ExpiresInSeconds {
					t.Fatalf("got %s", a.body)
				}
				if want := fmt.Sprintf("%.0f", math.Ceil(*got.RetryAfterSeconds)); header != want {
					t.Errorf("Retry-After %q, want %q", header, want)
				}
				if s.driver == store.SQLite && (*got.RetryAfterSeconds != test.seconds || header != test.header) {
					t.Errorf("Retry-After %q, retry_after_seconds %v, want %q, %v", header, *got.RetryAfterSeconds,
						test.header, test.seconds)
				}
			})
		}
	})
}

// TestExpiryCheckCanFail proves that the check of every response in this package can
// fail.
func TestExpiryCheckCanFail(t *testing.T) {
	tests := []struct {
		name, body string
		valid      bool
	}{
		{"both", `{"data":{"expires_at":"2024","expires_in_seconds":0}}`, true},
		{"both null", `{"data":[{"expires_at":null,"expires_in_seconds":null}]}`, true},
		{"neither", `{"data":{"locked_at":"2024"}}`, true},
		{"in metadata", `{"data":{"metadata":{"expires_at":1}}}`, true},
		{"alone", `{"data":{"expires_at":"2024"}}`, false},
		{"null, alone", `{"data":{"expires_at":null}}`, false},
		{"one null", `{"holder":{"expires_at":null,"expires_in_seconds":1}}`, false},
		{"the other null", `{"data":[{},{"expires_at":"2024","expires_in_seconds":null}]}`, false},
		{"below zero", `{"expires_at":"2024","expires_in_seconds":-0.1}`, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := answer{200, map[string][]string{"Content-Type": {"application/json"}}, test.body}
			if err := checkExpiries(a); (err == nil) != test.valid {
				t.Errorf("%s: %v", test.body, err)
			}
		})
	}
}
