package locktest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/client/locktest"
)

func TestLockAndUnlock(t *testing.T) {
	s := locktest.New(t)
	l, err := s.Client(client.Options{}).Lock(t.Context(), "deploy/web", client.LockOptions{Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if owner, held := s.Holder("deploy/web"); !held || owner != "me" {
		t.Errorf("held %t by %q, want it held by me", held, owner)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if _, held := s.Holder("deploy/web"); held {
		t.Error("the lock is held after Unlock")
	}
}

func TestLockOfAnotherProcess(t *testing.T) {
	s := locktest.New(t)
	token := s.Hold("deploy/web", "other")
	c := s.Client(client.Options{})
	_, err := c.TryLock(t.Context(), "deploy/web", client.LockOptions{})
	var held *client.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	granted := make(chan *client.Lock)
	go func() {
		l, err := c.Lock(context.Background(), "deploy/web", client.LockOptions{})
		if err != nil {
			t.Error(err)
		}
		granted <- l
	}()
	waitFor(t, func() bool { return s.Waiters("deploy/web") == 1 })
	s.Release("deploy/web", "other")
	l := <-granted
	defer l.Abandon()
	if l.FencingToken() <= token {
		t.Errorf("token %d after %d", l.FencingToken(), token)
	}
}

// A lock that expires or is force-released is lost. The client learns this at its next
// renewal.
func TestLossOfALock(t *testing.T) {
	for name, lose := range map[string]func(*locktest.Server){
		"expired":        func(s *locktest.Server) { s.Expire("r") },
		"force-released": func(s *locktest.Server) { s.ForceRelease("r", "it hangs") },
	} {
		t.Run(name, func(t *testing.T) {
			s := locktest.New(t)
			l, err := s.Client(client.Options{}).Lock(t.Context(), "r", client.LockOptions{TTL: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			lose(s)
			<-l.Done()
			if l.Err() == nil {
				t.Error("the lock ended without an error")
			}
		})
	}
}

// A lock that cannot be renewed is lost before it expires.
func TestOffline(t *testing.T) {
	s := locktest.New(t)
	l, err := s.Client(client.Options{}).Lock(t.Context(), "r", client.LockOptions{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s.SetOffline(true)
	<-l.Done()
	if _, held := s.Holder("r"); !held {
		t.Error("the client noticed the loss after the lock had expired")
	}
	c := s.Client(client.Options{ServerTimeout: 50 * time.Millisecond})
	if _, err := c.TryLock(t.Context(), "other", client.LockOptions{}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, client.ErrUnavailable)
	}
	s.SetOffline(false)
	if _, err := c.TryLock(t.Context(), "other", client.LockOptions{}); err != nil {
		t.Error(err)
	}
}

// A request that waits when the network is interrupted loses its connection. The client
// retries.
func TestOfflineEndsAWait(t *testing.T) {
	s := locktest.New(t)
	s.Hold("r", "other")
	granted := make(chan *client.Lock)
	go func() {
		l, err := s.Client(client.Options{}).Lock(context.Background(), "r", client.LockOptions{})
		if err != nil {
			t.Error(err)
		}
		granted <- l
	}()
	waitFor(t, func() bool { return s.Waiters("r") == 1 })
	s.SetOffline(true)
	waitFor(t, func() bool { return s.Waiters("r") == 0 })
	s.SetOffline(false)
	waitFor(t, func() bool { return s.Waiters("r") == 1 })
	s.Release("r", "other")
	(<-granted).Abandon()
}

// The client retries a request whose answer was lost and gets the hold that it was
// granted.
func TestDroppedReply(t *testing.T) {
	s := locktest.New(t)
	c := s.Client(client.Options{})
	s.DropReply()
	l, err := c.Lock(t.Context(), "r", client.LockOptions{Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if owner, held := s.Holder("r"); !held || owner != "me" {
		t.Errorf("held %t by %q, want it held by me", held, owner)
	}
	s.DropReply()
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// waitFor polls until the condition is true.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the test ended while it waited")
		}
	}
}
