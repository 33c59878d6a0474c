package api_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

func TestLockIDStaysAndFencingTokenGrows(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquire(t, "other", "p", nil).want(t, 200) // so that the id is not the first one
		first := dataOf[wire.Acquired](t, s.acquire(t, "r", "p", nil))
		s.release(t, "r", "p").want(t, 200)
		second := dataOf[wire.Acquired](t, s.acquire(t, "r", "q", nil))
		s.release(t, "r", "q").want(t, 200)
		s.acquireAndOutlive(t, "r", "p")
		third := dataOf[wire.Acquired](t, s.acquire(t, "r", "p", nil))

		if first.LockID != second.LockID || second.LockID != third.LockID {
			t.Errorf("lock_id %d, after a release %d, after an expiry %d", first.LockID, second.LockID, third.LockID)
		}
		// acquireAndOutlive acquires between the second and the third.
		if first.FencingToken >= second.FencingToken || second.FencingToken+1 >= third.FencingToken {
			t.Errorf("fencing_token %d, then %d, then, after one more, %d", first.FencingToken, second.FencingToken,
				third.FencingToken)
		}
		for _, token := range []int64{first.FencingToken, third.FencingToken} {
			if token <= 0 || token >= 1<<53 {
				t.Errorf("fencing_token %d is not a positive integer below 2^53", token)
			}
		}
		if list := s.allLocked(t); list.Locks[1].ID != third.LockID {
			t.Errorf("all-locked shows id %d, the acquire lock_id %d", list.Locks[1].ID, third.LockID)
		}
	})
}

func TestConflictStatesTheHolder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, ttl := range []any{nil, 300} {
			hold := dataOf[wire.Acquired](t, s.acquire(t, "r", "holder", ttl))
			a := s.acquire(t, "r", "p", nil)
			a.wantFailure(t, 409, wire.CodeAlreadyLocked, "Resource 'r' is already locked by process 'holder'")
			got := decode[wire.Conflict](t, a.body).Holder
			want := &wire.Hold{ProcessID: "holder", Times: hold.Times, FencingToken: hold.FencingToken}
			if diff := cmp.Diff(want, got, s.equalHolds()); diff != "" {
				t.Errorf("ttl %v: holder (-acquired +conflict):\n%s", ttl, diff)
			}
			s.release(t, "r", "holder").want(t, 200)
		}
	})
}

// equalHolds compares holds in responses. Postgres has a clock of its own: there, the
// remaining seconds differ by the time that the test took.
func (s *server) equalHolds() cmp.Option {
	took := 0.0
	if s.driver == store.Postgres {
		took = 60
	}
	return cmp.Options{
		cmp.Comparer(func(a, b wire.Time) bool { return time.Time(a).Equal(time.Time(b)) }),
		cmp.Comparer(func(a, b json.RawMessage) bool { return orNull(a) == orNull(b) }),
		cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= took }),
	}
}

func orNull(text json.RawMessage) string {
	if text == nil {
		return "null"
	}
	return string(text)
}

// TestTimesHaveOneFormat: zeros that other formats omit are written.
func TestTimesHaveOneFormat(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.clock.advance(start.Truncate(time.Second).Add(time.Second).Sub(start))
	a := s.acquire(t, "r", "p", 0.5).want(t, 200)
	if want := `"locked_at":"2024-01-15T10:30:01.000000+00:00","expires_at":"2024-01-15T10:30:01.500000+00:00"`; !strings.Contains(a.body, want) {
		t.Errorf("no %s in %s", want, a.body)
	}
	a = s.release(t, "r", "p").want(t, 200)
	if want := `"released_at":"2024-01-15T10:30:01.000000+00:00"`; !strings.Contains(a.body, want) {
		t.Errorf("no %s in %s", want, a.body)
	}
}

// TestTimesAgree: status and all-locked return the times that acquire returned.
func TestTimesAgree(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		hold := dataOf[wire.Acquired](t, s.acquire(t, "r", "p", 0.5*3600))
		s.clock.advance(time.Minute)
		if s.driver == store.SQLite {
			hold.ExpiresInSeconds = new(0.5*3600 - 60)
		}
		want := wire.Status{
			ResourceName: "r", IsLocked: true, LockedBy: &hold.ProcessID, LockedAt: &hold.LockedAt,
			ExpiresAt:        hold.ExpiresAt,
			ExpiresInSeconds: hold.ExpiresInSeconds, FencingToken: &hold.FencingToken, Renewals: new(0),
		}
		if diff := cmp.Diff(want, s.status(t, "r"), s.equalHolds()); diff != "" {
			t.Error("status (-acquired +status):\n" + diff)
		}
		wantList := wire.AllLocked{TotalLocks: 1, Locks: []wire.Lock{
			{
				ID: hold.LockID, ResourceName: "r",
				Hold: wire.Hold{ProcessID: "p", Times: hold.Times, FencingToken: hold.FencingToken},
			},
		}}
		if diff := cmp.Diff(wantList, s.allLocked(t), s.equalHolds()); diff != "" {
			t.Error("all-locked (-acquired +listed):\n" + diff)
		}
		released := dataOf[wire.Released](t, s.release(t, "r", "p"))
		if time.Time(released.ReleasedAt).Before(time.Time(hold.LockedAt)) {
			t.Errorf("released at %v, locked at %v", time.Time(released.ReleasedAt), time.Time(hold.LockedAt))
		}
	})
}

func TestAllLocked(t *testing.T) {
	const none = `{"success":true,"message":"Retrieved 0 active locks","data":{"total_locks":0,"locks":[]}}`
	onBoth(t, func(t *testing.T, s *server) {
		if got := compact(t, s.call(t, "GET", "/locks/all-locked", "").body); got != none {
			t.Errorf("without locks: %s", got)
		}
		// The order of the ids is neither that of the names nor that of the latest holds.
		for _, name := range []string{"z", "m", "a", "k"} {
			s.acquire(t, name, "p", nil).want(t, 200)
		}
		s.release(t, "z", "p").want(t, 200)
		s.release(t, "m", "p").want(t, 200)
		s.acquireAndOutlive(t, "m", "p")
		s.acquire(t, "z", "p", nil).want(t, 200)
		if diff := cmp.Diff([]string{"z", "a", "k"}, s.lockedNames(t)); diff != "" {
			t.Error("ordered by id, without the expired one (-want +got):\n" + diff)
		}
	})
}

// TestExpiredIsGoneEverywhere does not sweep: no response may depend on the sweep.
func TestExpiredIsGoneEverywhere(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.acquireAndOutlive(t, "r", "p")
		want := wire.Status{ResourceName: "r"}
		if diff := cmp.Diff(want, s.status(t, "r"), s.equalHolds()); diff != "" {
			t.Error("status (-want +got):\n" + diff)
		}
		if got := s.lockedNames(t); len(got) > 0 {
			t.Errorf("all-locked still lists %q", got)
		}
		s.release(t, "r", "p").wantFailure(t, 404, wire.CodeExpired,
			"No active lock found for resource 'r' by process 'p'")
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name   string
		step   func(t *testing.T, s *server) answer
		status int
		code   wire.Code
		detail string
	}{
		{
			name:   "the holder asks again",
			step:   func(t *testing.T, s *server) answer { return s.acquire(t, "held", "holder", 60) },
			status: 409, code: wire.CodeAlreadyLocked,
			detail: "Resource 'held' is already locked by process 'holder'",
		},
		{
			name:   "another asks",
			step:   func(t *testing.T, s *server) answer { return s.acquire(t, "held", "p", nil) },
			status: 409, code: wire.CodeAlreadyLocked,
			detail: "Resource 'held' is already locked by process 'holder'",
		},
		{
			name:   "another releases",
			step:   func(t *testing.T, s *server) answer { return s.release(t, "held", "p") },
			status: 404, code: wire.CodeNotHeld,
			detail: "No active lock found for resource 'held' by process 'p'",
		},
		{
			name:   "release of a resource that never was",
			step:   func(t *testing.T, s *server) answer { return s.release(t, "unknown", "holder") },
			status: 404, code: wire.CodeNotHeld,
			detail: "No active lock found for resource 'unknown' by process 'holder'",
		},
		{
			name: "release twice",
			step: func(t *testing.T, s *server) answer {
				s.acquire(t, "twice", "p", nil).want(t, 200)
				s.release(t, "twice", "p").want(t, 200)
				return s.release(t, "twice", "p")
			},
			status: 404, code: wire.CodeAlreadyReleased,
			detail: "No active lock found for resource 'twice' by process 'p'",
		},
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.acquire(t, "held", "holder", nil).want(t, 200)
		before := s.call(t, "GET", "/locks/all-locked", "").body
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				test.step(t, s).wantFailure(t, test.status, test.code, test.detail)
				if after := s.call(t, "GET", "/locks/all-locked", "").body; after != before {
					t.Errorf("a refusal changed %s\nto %s", before, after)
				}
			})
		}
	})
}

func TestTTL(t *testing.T) {
	tests := []struct {
		name string
		ttl  string // as in the body
		want time.Duration
	}{
		{"absent", ``, 0},
		{"null", `,"ttl_seconds":null`, 0},
		{"whole", `,"ttl_seconds":300`, 300 * time.Second},
		{"whole, as a fraction", `,"ttl_seconds":300.0`, 300 * time.Second},
		{"half a second", `,"ttl_seconds":0.5`, 500 * time.Millisecond},
		{"exponent", `,"ttl_seconds":1.5E+2`, 150 * time.Second},
		{"microseconds", `,"ttl_seconds":1800.000001`, 1800*time.Second + time.Microsecond},
		{"the most", fmt.Sprintf(`,"ttl_seconds":%d`, maxTTL/time.Second), maxTTL},
		// Rounded to 0 it would be a hold that never expires.
		{"less than a microsecond", `,"ttl_seconds":1e-9`, time.Microsecond},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				body := fmt.Sprintf(`{"resource_name":"r%d","process_id":"p"%s}`, i, test.ttl)
				got := dataOf[wire.Acquired](t, s.call(t, "POST", "/locks/request", body))
				switch {
				case (got.ExpiresAt == nil) != (test.want == 0):
					t.Errorf("expires_at %v, want a life of %v", got.ExpiresAt, test.want)
				case got.ExpiresAt != nil:
					if life := time.Time(*got.ExpiresAt).Sub(time.Time(got.LockedAt)); life != test.want {
						t.Errorf("a life of %v, want %v", life, test.want)
					}
				}
			})
		}
	})
}

// TestWithoutTTLNeverExpires advances the clock by a hundred years.
func TestWithoutTTLNeverExpires(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.acquire(t, "r", "p", nil).want(t, 200)
	s.clock.advance(100 * 365 * 24 * time.Hour)
	s.acquire(t, "r", "q", nil).want(t, 409)
	s.release(t, "r", "p").want(t, 200)
}

// TestOneOfManyWins: of concurrent requests exactly one gets the lock.
func TestOneOfManyWins(t *testing.T) {
	const clients = 16
	onBoth(t, func(t *testing.T, s *server) {
		var statuses [clients]int
		var all sync.WaitGroup
		for i := range clients {
			// A failed request must not end the test from another goroutine, so only the
			// status is kept.
			req := s.request(t, "POST", "/locks/request", fmt.Sprintf(`{"resource_name":"r","process_id":"p%d"}`, i))
			all.Go(func() {
				if response, err := s.Client().Do(req); err == nil {
					statuses[i] = response.StatusCode
					_ = response.Body.Close()
				}
			})
		}
		all.Wait()
		winner, count := -1, map[int]int{}
		for i, status := range statuses {
			count[status]++
			if status == http.StatusOK {
				winner = i
			}
		}
		if diff := cmp.Diff(map[int]int{200: 1, 409: clients - 1}, count); diff != "" {
			t.Fatal("statuses (-want +got):\n" + diff)
		}
		if got := s.status(t, "r"); got.LockedBy == nil || *got.LockedBy != fmt.Sprintf("p%d", winner) {
			t.Errorf("p%d got 200, but the status is %+v", winner, got)
		}
	})
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	tests := []struct {
		name, body string
	}{
		{"scalar", `{"resource_name":"r","process_id":"p","priority":1}`},
		{"nested", `{"a":{"resource_name":1,"b":[null,{}]},"resource_name":"r","process_id":"p"}`},
		{
			"far from every name",
			`{"resource_name":"r","process_id":"p","timeout":1,"owner":"x","res":0,"lease_duration":30,"resource_type":"db"}`,
		},
		{"near misses inside of it", `{"resource_name":"r","process_id":"p","options":{"ttl":30,"Reason":"x"}}`},
		{"empty name", `{"":0,"resource_name":"r","process_id":"p"}`},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				got := dataOf[wire.Acquired](t, s.call(t, "POST", "/locks/request", test.body))
				if got.ResourceName != "r" || got.ProcessID != "p" || got.ExpiresAt != nil {
					t.Errorf("got %+v", got)
				}
				s.release(t, "r", "p").want(t, 200)
			})
		}
		s.call(t, "GET", "/locks/status?verbose=1&verbose=2&resource_name=r", "").want(t, 200)
		s.call(t, "GET", "/locks/all-locked?anything", "").want(t, 200)
	})
}

// TestHead: HEAD returns the same as GET, without a body.
func TestHead(t *testing.T) {
	paths := []string{
		"/health", "/livez", "/readyz", "/locks/status?resource_name=r", "/locks/status", "/locks/all-locked",
		"/locks/all-locked?limit=1",
		"/locks/history", "/locks/queue?resource_name=r", "/locks/queue",
		"/locks/validate?resource_name=r&fencing_token=1", "/locks/validate",
		"/openapi.json", "/docs", "/docs/index.html", "/docs/swagger-ui.css", "/redoc", "/redoc/redoc.standalone.js",
		"/nowhere",
	}
	s := realServer(t, store.SQLite)
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			get, head := s.call(t, "GET", path, ""), s.call(t, "HEAD", path, "")
			if head.status != get.status {
				t.Errorf("HEAD returns %d, GET %d", head.status, get.status)
			}
			if head.body != "" {
				t.Errorf("HEAD has a body: %q", head.body)
			}
			for _, name := range []string{
				"Content-Type", "Content-Length", "Cache-Control",
				"Content-Security-Policy", "Location",
			} {
				if name == "Content-Length" && head.header.Get(name) == "" {
					continue // HTTP allows a response to HEAD to omit it
				}
				if head.header.Get(name) != get.header.Get(name) {
					t.Errorf("%s: HEAD %q, GET %q", name, head.header.Get(name), get.header.Get(name))
				}
			}
		})
	}
}
