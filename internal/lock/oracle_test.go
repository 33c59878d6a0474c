package lock_test

import (
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// nameModel is the model of one name.
type nameModel struct {
	grants   []modelHold // all ever made, oldest first; only the newest one may not have ended
	stored   bool        // the store has a row
	deleting bool        // the row is deleted when the transaction commits
	unused   bool        // nothing was granted since the row was created, or there is none
}

type modelHold struct {
	hold     lock.Hold // as granted and renewed, without the effect of its release
	released time.Time // by its process, while its minimum keeps the resource taken
	ended    bool
	endedAt  time.Time
	forced   bool // it was force-released
}

// until returns the time at which the hold ends by itself.
func (h *modelHold) until() time.Time {
	if !h.released.IsZero() {
		return h.hold.MinHoldUntil
	}
	return h.hold.ExpiresAt
}

// state returns the hold as the rules should have it.
func (h *modelHold) state() lock.Hold {
	state := h.hold
	state.ReleasedAt, state.ExpiresAt = h.released, h.until()
	return state
}

// event returns an event of the hold.
func (h *modelHold) event(kind lock.EventKind, resource string, at time.Time) lock.Event {
	e := lock.Event{
		Kind: kind, At: at, Resource: resource, ProcessID: h.hold.ProcessID, Token: h.hold.Token,
		Since: h.hold.LockedAt, Renewals: h.hold.Renewals,
	}
	if kind != lock.EventAcquired {
		e.HoldReason = h.hold.Reason
	}
	return e
}

func (n *nameModel) newest() *modelHold {
	if len(n.grants) == 0 {
		return nil
	}
	return &n.grants[len(n.grants)-1]
}

// expired reports whether the newest hold has expired and no command has recorded that.
func (n *nameModel) expired(now time.Time) bool {
	h := n.newest()
	return h != nil && !h.ended && !h.until().IsZero() && !now.Before(h.until())
}

// expire ends the newest hold at its expiry and returns the events of that.
func (n *nameModel) expire(name string) []lock.Event {
	h := n.newest()
	h.ended, h.endedAt = true, h.until()
	if !h.released.IsZero() { // its release is recorded
		return nil
	}
	return []lock.Event{h.event(lock.EventExpired, name, h.endedAt)}
}

// holder returns the live hold, nil if there is none.
func (n *nameModel) holder(now time.Time) *modelHold {
	if h := n.newest(); h != nil && !h.ended && !n.expired(now) {
		return h
	}
	return nil
}

// owned returns the hold that a process may renew and release, nil if there is none.
func (n *nameModel) owned(now time.Time, process string) *modelHold {
	if h := n.holder(now); h != nil && h.hold.ProcessID == process && h.released.IsZero() {
		return h
	}
	return nil
}

// reason returns why a process does not own the newest hold, as far as the state shows.
func (n *nameModel) reason(now time.Time, process string, token int64) lock.NotHeldReason {
	h := n.newest()
	switch {
	case h == nil || h.ended || h.hold.ProcessID != process || token != 0 && token != h.hold.Token:
		return lock.ReasonUnknown
	case !h.released.IsZero():
		return lock.ReasonReleased
	case n.expired(now):
		return lock.ReasonExpired
	}
	return lock.ReasonUnknown
}

// release releases the newest hold and returns the event of that.
func (n *nameModel) release(name string, now time.Time) lock.Event {
	h := n.newest()
	if now.Before(h.hold.MinHoldUntil) {
		h.released = now
	} else {
		h.ended, h.endedAt = true, now
	}
	return h.event(lock.EventReleased, name, now)
}

// renew renews the newest hold, which has no event.
func (n *nameModel) renew(now time.Time, ttl time.Duration) {
	h := &n.newest().hold
	h.RenewedAt, h.Renewals = now, h.Renewals+1
	switch h.ExpiresAt = now.Add(ttl); {
	case ttl == 0:
		h.ExpiresAt = time.Time{}
	case h.MinHoldUntil.After(h.ExpiresAt):
		h.ExpiresAt = h.MinHoldUntil
	}
}

// nextToken returns the token that I2 requires.
func (m *machine) nextToken(n *nameModel) int64 {
	previous := m.modelFloor
	if !n.unused {
		previous = n.newest().hold.Token
	}
	if micros := m.now.UnixNano() / 1000; micros > previous {
		return micros
	}
	return previous + 1
}

// state returns the state of a name as the rules should have it.
func (m *machine) state(name string) lock.Resource {
	n := m.models[name]
	r := lock.Resource{Name: name, Token: m.modelFloor, Deleted: n.deleting}
	if n.unused {
		return r
	}
	h := n.newest()
	r.Token = h.hold.Token
	if h.ended {
		r.Last, r.EndedAt = h.state(), h.endedAt
	} else {
		r.Holds = []lock.Hold{h.state()}
	}
	return r
}

// commit does to a model what the commit of the transaction does to the row.
func (m *machine) commit(n *nameModel) {
	if n.deleting {
		m.modelFloor = max(m.modelFloor, n.newest().hold.Token)
		*n = nameModel{grants: n.grants, unused: true}
	}
	n.stored = !n.unused
}

// drawToken returns no token, that of the newest hold, or another one. The other one is
// that of an earlier hold if there is one.
func (n *nameModel) drawToken(t *rapid.T) int64 {
	h := n.newest()
	switch which := rapid.SampledFrom([]string{"none", "newest", "other"}).Draw(t, "token"); {
	case which == "none" || h == nil:
		return 0
	case which == "newest":
		return h.hold.Token
	case len(n.grants) > 1:
		return n.grants[len(n.grants)-2].hold.Token
	default:
		return h.hold.Token + 1
	}
}
