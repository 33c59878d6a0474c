package lock

import "time"

// Release ends the process's own hold. It is refused with [NotHeldError] if the process
// has no live hold, or if Token is given and is not that of the hold. Before the hold's
// minimum has passed the resource stays taken until then.
type Release struct {
	Resource  string
	ProcessID string
	Token     int64 // 0: any hold of the process
}

// Needs implements [Command].
func (c Release) Needs() Needs { return Needs{Resources: []string{c.Resource}, MayFree: true} }

// Decide implements [Command].
func (c Release) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, err := before[0].heldBy(now, c.ProcessID, c.Token)
	if err != nil {
		return Outcome{}, err
	}
	return before[0].release(now, hold), nil
}

// release ends a hold for its process, and for the resource too unless its minimum has
// still to pass.
func (r Resource) release(now time.Time, h Hold) Outcome {
	out := Outcome{Now: now, Hold: h, Events: []Event{holdEvent(EventReleased, r.Name, h, now)}}
	if now.Before(h.MinHoldUntil) {
		out.Hold.ReleasedAt, out.Hold.ExpiresAt = now, h.MinHoldUntil
		out.reconcile(r.replace(out.Hold))
	} else {
		out.reconcile(r.end(h, now))
	}
	return out
}

// ReleaseAll ends every hold that a process has on the named resources. It is never
// refused.
type ReleaseAll struct {
	Names     []string
	ProcessID string
	Only      Only
}

// Needs implements [Command].
func (c ReleaseAll) Needs() Needs { return Needs{Resources: c.Names, MayFree: true} }

// Decide implements [Command].
func (c ReleaseAll) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if hold, err := r.heldBy(now, c.ProcessID, 0); err == nil && c.Only.has(r.Name, hold) {
			out.add(r.release(now, hold))
			out.Holds = append(out.Holds, HoldRef{r.Name, hold.Token})
		}
	}
	return out, nil
}

// ForceRelease ends any hold of the resource, regardless of its minimum. It is refused
// with [NotLockedError] if there is none, and with [OtherHoldError] if Token is given and
// is not that of the hold.
type ForceRelease struct {
	Resource string
	Reason   string // for the history
	By       string // who asked for it, for the history
	Token    int64  // 0: any hold
}

// Needs implements [Command].
func (c ForceRelease) Needs() Needs { return Needs{Resources: []string{c.Resource}, MayFree: true} }

// Decide implements [Command].
func (c ForceRelease) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, held := before[0].Holder(now)
	switch {
	case !held:
		return Outcome{}, &NotLockedError{Resource: c.Resource}
	case c.Token != 0 && c.Token != hold.Token:
		return Outcome{}, &OtherHoldError{Resource: c.Resource, Holder: hold}
	}
	released := holdEvent(EventForceReleased, c.Resource, hold, now)
	released.Reason, released.By = c.Reason, c.By
	out := Outcome{Now: now, Hold: hold, Events: []Event{released}}
	out.reconcile(before[0].end(hold, now))
	return out, nil
}
