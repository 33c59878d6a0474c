package lock

import "time"

// Renew sets the expiry of the process's own hold, counted from now. It never creates,
// revives or steals a hold: like a release it is refused with [NotHeldError].
type Renew struct {
	Resource  string
	ProcessID string
	TTL       time.Duration // 0: the hold never expires from now on
	Token     int64         // 0: any hold of the process
}

// Needs implements [Command].
func (c Renew) Needs() Needs { return Needs{Resources: []string{c.Resource}, MayFree: true} }

// Decide implements [Command].
func (c Renew) Decide(now time.Time, before []Resource) (Outcome, error) {
	hold, err := before[0].heldBy(now, c.ProcessID, c.Token)
	if err != nil {
		return Outcome{}, err
	}
	return before[0].renew(now, hold, c.TTL), nil
}

// renew appends no event: the hold counts its renewals. The expiry is never before the
// end of the hold's minimum.
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
	out := Outcome{Now: now, Hold: h}
	out.change(r.replace(h))
	return out
}

// Only restricts a command to a set of holds; nil stands for all holds.
type Only map[HoldRef]bool

func (o Only) has(resource string, h Hold) bool {
	return o == nil || o[HoldRef{resource, h.Token}]
}

// RenewAll renews every hold that a process has on the named resources. It leaves those
// alone that never expire and reports them in [Outcome.Endless]. It is never refused.
type RenewAll struct {
	Names     []string
	ProcessID string
	TTL       time.Duration
	Only      Only
}

// Needs implements [Command].
func (c RenewAll) Needs() Needs { return Needs{Resources: c.Names, MayFree: true} }

// Decide implements [Command].
func (c RenewAll) Decide(now time.Time, before []Resource) (Outcome, error) {
	out := Outcome{Now: now}
	for _, r := range before {
		hold, err := r.heldBy(now, c.ProcessID, 0)
		ref := HoldRef{r.Name, hold.Token}
		switch {
		case err != nil || !c.Only.has(r.Name, hold):
		case hold.ExpiresAt.IsZero():
			out.Endless = append(out.Endless, ref)
		default:
			out.add(r.renew(now, hold, c.TTL))
			out.Holds = append(out.Holds, ref)
		}
	}
	return out, nil
}
