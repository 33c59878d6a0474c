package locktest_test

import (
	"context"
	"fmt"
	"testing"

	"resource-lock-manager/client"
	"resource-lock-manager/client/locktest"
)

// deploy is a program that does its work under a lock.
func deploy(ctx context.Context, c *client.Client) error {
	return c.Do(ctx, "deploy/web", client.LockOptions{}, func(context.Context, *client.Lock) error {
		return nil
	})
}

// A test of a program that uses package client.
func Example() {
	test := func(t *testing.T) {
		s := locktest.New(t)
		s.DropReply() // the program has to retry its first request
		if err := deploy(t.Context(), s.Client(client.Options{})); err != nil {
			t.Error(err)
		}
	}
	ok := testing.RunTests(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: "TestDeploy", F: test}})
	fmt.Println(ok)
	// Output: true
}
