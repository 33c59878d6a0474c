package lock

import "time"

// Settle records the end of holds whose time is over, and hands free resources on to the waiters that are next, if they are
// connected to the server that decides. The record is for the history only: every rule treats such holds as gone anyway.
type Settle struct {
	Names []string
}

func (c Settle) Resources() []string { return c.Names }

func (c Settle) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		live, _ := r.endExpired(now)
		first := r.next(now)
		if len(live.Holds) < len(r.Holds) || first != nil && first.Here {
			out.settle(r)
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
		if r.ID != 0 && len(r.Holds) == 0 && r.Waiters+r.Away == 0 && r.EndedAt.Before(c.Before) {
			r.Forgotten = true
			out.Changed = append(out.Changed, r)
		}
	}
	return out, nil
}
