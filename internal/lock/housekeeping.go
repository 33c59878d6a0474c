package lock

import "time"

// Expire records the end of holds whose time is over. It is for the record only: every rule treats them as gone anyway.
type Expire struct {
	Names []string
}

func (c Expire) Resources() []string { return c.Names }

func (c Expire) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if after, events := r.endExpired(now); len(after.Holds) < len(r.Holds) {
			out.add(Outcome{Changed: []Resource{after}, Events: events})
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
