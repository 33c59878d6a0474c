package main

import (
	"context"
	"fmt"
	"time"

	"resource-lock-manager/client"
)

const (
	waitingShown = 300 * time.Millisecond // a wait that is shorter is not worth a word
	longestQueue = 1000                   // positions beyond it are not looked up
)

// showWaiting reports who is in the way until ctx ends: on a terminal in one line that is
// rewritten every second, otherwise once at the start and once when the holder changes.
// Who cannot be asked is left out: the request that waits reports that itself.
func showWaiting(ctx context.Context, c *client.Client, r *reporter, owner string) {
	rewritten := r.terminal != nil && !r.json
	interval := 5 * time.Second
	if rewritten {
		interval = time.Second
	}
	timer := time.NewTimer(waitingShown)
	defer timer.Stop()
	var last int64 = -1 // the token of the holder that was reported
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(interval)
		}
		status, err := c.Status(ctx, r.resource)
		if err != nil {
			continue
		}
		var token int64
		if status.Holder != nil {
			token = status.Holder.FencingToken
		}
		if !rewritten && token == last {
			continue
		}
		position, waiters := positionOf(ctx, c, r.resource, owner)
		if ctx.Err() != nil {
			return
		}
		if status.Holder == nil && position <= 1 { // nobody is in the way: the answer is about to come
			continue
		}
		last = token
		line := waitingLine(r.resource, status, position, max(waiters, status.Waiters))
		if rewritten {
			r.rewrite(line)
			continue
		}
		r.report(event{Event: "waiting", ProcessID: owner, Holder: holderOf(status.Holder), Waiters: status.Waiters, Position: position}, "%s", line)
	}
}

// positionOf finds the request of an owner in a queue. The position is 0 if it is not
// there.
func positionOf(ctx context.Context, c *client.Client, resource, owner string) (position, waiters int) {
	for w, err := range c.Queue(ctx, resource, longestQueue) {
		if err != nil {
			return 0, 0
		}
		if waiters++; w.Owner == owner {
			position = w.Position
		}
	}
	return position, waiters
}

func waitingLine(resource string, status client.Status, position, waiters int) string {
	line := "waiting for " + resource
	switch h := status.Holder; {
	case h == nil:
		line += ": it is free"
	case !h.ReleasedAt.IsZero():
		line += fmt.Sprintf(": released by %s, but kept taken for its minimum hold for another %v", h.Owner, h.ExpiresIn.Round(time.Second))
	default:
		held := time.Since(h.LockedAt)
		if h.ExpiresIn > 0 { // the server's clock is the one that counts
			held = h.ExpiresAt.Sub(h.LockedAt) - h.ExpiresIn
		}
		line += fmt.Sprintf(": held by %s for %v", h.Owner, max(held, 0).Round(time.Second))
		if h.Reason != "" {
			line += fmt.Sprintf(", %q", h.Reason)
		}
	}
	if position > 0 {
		line += fmt.Sprintf("; %s of %d", ordinal(position), waiters)
	}
	return line
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n, suffix)
}
