// Package client acquires locks from the Resource Lock Manager and keeps them.
//
//	c, err := client.New("http://localhost:8000", client.Options{})
//	err = c.Do(ctx, "deploy/web", client.LockOptions{}, func(ctx context.Context, l *client.Lock) error {
//		return deploy(ctx) // ctx ends if the lock is lost
//	})
//
// [Client.Lock], [Client.TryLock] and [Lock.Unlock] are the building blocks of
// [Client.Do]. A lock is renewed while it is held, so it lasts as long as the work. It
// expires [LockOptions.TTL] after the program has died or lost the network.
//
// # What the package promises
//
// The package never reports a lock as held when another client may hold it. This requires
// that during one TTL this machine's clock and the server's clock drift apart by less
// than a margin: 5 percent of the TTL, at least a second, at most a sixth of the TTL. The
// time of a lock counts from before its request was sent, by a clock that continues while
// the machine is suspended. The exception is a force-release: the client detects it at
// the next renewal, within a third of the TTL.
//
// Requests are retried idempotently when a response is lost. An acquire has a request_id,
// so that it is granted once. Renewals and releases have the fencing token, so that they
// affect that hold only.
//
// # What it does not promise
//
// A program may be paused between a check of the lock and the work under it. It then does
// the work without the lock. If work must never happen twice, the protected system must
// check [Lock.FencingToken] with each write; see docs/FENCING.md.
//
// # Errors
//
// Compare them by [errors.Is] with [ErrHeld], [ErrLost], [ErrReleased], [ErrUnavailable],
// [ErrUnauthorized], [ErrForbidden] and [ErrOtherDatabase], and get details by
// [errors.As] with [HeldError], [LostError] and [APIError]. Errors also wrap those of a
// context that has ended.
package client
