package client

import (
	"context"
	"log/slog"
	"time"
)

func (c *Client) observeAcquired(l *Lock, waited time.Duration) {
	c.logLock(slog.LevelDebug, "lock acquired", l, "waited", waited)
	if f := c.observer.Acquired; f != nil {
		f(l, waited)
	}
}

func (c *Client) observeRenewed(l *Lock) {
	c.logLock(slog.LevelDebug, "lock renewed", l)
	if f := c.observer.Renewed; f != nil {
		f(l)
	}
}

func (c *Client) observeRenewFailed(l *Lock, err error) {
	c.logLock(slog.LevelWarn, "lock not renewed yet", l, "error", err, "deadline", l.Deadline())
	if f := c.observer.RenewFailed; f != nil {
		f(l, err)
	}
}

func (c *Client) observeLost(l *Lock, err *LostError) {
	c.logLock(slog.LevelError, "lock lost", l, "error", err)
	if f := c.observer.Lost; f != nil {
		f(l, err)
	}
}

func (c *Client) observeReleased(l *Lock, held time.Duration) {
	c.logLock(slog.LevelDebug, "lock released", l, "held", held)
	if f := c.observer.Released; f != nil {
		f(l, held)
	}
}

func (c *Client) observeRetry(operation string, err error, n int) {
	c.log.Warn("lock service does not answer", "operation", operation, "error", err, "attempt", n)
	if f := c.observer.Retried; f != nil {
		f(operation, err, n)
	}
}

func (c *Client) logLock(level slog.Level, message string, l *Lock, more ...any) {
	log := c.log.With("resource", l.resource, "owner", l.o.Owner, "fencing_token", l.token)
	log.Log(context.Background(), level, message, more...)
}
