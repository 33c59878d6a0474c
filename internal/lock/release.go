package lock

import "time"

// Release ends the process's own hold. It is refused with [NotHeldError] when that process has no live hold, or when
// Token is given and is not that of the hold. Before the hold's minimum has passed, the resource stays taken until then.
type Release struct {
	Resource  string
	ProcessID string
	Token     int64 // 0: whichever hold the process has
}

func (c Release) Resources() []string { return []string{c.Resource} }

func (c Release) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, err := before[0].owned(now, c.ProcessID, c.Token)
	if err != nil {
		return Outcome{}, err
	}
	return before[0].release(now, hold), nil
}

// owned returns the live hold of a process, or says why there is none, as far as the state
// tells.
func (r Resource) owned(now time.Time, process string, token int64) (Hold, error) {
	refusal := &NotHeldError{Resource: r.Name, ProcessID: process}
	for _, h := range r.Holds {
		its := token == 0 || token == h.Token
		switch {
		case h.ProcessID != process:
		case h.Owned(now) && its:
			return h, nil
		case h.Owned(now):
			refusal.Why = OtherToken
		case its && h.ReleasedAt.IsZero(): // no command has noticed yet
			refusal.Why = HasExpired
		case its: // its minimum kept the resource taken
			refusal.Why = AlreadyReleased
		}
	}
	return Hold{}, refusal
}

// release ends a hold for its process, and for the resource too unless its minimum has still to pass.
func (r Resource) release(now time.Time, h Hold) Outcome {
	out := Outcome{Now: now, Hold: h, Events: []Event{eventOf(Released, r.Name, h, now)}}
	if now.Before(h.MinHoldUntil) {
		out.Hold.ReleasedAt, out.Hold.ExpiresAt = now, h.MinHoldUntil
		out.settle(r.replace(out.Hold))
	} else {
		out.settle(r.end(h, now))
	}
	return out
}

// ReleaseAll ends every hold that a process has among the named resources. It is never refused.
type ReleaseAll struct {
	Names     []string
	ProcessID string
	Only      Only
}

func (c ReleaseAll) Resources() []string { return c.Names }

func (c ReleaseAll) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if hold, err := r.owned(now, c.ProcessID, 0); err == nil && c.Only.has(r.Name, hold) {
			out.add(r.release(now, hold))
		}
	}
	return out, nil
}

// ForceRelease ends whatever hold the resource has, its minimum notwithstanding. It is refused
// with [NotLockedError] when there is none, and with [OtherHoldError] when Token is given and is
// not that of the hold.
type ForceRelease struct {
	Resource string
	Reason   string // why, for the history
	By       string // who asked for it, for the history
	Token    int64  // 0: whichever hold there is
}

func (c ForceRelease) Resources() []string { return []string{c.Resource} }

func (c ForceRelease) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, held := before[0].Holder(now)
	switch {
	case !held:
		return Outcome{}, &NotLockedError{Resource: c.Resource}
	case c.Token != 0 && c.Token != hold.Token:
		return Outcome{}, &OtherHoldError{Resource: c.Resource, Holder: hold}
	}
	broken := eventOf(ForceReleased, c.Resource, hold, now)
	broken.Reason, broken.By = c.Reason, c.By
	out := Outcome{Now: now, Hold: hold, Events: []Event{broken}}
	out.settle(before[0].end(hold, now))
	return out, nil
}
