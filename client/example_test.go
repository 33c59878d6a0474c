package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"resource-lock-manager/client"
)

// Do work under a lock. The context of the work ends if the lock is lost.
func Example() {
	ctx := context.Background()
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{}) // such as http://localhost:8000
	if err != nil {
		log.Fatal(err)
	}
	options := client.LockOptions{Reason: "release 1.4"}
	err = c.Do(ctx, "deploy/web", options, func(_ context.Context, l *client.Lock) error {
		fmt.Println("deploying under the lock", l.Name())
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: deploying under the lock deploy/web
}

// Wait for at most ten seconds, and pass the fencing token to the protected system.
func ExampleClient_Lock() {
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := c.Lock(ctx, "report", client.LockOptions{TTL: 30 * time.Second})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println("a token to write with:", l.FencingToken() > 0)
	if err := l.Unlock(ctx); errors.Is(err, client.ErrLost) {
		log.Print("another client may have worked at the same time: ", err)
	}
	// Output: a token to write with: true
}

// Skip the work if another process does it already.
func ExampleClient_TryLock() {
	ctx := context.Background()
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	first, err := c.TryLock(ctx, "nightly", client.LockOptions{Owner: "host-1", Reason: "backup"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = first.Unlock(ctx) }()

	_, err = c.TryLock(ctx, "nightly", client.LockOptions{Owner: "host-2"})
	var held *client.HeldError
	if errors.As(err, &held) {
		fmt.Println("skipped:", held.Holder.Owner, "has it for", held.Holder.Reason)
	}
	// Output: skipped: host-1 has it for backup
}

// Lead while the lock is held, and campaign again after it is lost.
func ExampleLock_Context() {
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, shutDown := context.WithCancel(context.Background())
	defer shutDown()
	terms := 0
	for ctx.Err() == nil {
		l, err := c.Lock(ctx, "leader", client.LockOptions{TTL: 15 * time.Second})
		if err != nil {
			break // ctx has ended
		}
		leading, cancel := l.Context(ctx)
		fmt.Println("leading, until the lock is lost:", leading.Err() == nil)
		if terms++; terms == 2 {
			shutDown() // a real leader works until leading is done
		}
		cancel()
		_ = l.Unlock(ctx) // another process may lead now
	}
	// Output:
	// leading, until the lock is lost: true
	// leading, until the lock is lost: true
}

// Log the events of locks, and count the losses.
func ExampleObserver() {
	losses := 0
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Observer: client.Observer{
			Acquired: func(l *client.Lock, _ time.Duration) { fmt.Println("acquired", l.Name()) },
			Released: func(l *client.Lock, _ time.Duration) { fmt.Println("released", l.Name()) },
			Lost:     func(*client.Lock, *client.LostError) { losses++ },
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	work := func(context.Context, *client.Lock) error { return nil }
	err = c.Do(context.Background(), "stage", client.LockOptions{}, work)
	fmt.Println(losses, err)
	// Output:
	// acquired stage
	// released stage
	// 0 <nil>
}

// List the locks below a prefix with their owners.
func ExampleClient_Locks() {
	ctx := context.Background()
	c, err := client.New(os.Getenv("LOCKCTL_URL"), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	rig, err := c.Lock(ctx, "rig/7", client.LockOptions{Owner: "test-42"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = rig.Unlock(ctx) }()
	for hold, err := range c.Locks(ctx, client.ListOptions{Prefix: "rig/"}) {
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Println(hold.Resource, hold.Owner)
	}
	// Output: rig/7 test-42
}
