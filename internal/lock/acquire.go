package lock

import "time"

// Acquire asks for a hold. It is refused with [HeldError] while anyone, the asking process included, holds the resource,
// with one exception: when the same process repeats the same RequestID it gets the hold that it has, unchanged.
type Acquire struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: never expires
	MinHold   time.Duration // the resource stays taken at least this long; 0: no minimum
	RequestID string        // the caller's name for this acquisition, so that it can be repeated; empty: none
	Reason    string
	Metadata  string // a JSON object; empty: none
}

func (c Acquire) Resources() []string { return []string{c.Resource} }

func (c Acquire) Decide(now time.Time, before []Resource) (Outcome, error) {
	r, events := before[0].endExpired(now)
	if holder, held := r.Holder(now); held {
		if c.repeats(holder) {
			return change(now, holder, r, events...), nil
		}
		return Outcome{}, &HeldError{Resource: r.Name, Holder: holder, Now: now}
	}
	hold := Hold{
		ProcessID: c.ProcessID, Token: r.nextToken(now), LockedAt: now,
		RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		hold.ExpiresAt = now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		hold.MinHoldUntil = now.Add(c.MinHold)
	}
	acquired := eventOf(Acquired, r.Name, hold, now)
	acquired.Reason = c.Reason
	return change(now, hold, r.grant(hold), append(events, acquired)...), nil
}

// repeats tells whether the command is the one that the hold was granted to. A hold that was released is over for its
// process, even while its minimum keeps the resource taken.
func (c Acquire) repeats(h Hold) bool {
	return c.RequestID != "" && c.RequestID == h.RequestID && c.ProcessID == h.ProcessID && h.ReleasedAt.IsZero()
}
