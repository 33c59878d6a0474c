package main

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
)

// TestScenarioBasicLockAndRelease is the first scenario of the seed, with the bodies of
// its README and the fields added since.
func TestScenarioBasicLockAndRelease(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL)

		granted := s.request(t, "database_backup", "process_123")
		want := reply{
			Success: true, Message: "Lock acquired successfully for resource 'database_backup'",
			Data: map[string]any{
				"lock_id": 1.0, "resource_name": "database_backup", "process_id": "process_123", "expires_at": nil,
				"expires_in_seconds": nil,
				"waited_seconds":     0.0,
			},
		}
		lockedAt, token := granted.Data["locked_at"], granted.Data["fencing_token"]
		wantReply(t, http.StatusOK, want, granted, "locked_at", "fencing_token")

		want = reply{
			Success: true, Message: "Resource 'database_backup' status retrieved successfully",
			Data: map[string]any{
				"resource_name": "database_backup", "is_locked": true, "locked_by": "process_123",
				"locked_at":          lockedAt,
				"expires_at":         nil,
				"expires_in_seconds": nil, "fencing_token": token, "reason": nil, "metadata": nil,
				"renewals": 0.0, "min_hold_until": nil,
				"released_at": nil, "waiters": 0.0,
			},
		}
		wantReply(t, http.StatusOK, want, s.status(t, "database_backup"))

		refused := s.request(t, "database_backup", "other")
		if refused.Status != http.StatusConflict ||
			refused.Detail != "Resource 'database_backup' is already locked by process 'process_123'" {
			t.Errorf("a second process got %+v", refused)
		}

		released := s.do(t, http.MethodDelete,
			"/locks/release?resource_name=database_backup&process_id=process_123", nil)
		want = reply{
			Success: true, Message: "Lock released successfully for resource 'database_backup'",
			Data: map[string]any{
				"resource_name": "database_backup", "process_id": "process_123",
			},
		}
		wantReply(t, http.StatusOK, want, released, "released_at")

		want = reply{Success: true, Message: "Resource 'database_backup' is not locked", Data: map[string]any{
			"resource_name": "database_backup", "is_locked": false, "locked_by": nil,
			"locked_at": nil, "expires_at": nil,
			"expires_in_seconds": nil, "fencing_token": nil, "reason": nil, "metadata": nil, "renewals": nil,
			"min_hold_until": nil,
			"released_at":    nil, "waiters": 0.0,
		}}
		wantReply(t, http.StatusOK, want, s.status(t, "database_backup"))
	})
}

// wantReply compares everything except the varying fields of Data, which must exist.
func wantReply(t *testing.T, status int, want, got reply, varying ...string) {
	t.Helper()
	for _, field := range varying {
		if got.Data[field] == nil {
			t.Errorf("no %s in %+v", field, got)
		}
		delete(got.Data, field)
	}
	got.Header, want.Status = nil, status
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestScenarioTTLExpiration(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		// The default interval of the sweeper is much longer than the test. An expired
		// hold ends without the sweeper.
		s := start(t, databaseURL)
		const ttl = 200 * time.Millisecond
		before := time.Now()
		granted := s.do(t, http.MethodPost, "/locks/request",
			map[string]any{"resource_name": "r", "process_id": "first", "ttl_seconds": ttl.Seconds()})
		first, ok := holdOf(granted)
		if !ok {
			t.Fatalf("got %+v", granted)
		}

		apptest.Eventually(t, "status unlocked", func() bool { return s.status(t, "r").Data["is_locked"] == false })
		if held := time.Since(before); held < ttl {
			t.Errorf("unlocked after %v, before its TTL of %v had passed", held, ttl)
		}
		if names := s.locked(t); len(names) > 0 {
			t.Errorf("still in the list: %q", names)
		}
		if second := s.acquire(t, "r", "second"); second.token <= first.token {
			t.Errorf("token %.0f after %.0f", second.token, first.token)
		}
	})
}

// TestSweeperForgetsIdleResources checks that the sweeper of a running server ends
// expired holds and deletes resources that were idle for long. A new row has a new id.
func TestSweeperForgetsIdleResources(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL, "SWEEP_INTERVAL=20ms", "IDLE_RETENTION=1ms")
		s.acquire(t, "kept", "p") // so that SQLite does not use the same id again
		granted := s.do(t, http.MethodPost, "/locks/request",
			map[string]any{"resource_name": "r", "process_id": "p", "ttl_seconds": 0.001})
		last, _ := holdOf(granted)
		s.acquire(t, "also kept", "p")

		apptest.Eventually(t, "a new row", func() bool {
			again := s.do(t, http.MethodPost, "/locks/request",
				map[string]any{"resource_name": "r", "process_id": "p", "ttl_seconds": 0.001})
			h, ok := holdOf(again)
			if ok && h.token <= last.token {
				t.Fatalf("token %.0f after %.0f", h.token, last.token)
			}
			if ok {
				last = h
			}
			return ok && again.Data["lock_id"] != granted.Data["lock_id"]
		})
		locked := slices.DeleteFunc(s.locked(t), func(name string) bool { return name == "r" })
		if diff := cmp.Diff([]string{"also kept", "kept"}, locked); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
	})
}

func TestScenarioMultipleResources(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL)
		a, b, c := s.acquire(t, "a", "p"), s.acquire(t, "b", "p"), s.acquire(t, "c", "q")
		if diff := cmp.Diff([]string{"a", "b", "c"}, s.locked(t)); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
		if got := s.get(t, "/locks/all-locked").Message; got != "Retrieved 3 active locks" {
			t.Errorf("message %q", got)
		}
		s.release(t, a)
		s.release(t, c)
		if diff := cmp.Diff([]string{"b"}, s.locked(t)); diff != "" {
			t.Errorf("held after two releases (-want +got):\n%s", diff)
		}
		s.wantHeld(t, []hold{b})
	})
}
