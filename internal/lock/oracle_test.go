package lock_test

import (
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// account is what the oracle knows of one name.
type account struct {
	grants []grant // all ever made, oldest first; at most the newest is still going on
	row    bool    // the store has a row
	going  bool    // the row is deleted when the transaction commits
	fresh  bool    // nothing was granted since the row was made, or there is none
}

type grant struct {
	hold     lock.Hold // as granted and renewed, whatever its release made of it
	released time.Time // by its process, while its minimum goes on
	over     bool
	ended    time.Time
	broken   bool // by force
}

// until is when the grant no longer keeps others out.
func (g *grant) until() time.Time {
	if !g.released.IsZero() {
		return g.hold.MinHoldUntil
	}
	return g.hold.ExpiresAt
}

// shown is the hold as the rules should have it.
func (g *grant) shown() lock.Hold {
	h := g.hold
	h.ReleasedAt, h.ExpiresAt = g.released, g.until()
	return h
}

// event tells of the grant.
func (g *grant) event(kind lock.EventKind, resource string, at time.Time) lock.Event {
	e := lock.Event{
		Kind: kind, At: at, Resource: resource, ProcessID: g.hold.ProcessID, Token: g.hold.Token,
		Since: g.hold.LockedAt, Renewals: g.hold.Renewals,
	}
	if kind != lock.EventAcquired {
		e.HoldReason = g.hold.Reason
	}
	return e
}

func (a *account) newest() *grant {
	if len(a.grants) == 0 {
		return nil
	}
	return &a.grants[len(a.grants)-1]
}

// expired tells whether the newest grant's time is over and no command has noticed.
func (a *account) expired(now time.Time) bool {
	g := a.newest()
	return g != nil && !g.over && !g.until().IsZero() && !now.Before(g.until())
}

// expire notes that the newest grant's time is over, and returns what the history should tell of that.
func (a *account) expire(name string) []lock.Event {
	g := a.newest()
	g.over, g.ended = true, g.until()
	if !g.released.IsZero() { // its release has been told
		return nil
	}
	return []lock.Event{g.event(lock.EventExpired, name, g.ended)}
}

// holder is what keeps others out.
func (a *account) holder(now time.Time) *grant {
	if g := a.newest(); g != nil && !g.over && !a.expired(now) {
		return g
	}
	return nil
}

// owned is the grant that a process may renew and release.
func (a *account) owned(now time.Time, process string) *grant {
	if g := a.holder(now); g != nil && g.hold.ProcessID == process && g.released.IsZero() {
		return g
	}
	return nil
}

// why is what the state tells of a grant that its process has no more, and that no command has
// noticed the end of.
func (a *account) why(now time.Time, process string, token int64) lock.NotHeldReason {
	g := a.newest()
	switch {
	case g == nil || g.over || g.hold.ProcessID != process || token != 0 && token != g.hold.Token:
		return lock.ReasonUnknown
	case !g.released.IsZero():
		return lock.ReasonReleased
	case a.expired(now):
		return lock.ReasonExpired
	}
	return lock.ReasonUnknown
}

// release notes that a process gives its grant back, and returns what the history should tell of that.
func (a *account) release(name string, now time.Time) lock.Event {
	g := a.newest()
	if now.Before(g.hold.MinHoldUntil) {
		g.released = now
	} else {
		g.over, g.ended = true, now
	}
	return g.event(lock.EventReleased, name, now)
}

// renew notes a renewal, which the history does not tell.
func (a *account) renew(now time.Time, ttl time.Duration) {
	h := &a.newest().hold
	h.RenewedAt, h.Renewals = now, h.Renewals+1
	switch h.ExpiresAt = now.Add(ttl); {
	case ttl == 0:
		h.ExpiresAt = time.Time{}
	case h.MinHoldUntil.After(h.ExpiresAt):
		h.ExpiresAt = h.MinHoldUntil
	}
}

// nextToken is what I2 demands.
func (m *machine) nextToken(a *account) int64 {
	previous := m.lowest
	if !a.fresh {
		previous = a.newest().hold.Token
	}
	if micros := m.now.UnixNano() / 1000; micros > previous {
		return micros
	}
	return previous + 1
}

// state is what the account makes of a name.
func (m *machine) state(name string) lock.Resource {
	a := m.accounts[name]
	r := lock.Resource{Name: name, Token: m.lowest, Deleted: a.going}
	if a.fresh {
		return r
	}
	g := a.newest()
	r.Token = g.hold.Token
	if g.over {
		r.Last, r.EndedAt = g.shown(), g.ended
	} else {
		r.Holds = []lock.Hold{g.shown()}
	}
	return r
}

// commit is what a transaction's end does to the accounts.
func (m *machine) commit(a *account) {
	if a.going {
		m.lowest = max(m.lowest, a.newest().hold.Token)
		*a = account{grants: a.grants, fresh: true}
	}
	a.row = !a.fresh
}

// drawToken is none, the newest hold's, or another one: an earlier hold's where there is one.
func (a *account) drawToken(t *rapid.T) int64 {
	g := a.newest()
	switch which := rapid.SampledFrom([]string{"none", "newest", "other"}).Draw(t, "token"); {
	case which == "none" || g == nil:
		return 0
	case which == "newest":
		return g.hold.Token
	case len(a.grants) > 1:
		return a.grants[len(a.grants)-2].hold.Token
	default:
		return g.hold.Token + 1
	}
}
