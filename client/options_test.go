package client_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"resource-lock-manager/client"
)

func TestAcquireSendsItsOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := startService(t, url, client.Options{})
		first, err := c.TryLock(t.Context(), "a/ü", client.LockOptions{
			TTL: 90 * time.Second, Owner: "me", Reason: "release 1.4", MinHold: 1500 * time.Millisecond,
			Metadata: map[string]int{"ci": 77},
		})
		if err != nil {
			t.Fatal(err)
		}
		first.Abandon()
		second := mustLock(t, c, client.LockOptions{})
		third := mustLock(t, c, client.LockOptions{})
		second.Abandon()
		third.Abandon()
		got := s.requests("/locks/request")
		body := got[0].body
		if body["resource_name"] != "a/ü" || body["process_id"] != "me" || body["ttl_seconds"] != 90.0 ||
			body["reason"] != "release 1.4" || body["min_hold_seconds"] != 1.5 || body["wait_seconds"] != nil ||
			body["metadata"].(map[string]any)["ci"] != 77.0 {
			t.Errorf("sent %v", body)
		}
		if body := got[1].body; body["ttl_seconds"] != 60.0 || body["wait_seconds"] != 50.0 || body["reason"] != nil {
			t.Errorf("the zero options sent %v", body)
		}
		if second.Owner() == third.Owner() || strings.Count(second.Owner(), ":") < 2 {
			t.Errorf("owners %q and %q", second.Owner(), third.Owner())
		}
		ids := map[any]bool{}
		for _, r := range got {
			ids[r.body["request_id"]] = true
		}
		if len(ids) != 3 || ids[nil] {
			t.Errorf("request ids %v", ids)
		}
	})
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	s, c := startService(t, url, client.Options{})
	for want, o := range map[string]client.LockOptions{
		"TTL":      {TTL: -1},
		"MinHold":  {MinHold: -1},
		"Grace":    {TTL: time.Minute, Grace: 21 * time.Second},
		"Forever":  {Forever: true, NoRenew: true},
		"NoRenew":  {NoRenew: true, Grace: time.Second},
		"Metadata": {Metadata: func() {}},
	} {
		if l, err := c.Lock(t.Context(), "r", o); l != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := c.TryLock(t.Context(), "", client.LockOptions{}); err == nil {
		t.Error("an empty name is accepted")
	}
	for _, texts := range []client.LockOptions{{Owner: "a\xff"}, {Reason: "a\xff"}} {
		if _, err := c.Lock(t.Context(), "r", texts); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%v: %v", texts, err)
		}
	}
	for name, call := range map[string]func(string) error{
		"Lock": func(name string) error {
			_, err := c.Lock(t.Context(), name, client.LockOptions{})
			return err
		},
		"Renew": func(name string) error {
			_, err := c.Renew(t.Context(), name, "p", 0, 0)
			return err
		},
		"Release": func(name string) error { return c.Release(t.Context(), name, "p", 0) },
		"ForceRelease": func(name string) error {
			_, err := c.ForceRelease(t.Context(), name, client.ForceReleaseOptions{})
			return err
		},
	} {
		if err := call("a\xff"); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, urls := range []string{
		"", "localhost:8000", "ftp://a", "http://", "http://a?x", "http://a#x", "http://a,", "http://http://a:1",
		"http://a:", "http://user:secret@a b", "user:secret@host:8000", "http://user:secret%zz@a",
		"http://user:,secret@a",
	} {
		if _, err := client.New(urls, client.Options{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", urls, err)
		}
	}
	if _, err := client.New(url, client.Options{ServerTimeout: -1}); err == nil {
		t.Error("a negative ServerTimeout is accepted")
	}
	if len(s.requests("")) > 0 {
		t.Errorf("sent %v", s.requests(""))
	}
}
