package main

import (
	"context"
	"fmt"
	"time"

	"resource-lock-manager/client"
)

const (
	waitingDelay = 300 * time.Millisecond // shorter waits are not reported
	maxPosition  = 1000                   // later positions are not reported
)

// showWaiting reports the holder until ctx ends. On a terminal it rewrites one line every
// second. Otherwise it reports the holder at the start and after each change. It does not
// report errors: the waiting request reports them itself.
func showWaiting(ctx context.Context, c *client.Client, r *reporter, owner string) {
	rewritten := r.terminal != nil && !r.json
	interval := 5 * time.Second
	if rewritten {
		interval = time.Second
	}
	timer := time.NewTimer(waitingDelay)
	defer timer.Stop()
	var last int64 = -1 // the token of the last reported holder
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
		if status.Holder == nil && position <= 1 { // the grant is about to arrive
			continue
		}
		last = token
		line := waitingLine(r.resource, status, position, max(waiters, status.Waiters))
		if rewritten {
			r.rewrite(line)
			continue
		}
		e := event{
			Event: "waiting", ProcessID: owner, Holder: holderOf(status.Holder),
			Waiters: status.Waiters, Position: position,
		}
		r.report(e, "%s", line)
	}
}

// positionOf returns the position of an owner's request in a queue, or 0 if it is not
// found.
func positionOf(ctx context.Context, c *client.Client, resource, owner string) (position, waiters int) {
	for w, err := range c.Queue(ctx, resource, maxPosition) {
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
		line += fmt.Sprintf(": released by %s, but locked by its minimum hold for another %v",
			h.Owner, h.ExpiresIn.Round(time.Second))
	default:
		held := time.Since(h.LockedAt)
		if h.ExpiresIn > 0 { // computed by the server's clock
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
