// Package client acquires locks from the Resource Lock Manager and keeps them.
//
//	c, err := client.New("http://localhost:8000", client.Options{})
//	err = c.Do(ctx, "deploy/web", client.LockOptions{}, func(ctx context.Context, l *client.Lock) error {
//		return deploy(ctx) // ctx ends if the lock is lost
//	})
//
// [Client.Lock], [Client.TryLock] and [Lock.Unlock] are the parts of that. A lock is
// renewed while it is held, so it lasts as long as the work does, and expires
// [LockOptions.TTL] after the program has died or lost the network.
//
// # What the package promises
//
// A lock is never said to be held when somebody else may have it, provided that during one
// TTL this machine's clock and the server's differ by less than a margin: 5 percent of the
// TTL, at least a second, at most a sixth of the TTL. The time of a lock counts from before
// its request was sent, by a clock that goes on while the machine is suspended. The
// exception is a force-release: it is noticed at the next renewal, within a third of the
// TTL.
//
// A request whose answer is lost is repeated until it is known what became of it: an
// acquire carries a request_id, so that it is granted once; renewals and releases carry
// the fencing token, so that they concern that hold only.
//
// # What it does not promise
//
// A program that is paused between a look at the lock and the work under it does the work
// without the lock. What must never happen twice has to check [Lock.FencingToken] where
// it happens; see docs/FENCING.md.
//
// # Errors
//
// Compare them by [errors.Is] with [ErrHeld], [ErrLost], [ErrReleased], [ErrUnavailable],
// [ErrUnauthorized], [ErrForbidden] and [ErrOtherDatabase], and get details by
// [errors.As] with [HeldError], [LostError] and [APIError]. The contexts' own errors are
// passed on.
package client
