package lock

import "time"

// Renew sets the expiry of the process's own hold anew, from now. It never creates, revives or steals a hold: it is
// refused with [NotHeldError] like a release.
type Renew struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: the hold never expires from now on
	Token     int64         // 0: whichever hold the process has
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
	h.ExpiresAt = time.Time{}
	if ttl > 0 {
		h.ExpiresAt = now.Add(ttl)
		if h.ExpiresAt.Before(h.MinHoldUntil) {
			h.ExpiresAt = h.MinHoldUntil
		}
	}
	h.RenewedAt = now
	h.Renewals++
	return Outcome{Now: now, Hold: h, Changed: []Resource{r.replace(h)}}
}

// Owned is a hold as its process knows it.
type Owned struct {
	Resource string
	Token    int64
}

// Only is a set of holds that a command keeps to; nil is all holds.
type Only map[Owned]bool

func (o Only) has(resource string, h Hold) bool {
	return o == nil || o[Owned{resource, h.Token}]
}

// RenewAll renews every hold that a process has among the named resources, except for those that
// never expire, which it names in [Outcome.Endless]. It is never refused.
type RenewAll struct {
	Names     []string
	ProcessID string
	TTL       time.Duration
	Only      Only
}

func (c RenewAll) Resources() []string { return c.Names }

func (c RenewAll) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		switch hold, err := r.owned(now, c.ProcessID, 0); {
		case err != nil || !c.Only.has(r.Name, hold):
		case hold.ExpiresAt.IsZero():
			out.Endless = append(out.Endless, Owned{r.Name, hold.Token})
		default:
			out.add(r.renew(now, hold, c.TTL))
		}
	}
	return out, nil
}
