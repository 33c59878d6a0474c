package lock

import "time"

// ExpireAndGrant records the end of expired holds, and grants free resources to their
// next waiters if these are local. The record is for the history only: every rule treats
// an expired hold as ended.
type ExpireAndGrant struct {
	Names []string
}

// Needs implements [Command].
func (c ExpireAndGrant) Needs() Needs { return Needs{Resources: c.Names, MayFree: true} }

// Decide implements [Command].
func (c ExpireAndGrant) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if r.outdated(now) {
			out.reconcile(r)
		}
	}
	return out, nil
}

// DeleteIdle deletes resources that are free, without waiters, and whose last hold ended
// before the given time.
type DeleteIdle struct {
	Names  []string
	Before time.Time
}

// Needs implements [Command].
func (c DeleteIdle) Needs() Needs { return Needs{Resources: c.Names, MayFree: true} }

// Decide implements [Command].
func (c DeleteIdle) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if r.ID != 0 && !r.Deleted && len(r.Holds) == 0 && r.Waiters+r.Detached == 0 && r.EndedAt.Before(c.Before) {
			r.Deleted = true
			out.change(r)
			out.Deleted++
		}
	}
	return out, nil
}
