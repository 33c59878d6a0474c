package client

import "time"

// Inject replaces the clock and the source of randomness of a client.
func (c *Client) Inject(now func() time.Duration, jitter func() float64) {
	c.now, c.jitter = now, jitter
}

// NewClock returns the clock that clients use.
var NewClock = newClock
