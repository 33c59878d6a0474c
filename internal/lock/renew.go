package lock

import "time"

// Renew sets the expiry of the process's own hold anew, from now. It never creates, revives or steals a hold: it is
// refused with [NotHeldError] like a release.
type Renew struct {
	Resource  string
	ProcessID string
	TTL       time.Duration
	Token     int64 // 0: whichever hold the process has
}

func (c Renew) Resources() []string { return []string{c.Resource} }

func (c Renew) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, err := before[0].owned(now, c.ProcessID, c.Token)
	if err != nil {
		return Outcome{}, err
	}
	return before[0].renew(now, hold, c.TTL), nil
}

// renew leaves no event: renewals are counted on the hold. The expiry never falls before the hold's minimum.
func (r Resource) renew(now time.Time, h Hold, ttl time.Duration) Outcome {
	h.ExpiresAt = now.Add(ttl)
	if h.ExpiresAt.Before(h.MinHoldUntil) {
		h.ExpiresAt = h.MinHoldUntil
	}
	h.RenewedAt = now
	h.Renewals++
	return Outcome{Now: now, Hold: h, Changed: []Resource{r.replace(h)}}
}

// RenewAll renews every hold that a process has among the named resources. It is never refused.
type RenewAll struct {
	Names     []string
	ProcessID string
	TTL       time.Duration
}

func (c RenewAll) Resources() []string { return c.Names }

func (c RenewAll) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		if hold, err := r.owned(now, c.ProcessID, 0); err == nil {
			out.add(r.renew(now, hold, c.TTL))
		}
	}
	return out, nil
}
