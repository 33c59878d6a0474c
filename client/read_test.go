package client_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"resource-lock-manager/client"
)

func TestReadsAreGets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		_, _ = c.Status(t.Context(), "r")
		_, _ = c.Validate(t.Context(), "r", 7)
		locks := c.Locks(t.Context(), client.ListOptions{Prefix: "a", Owner: "b"})
		locks(func(client.Hold, error) bool { return false })
		history := c.History(t.Context(), client.HistoryOptions{
			Resource: "r", Events: []string{"expired", "released"}, Since: s.began,
		})
		history(func(client.Event, error) bool { return false })
		for _, r := range s.requests("") {
			if r.method != http.MethodGet || r.body != nil {
				t.Errorf("sent %s %s with %v", r.method, r.path, r.body)
			}
		}
		query := s.requests("/locks/all-locked")[0].query
		if query["prefix"][0] != "a" || query["process_id"][0] != "b" {
			t.Errorf("Locks sends %v", query)
		}
		query = s.requests("/locks/history")[0].query
		if query["event"][0] != "expired,released" || query["since"][0] != "2000-01-01T00:00:00Z" {
			t.Errorf("History sends %v", query)
		}
	})
}

func TestListsArePaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/queue", inOrder(
			success(`{"waiters":[{"position":1,"process_id":"a"},{"position":2,"process_id":"b"}],"next_cursor":"two"}`),
			success(`{"waiters":[{"position":3,"process_id":"c"}],"next_cursor":null}`),
			refusal(422, "validation_error"),
		))
		var owners []string
		for w, err := range c.Queue(t.Context(), "r", 0) {
			if err != nil {
				t.Fatal(err)
			}
			owners = append(owners, w.Owner)
		}
		got := s.requests("/locks/queue")
		if strings.Join(owners, "") != "abc" || len(got) != 2 || got[0].query["cursor"] != nil ||
			got[1].query["cursor"][0] != "two" {
			t.Errorf("got %v from %v", owners, got)
		}
		failures := 0
		for _, err := range c.Queue(t.Context(), "r", 5) {
			if failures++; err == nil {
				t.Error("a failure is listed as an entry")
			}
		}
		if got := s.requests("/locks/queue"); failures != 1 || got[2].query["limit"][0] != "5" {
			t.Errorf("%d failures, sent %v", failures, got)
		}
	})
}

func TestListsCanBeIteratedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/all-locked", func(r sent) reply {
			if r.query["cursor"] == nil {
				return success(`{"locks":[{"resource_name":"a"}],"next_cursor":"2"}`)
			}
			return success(`{"locks":[{"resource_name":"b"}],"next_cursor":null}`)
		})
		list := c.Locks(t.Context(), client.ListOptions{})
		var names []string
		for range 2 {
			for h, err := range list {
				if names = append(names, h.Resource); err != nil {
					t.Error(err)
				}
			}
		}
		if !slices.Equal(names, []string{"a", "b", "a", "b"}) {
			t.Errorf("got %v", names)
		}
	})
}

// A second force-release without a token might end another hold.
func TestForceReleaseWithoutATokenIsSentOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		answers := []reply{{err: errRefused}, success(`{"holder":{"process_id":"x","fencing_token":7}}`)}
		s.on("/locks/force-release", inOrder(answers...))
		options := client.ForceReleaseOptions{Reason: "stuck"}
		if _, err := c.ForceRelease(t.Context(), "r", options); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		s.on("/locks/force-release", inOrder(answers...))
		options = client.ForceReleaseOptions{Reason: "stuck", By: "ops", FencingToken: 7}
		hold, err := c.ForceRelease(t.Context(), "r", options)
		if err != nil || hold.Owner != "x" || hold.Resource != "r" {
			t.Errorf("got %+v, %v", hold, err)
		}
		got := s.requests("/locks/force-release")
		if len(got) != 3 || got[2].body["process_id"] != "ops" || got[2].body["reason"] != "stuck" ||
			got[2].body["fencing_token"] != 7.0 {
			t.Errorf("sent %v", got)
		}
	})
}

// If the answer of a force-release was lost, the retry finds no hold. The client then
// reads the ended hold from the history.
func TestForceReleaseWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		s.on("/locks/force-release", inOrder(reply{err: errRefused}, refusal(404, "not_locked")))
		s.on("/locks/history", func(sent) reply {
			return success(`{"next_cursor":null,"events":[{"id":9,"event":"force_released",
				"at":"2026-01-15T10:30:10+00:00","held_seconds":10,"resource_name":"r","process_id":"p",
				"fencing_token":7,"reason":"stuck","by":"ops","hold_reason":"release 1.4"}]}`)
		})
		options := client.ForceReleaseOptions{Reason: "stuck", By: "ops", FencingToken: 7}
		hold, err := c.ForceRelease(t.Context(), "r", options)
		text, _ := json.Marshal(hold)
		if err != nil || hold.Owner != "p" || hold.Reason != "release 1.4" || hold.LockedAt.Second() != 0 ||
			!strings.Contains(string(text), `"process_id":"p"`) {
			t.Errorf("got %+v, as JSON %s, %v", hold, text, err)
		}
		var api *client.APIError
		options = client.ForceReleaseOptions{Reason: "another", FencingToken: 7}
		if _, err := c.ForceRelease(t.Context(), "r", options); !errors.As(err, &api) || api.Status != 404 {
			t.Errorf("got %v", err)
		}
	})
}

// A force-release without a token is sent to the next server if the first one has
// certainly not executed it.
func TestForceReleaseIsSentToTheNextServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, "http://a:1,http://b:1", client.Options{})
		s.on("/locks/force-release", func(r sent) reply {
			if r.host == "a:1" {
				return reply{err: &net.OpError{Op: "dial", Err: errRefused}}
			}
			return success(`{"holder":{"process_id":"p","fencing_token":7}}`)
		})
		hold, err := c.ForceRelease(t.Context(), "r", client.ForceReleaseOptions{Reason: "x"})
		if err != nil || hold.Owner != "p" {
			t.Errorf("got %+v, %v", hold, err)
		}
	})
}
