package lock

import (
	"time"
)

// Command is one change to one or more resources. Decide is pure: the same states and moment give the same outcome, and
// an error is a refusal that changes nothing.
type Command interface {
	// Resources names what the command touches, each name once. They are locked before the moment is read.
	Resources() []string
	// Decide gets the states of Resources, in that order.
	Decide(now time.Time, before []Resource) (Outcome, error)
}

// Outcome is what a command decided.
type Outcome struct {
	Now     time.Time  // the moment of the decision
	Hold    Hold       // the hold it was about, for commands about one hold
	Changed []Resource // the new states to store, in the order of Resources
}

// Acquire asks for a hold. It is refused with [HeldError] while anyone, the asking process included, holds the resource.
type Acquire struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: never expires
}

func (c Acquire) Resources() []string { return []string{c.Resource} }

func (c Acquire) Decide(now time.Time, before []Resource) (Outcome, error) {
	r := before[0].endExpired(now)
	if holder, held := r.Holder(now); held {
		return Outcome{}, &HeldError{Resource: r.Name, Holder: holder}
	}
	hold := Hold{ProcessID: c.ProcessID, Token: r.nextToken(now), LockedAt: now}
	if c.TTL > 0 {
		hold.ExpiresAt = now.Add(c.TTL)
	}
	return Outcome{Now: now, Hold: hold, Changed: []Resource{r.grant(hold)}}, nil
}

// Release ends the process's own hold. It is refused with [NotHeldError] when that process has no live hold.
type Release struct {
	Resource  string
	ProcessID string
}

func (c Release) Resources() []string { return []string{c.Resource} }

func (c Release) Decide(now time.Time, before []Resource) (Outcome, error) {
	holder, held := before[0].Holder(now)
	if !held || holder.ProcessID != c.ProcessID {
		return Outcome{}, &NotHeldError{Resource: c.Resource, ProcessID: c.ProcessID}
	}
	return Outcome{Now: now, Hold: holder, Changed: []Resource{before[0].end(holder, now)}}, nil
}

// Expire records the end of holds whose time is over. It is for the record only: every rule treats them as gone anyway.
type Expire struct {
	Names []string
}

func (c Expire) Resources() []string { return c.Names }

func (c Expire) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if after := r.endExpired(now); len(after.Holds) < len(r.Holds) {
			out.Changed = append(out.Changed, after)
		}
	}
	return out, nil
}

// Forget deletes resources that nothing holds and whose last hold ended before the cutoff.
type Forget struct {
	Names  []string
	Before time.Time
}

func (c Forget) Resources() []string { return c.Names }

func (c Forget) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if r.ID != 0 && len(r.Holds) == 0 && r.EndedAt.Before(c.Before) {
			r.Forgotten = true
			out.Changed = append(out.Changed, r)
		}
	}
	return out, nil
}

// grant adds a hold.
func (r Resource) grant(h Hold) Resource {
	r.Holds = append(r.Holds[:len(r.Holds):len(r.Holds)], h)
	r.Token = h.Token
	r.Last, r.EndedAt = Hold{}, time.Time{}
	r.Forgotten = false
	return r
}

// end takes a hold away.
func (r Resource) end(h Hold, at time.Time) Resource {
	left := make([]Hold, 0, len(r.Holds))
	for _, other := range r.Holds {
		if other.Token != h.Token {
			left = append(left, other)
		}
	}
	r.Holds = left
	r.Last, r.EndedAt = h, at
	return r
}

// endExpired takes away every hold whose time is over; each ended when its time came, not when that was noticed.
func (r Resource) endExpired(now time.Time) Resource {
	for _, h := range r.Holds {
		if !h.Live(now) {
			r = r.end(h, h.ExpiresAt)
		}
	}
	return r
}
