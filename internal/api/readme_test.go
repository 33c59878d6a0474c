package api_test

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
)

var (
	timestamp = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}\+00:00$`)

	// times matches the values of the fields with times.
	times = regexp.MustCompile(`"(?:locked|expires|released)_at":"([^"]*)"`)

	// beyondSeed matches the fields that the bodies of the README do not have. They
	// always follow a field of the seed. In a release of a lock, released_at is a field
	// of the seed.
	beyondSeed = regexp.MustCompile(`,"(?:fencing_token|expires_in_seconds|reason|metadata|renewals|min_hold_until|released_at|` +
		`retry_after_seconds|waited_seconds|waiters)":(?:null|[\d.]+)|,"code":"[a-z_]+"|,"holder":\{[^}]*\}`)
)

// wantBody compares a body with that of the README, literally and in the order of its
// fields, without the fields that go beyond the seed. Postgres has a clock of its own:
// there, only the format of times is compared.
func (s *server) wantBody(t *testing.T, a answer, status int, readme string) {
	t.Helper()
	for _, m := range times.FindAllStringSubmatch(a.want(t, status).body, -1) {
		if !timestamp.MatchString(m[1]) {
			t.Errorf("the time %q has another format", m[1])
		}
	}
	want := compact(t, readme)
	got := beyondSeed.ReplaceAllString(compact(t, a.body), "")
	if s.driver == store.Postgres {
		want = times.ReplaceAllString(want, `"$at"`)
		got = times.ReplaceAllString(got, `"$at"`)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-README +got):\n%s", diff)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

// TestReadmeExamples checks every body that the README of the seed shows. The steps share
// one database.
func TestReadmeExamples(t *testing.T) {
	const readmeRequest = `{
  "resource_name": "database_backup",
  "process_id": "process_123",
  "ttl_seconds": 300
}`
	onBoth(t, func(t *testing.T, s *server) {
		status := func() answer { return s.call(t, "GET", "/locks/status?resource_name=database_backup", "") }
		prepare := func(a answer) { a.want(t, http.StatusOK) }
		steps := []struct {
			name   string
			step   func() answer
			status int
			body   string
		}{
			{
				name:   "health",
				step:   func() answer { return s.call(t, "GET", "/health", "") },
				status: 200,
				body: `{
  "status": "healthy",
  "service": "Resource Lock Manager"
}`,
			},
			{
				name:   "status, not locked",
				step:   status,
				status: 200,
				body: `{
  "success": true,
  "message": "Resource 'database_backup' is not locked",
  "data": {
    "resource_name": "database_backup",
    "is_locked": false,
    "locked_by": null,
    "locked_at": null,
    "expires_at": null
  }
}`,
			},
			{
				name: "conflict",
				step: func() answer {
					prepare(s.acquire(t, "database_backup", "other_process", nil))
					return s.call(t, "POST", "/locks/request", readmeRequest)
				},
				status: 409,
				body: `{
  "detail": "Resource 'database_backup' is already locked by process 'other_process'"
}`,
			},
			{
				name: "acquire",
				step: func() answer {
					prepare(s.release(t, "database_backup", "other_process"))
					return s.call(t, "POST", "/locks/request", readmeRequest)
				},
				status: 200,
				body: `{
  "success": true,
  "message": "Lock acquired successfully for resource 'database_backup'",
  "data": {
    "lock_id": 1,
    "resource_name": "database_backup",
    "process_id": "process_123",
    "locked_at": "2024-01-15T10:30:00.123456+00:00",
    "expires_at": "2024-01-15T10:35:00.123456+00:00"
  }
}`,
			},
			{
				name:   "status, locked",
				step:   status,
				status: 200,
				body: `{
  "success": true,
  "message": "Resource 'database_backup' status retrieved successfully",
  "data": {
    "resource_name": "database_backup",
    "is_locked": true,
    "locked_by": "process_123",
    "locked_at": "2024-01-15T10:30:00.123456+00:00",
    "expires_at": "2024-01-15T10:35:00.123456+00:00"
  }
}`,
			},
			{
				name: "all locked",
				step: func() answer {
					s.clock.advance(2 * time.Minute)
					prepare(s.acquire(t, "file_upload", "process_456", nil))
					return s.call(t, "GET", "/locks/all-locked", "")
				},
				status: 200,
				body: `{
  "success": true,
  "message": "Retrieved 2 active locks",
  "data": {
    "total_locks": 2,
    "locks": [
      {
        "id": 1,
        "resource_name": "database_backup",
        "process_id": "process_123",
        "locked_at": "2024-01-15T10:30:00.123456+00:00",
        "expires_at": "2024-01-15T10:35:00.123456+00:00"
      },
      {
        "id": 2,
        "resource_name": "file_upload",
        "process_id": "process_456",
        "locked_at": "2024-01-15T10:32:00.123456+00:00",
        "expires_at": null
      }
    ]
  }
}`,
			},
			{
				// At the time of the README the hold of 300 seconds has just expired, so
				// this one has no TTL.
				name: "release",
				step: func() answer {
					prepare(s.release(t, "database_backup", "process_123"))
					prepare(s.acquire(t, "database_backup", "process_123", nil))
					s.clock.advance(3 * time.Minute)
					return s.call(t, "DELETE", "/locks/release?resource_name=database_backup&process_id=process_123",
						"")
				},
				status: 200,
				body: `{
  "success": true,
  "message": "Lock released successfully for resource 'database_backup'",
  "data": {
    "resource_name": "database_backup",
    "process_id": "process_123",
    "released_at": "2024-01-15T10:35:00.123456+00:00"
  }
}`,
			},
			{
				// The README does not show this, but the sentence is that of the seed.
				name:   "release of what is not held",
				step:   func() answer { return s.release(t, "file_upload", "process_123") },
				status: 404,
				body:   `{"detail": "No active lock found for resource 'file_upload' by process 'process_123'"}`,
			},
		}
		for _, step := range steps {
			t.Run(step.name, func(t *testing.T) {
				s.wantBody(t, step.step(), step.status, step.body)
			})
		}
	})
}

// TestReadmeScript executes test_api.py of the README and checks what a reader expects to
// see.
func TestReadmeScript(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.call(t, "GET", "/health", "").want(t, 200)
		s.call(t, "POST", "/locks/request",
			`{"resource_name": "test_resource", "process_id": "test_process_123", "ttl_seconds": 60}`).want(t, 200)
		if got := s.status(t, "test_resource"); !got.IsLocked || got.LockedBy == nil ||
			*got.LockedBy != "test_process_123" {
			t.Errorf("status %+v", got)
		}
		s.call(t, "POST", "/locks/request", `{"resource_name": "test_resource", "process_id": "different_process"}`).
			wantFailure(t, 409, "already_locked",
				"Resource 'test_resource' is already locked by process 'test_process_123'")
		if got := s.allLocked(t); got.TotalLocks != 1 || len(got.Locks) != 1 ||
			got.Locks[0].ResourceName != "test_resource" {
			t.Errorf("all locked: %+v", got)
		}
		s.call(t, "DELETE", "/locks/release?resource_name=test_resource&process_id=test_process_123", "").want(t, 200)
		if got := s.status(t, "test_resource"); got.IsLocked {
			t.Errorf("status after the release: %+v", got)
		}
	})
}

// TestReadmeScenarios executes the example test scenarios of the README.
func TestReadmeScenarios(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		t.Run("1: basic lock and release", func(t *testing.T) {
			s.acquire(t, "database_backup", "p", nil).want(t, 200)
			if got := s.status(t, "database_backup"); !got.IsLocked {
				t.Errorf("status shows unlocked: %+v", got)
			}
			s.acquire(t, "database_backup", "different", nil).want(t, 409)
			s.release(t, "database_backup", "p").want(t, 200)
			if got := s.status(t, "database_backup"); got.IsLocked {
				t.Errorf("status shows locked: %+v", got)
			}
		})
		t.Run("2: TTL expiration", func(t *testing.T) {
			s.acquireAndOutlive(t, "with_ttl", "p")
			s.acquire(t, "with_ttl", "next", nil).want(t, 200)
			if got := s.status(t, "with_ttl"); got.LockedBy == nil || *got.LockedBy != "next" {
				t.Errorf("status %+v, want it locked by next", got)
			}
			s.release(t, "with_ttl", "next").want(t, 200)
		})
		t.Run("3: multiple resources", func(t *testing.T) {
			for _, name := range []string{"a", "b", "c"} {
				s.acquire(t, name, "p", 300).want(t, 200)
			}
			if diff := cmp.Diff([]string{"a", "b", "c"}, s.lockedNames(t)); diff != "" {
				t.Error("locked (-want +got):\n" + diff)
			}
			s.release(t, "b", "p").want(t, 200)
			if diff := cmp.Diff([]string{"a", "c"}, s.lockedNames(t)); diff != "" {
				t.Error("locked after the release (-want +got):\n" + diff)
			}
		})
	})
}

// lockedNames returns the resources of all-locked in their order.
func (s *server) lockedNames(t *testing.T) []string {
	t.Helper()
	list := s.allLocked(t)
	if list.TotalLocks != len(list.Locks) {
		t.Errorf("total_locks %d for %d locks", list.TotalLocks, len(list.Locks))
	}
	names := []string{}
	for i, l := range list.Locks {
		names = append(names, l.ResourceName)
		if i > 0 && l.ID <= list.Locks[i-1].ID {
			t.Errorf("id %d comes after %d", l.ID, list.Locks[i-1].ID)
		}
	}
	return names
}
