package lock_test

import (
	"errors"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

func drawName(t *rapid.T) string    { return rapid.SampledFrom(someNames).Draw(t, "resource") }
func drawProcess(t *rapid.T) string { return rapid.SampledFrom(someProcesses).Draw(t, "process") }

// drawTTL returns a TTL of least to 4 steps.
func drawTTL(t *rapid.T, least int) time.Duration {
	return step * time.Duration(rapid.IntRange(least, 4).Draw(t, "ttl"))
}

// drawNames returns some names, each once, in any order.
func drawNames(t *rapid.T) []string {
	names := rapid.Permutation(someNames).Draw(t, "names")
	return names[:rapid.IntRange(0, len(names)).Draw(t, "number of names")]
}

// drawAcquire returns a valid request: its minimum is at most its TTL.
func drawAcquire(t *rapid.T) lock.Acquire {
	c := lock.Acquire{Request: lock.Request{
		Resource: drawName(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 0),
		RequestID: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "request"),
		Reason:    rapid.SampledFrom([]string{"", "because"}).Draw(t, "reason"),
		Metadata:  rapid.SampledFrom([]string{"", "{}"}).Draw(t, "metadata"),
	}}
	longest := 4
	if c.TTL > 0 {
		longest = int(c.TTL / step)
	}
	c.MinHold = step * time.Duration(rapid.IntRange(0, longest).Draw(t, "minimum"))
	return c
}

func (m *machine) acquire(t *rapid.T) { m.decideAcquire(t, drawAcquire(t)) }

// repeat retries the request of the newest hold, perhaps with another TTL or reason.
func (m *machine) repeat(t *rapid.T) {
	c := drawAcquire(t)
	if h := m.models[c.Resource].newest(); h != nil {
		c.ProcessID, c.RequestID = h.hold.ProcessID, h.hold.RequestID
	}
	m.decideAcquire(t, c)
}

func (m *machine) decideAcquire(t *rapid.T, c lock.Acquire) {
	n := m.models[c.Resource]
	out, err := m.run(t, c)
	if holder := n.holder(m.now); holder != nil { // I1
		if own := n.owned(m.now, c.ProcessID); own != nil && c.RequestID != "" && c.RequestID == own.hold.RequestID {
			if err != nil || out.Hold != own.state() {
				t.Fatalf("got %+v, %v, want the hold that it has: %+v", out.Hold, err, own.state())
			}
			wantChanged(t, out, nil) // there is nothing to store
			return
		}
		var held *lock.HeldError
		if !errors.As(err, &held) || held.Resource != c.Resource || held.Kind != lock.Held ||
			held.Holder == nil || *held.Holder != holder.state() || !held.Now.Equal(m.now) {
			t.Fatalf("got %v, want it held by %+v", err, holder.state())
		}
		return
	}
	if err != nil {
		t.Fatalf("refused although the resource is free: %v", err)
	}
	want := lock.Hold{
		ProcessID: c.ProcessID, Token: m.nextToken(n), LockedAt: m.now,
		RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		want.ExpiresAt = m.now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		want.MinHoldUntil = m.now.Add(c.MinHold)
	}
	wantHold(t, want, out)
	for _, earlier := range n.grants { // I2
		if out.Hold.Token <= earlier.hold.Token {
			t.Fatalf("token %d after %d", out.Hold.Token, earlier.hold.Token)
		}
		if m.steady && !earlier.forced && m.now.Before(earlier.hold.MinHoldUntil) { // I6
			t.Fatalf("granted within the minimum of %+v", earlier.hold)
		}
	}
	var events []lock.Event
	if n.expired(m.now) {
		events = n.expire(c.Resource)
	}
	n.grants = append(n.grants, modelHold{hold: want})
	n.unused, n.deleting = false, false
	acquired := n.newest().event(lock.EventAcquired, c.Resource, m.now)
	acquired.Reason = c.Reason
	wantChanged(t, out, []string{c.Resource}, append(events, acquired)...)
}

// wantOwned returns the hold that a release or a renewal is about. If there is none, it
// checks the refusal and returns nil.
func (m *machine) wantOwned(t *rapid.T, resource, process string, token int64, err error) *modelHold {
	own := m.models[resource].owned(m.now, process)
	reason := m.models[resource].reason(m.now, process, token)
	if own != nil && token != 0 && token != own.hold.Token {
		own, reason = nil, lock.ReasonTokenMismatch
	}
	if own != nil { // I4
		if err != nil {
			t.Fatalf("refused although the process holds the resource: %v", err)
		}
		return own
	}
	var refusal *lock.NotHeldError
	want := lock.NotHeldError{Resource: resource, ProcessID: process, Reason: reason}
	if !errors.As(err, &refusal) || *refusal != want {
		t.Fatalf("got %v, want a refusal with the reason %d", err, reason)
	}
	return nil
}

func (m *machine) release(t *rapid.T) {
	c := lock.Release{Resource: drawName(t), ProcessID: drawProcess(t)}
	n := m.models[c.Resource]
	c.Token = n.drawToken(t)
	out, err := m.run(t, c)
	if own := m.wantOwned(t, c.Resource, c.ProcessID, c.Token, err); own != nil {
		wantChanged(t, out, []string{c.Resource}, n.release(c.Resource, m.now))
		wantHold(t, own.state(), out)
	}
}

func (m *machine) renew(t *rapid.T) {
	c := lock.Renew{Resource: drawName(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 0)}
	n := m.models[c.Resource]
	c.Token = n.drawToken(t)
	out, err := m.run(t, c)
	if own := m.wantOwned(t, c.Resource, c.ProcessID, c.Token, err); own != nil {
		n.renew(m.now, c.TTL)
		wantChanged(t, out, []string{c.Resource})
		wantHold(t, own.state(), out)
	}
}

func wantHold(t *rapid.T, want lock.Hold, out lock.Outcome) {
	if diff := differ(want, out.Hold); diff != "" {
		t.Fatalf("hold (-want +got):\n%s", diff)
	}
}

func wantHoldRefs(t *rapid.T, what string, want, got []lock.HoldRef) {
	if diff := differ(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func (m *machine) forceRelease(t *rapid.T) {
	c := lock.ForceRelease{
		Resource: drawName(t), Reason: "it hangs", By: rapid.SampledFrom([]string{"", "ops"}).Draw(t, "by"),
	}
	c.Token = m.models[c.Resource].drawToken(t)
	h := m.models[c.Resource].holder(m.now)
	out, err := m.run(t, c)
	if h == nil {
		var refusal *lock.NotLockedError
		if !errors.As(err, &refusal) || refusal.Resource != c.Resource {
			t.Fatalf("got %v, want a refusal because the resource is free", err)
		}
		return
	}
	if c.Token != 0 && c.Token != h.hold.Token {
		var refusal *lock.OtherHoldError
		if !errors.As(err, &refusal) || *refusal != (lock.OtherHoldError{Resource: c.Resource, Holder: h.state()}) {
			t.Fatalf("got %v, want a refusal because the token is not that of %+v", err, h.state())
		}
		return
	}
	if err != nil {
		t.Fatalf("refused although the resource is held: %v", err)
	}
	h.ended, h.endedAt, h.forced = true, m.now, true
	event := h.event(lock.EventForceReleased, c.Resource, m.now)
	event.Reason, event.By = c.Reason, c.By
	wantChanged(t, out, []string{c.Resource}, event)
	wantHold(t, h.state(), out)
}

// drawOnly returns no list, or a list of some holds that exist and some that do not.
func (m *machine) drawOnly(t *rapid.T) lock.Only {
	if rapid.Bool().Draw(t, "no list") {
		return nil
	}
	only := lock.Only{}
	for _, name := range drawNames(t) {
		only[lock.HoldRef{Resource: name, Token: m.models[name].drawToken(t)}] = true
	}
	return only
}

// selects reports whether a command for all holds of a process is about its hold of the
// name.
func (m *machine) selects(name, process string, only lock.Only) bool {
	own := m.models[name].owned(m.now, process)
	return own != nil && (only == nil || only[lock.HoldRef{Resource: name, Token: own.hold.Token}])
}

func (m *machine) renewAll(t *rapid.T) {
	c := lock.RenewAll{Names: drawNames(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 1), Only: m.drawOnly(t)}
	out := m.accept(t, c)
	var changed []string
	var holds, endless []lock.HoldRef
	for _, name := range c.Names {
		n := m.models[name]
		if !m.selects(name, c.ProcessID, c.Only) {
			continue
		}
		ref := lock.HoldRef{Resource: name, Token: n.newest().hold.Token}
		if n.newest().hold.ExpiresAt.IsZero() {
			endless = append(endless, ref)
			continue
		}
		n.renew(m.now, c.TTL)
		changed, holds = append(changed, name), append(holds, ref)
	}
	wantChanged(t, out, changed)
	wantHoldRefs(t, "renewed", holds, out.Holds)
	wantHoldRefs(t, "without expiry", endless, out.Endless)
}

func (m *machine) releaseAll(t *rapid.T) {
	c := lock.ReleaseAll{Names: drawNames(t), ProcessID: drawProcess(t), Only: m.drawOnly(t)}
	out := m.accept(t, c)
	var changed []string
	var events []lock.Event
	var holds []lock.HoldRef
	for _, name := range c.Names {
		n := m.models[name]
		if !m.selects(name, c.ProcessID, c.Only) {
			continue
		}
		holds = append(holds, lock.HoldRef{Resource: name, Token: n.newest().hold.Token})
		events = append(events, n.release(name, m.now))
		changed = append(changed, name)
	}
	wantChanged(t, out, changed, events...)
	wantHoldRefs(t, "released", holds, out.Holds)
}

func (m *machine) expire(t *rapid.T) {
	names := drawNames(t)
	out := m.accept(t, lock.ExpireAndGrant{Names: names})
	var changed []string
	var events []lock.Event
	for _, name := range names {
		if n := m.models[name]; n.expired(m.now) {
			events = append(events, n.expire(name)...)
			changed = append(changed, name)
		}
	}
	wantChanged(t, out, changed, events...)
}

func (m *machine) deleteIdle(t *rapid.T) {
	names := drawNames(t)
	cutoff := m.now.Add(-step * time.Duration(rapid.IntRange(-1, 4).Draw(t, "idle")))
	out := m.accept(t, lock.DeleteIdle{Names: names, Before: cutoff})
	var changed []string
	for _, name := range names { // I5
		if n := m.models[name]; n.stored && !n.deleting && n.newest().ended && n.newest().endedAt.Before(cutoff) {
			changed = append(changed, name)
			n.deleting = true
		}
	}
	wantChanged(t, out, changed)
	if out.Deleted != len(changed) {
		t.Fatalf("%d deleted, want %d", out.Deleted, len(changed))
	}
}

// accept runs a command that is never refused and is about no particular hold.
func (m *machine) accept(t *rapid.T, c lock.Command) lock.Outcome {
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	wantHold(t, lock.Hold{}, out)
	return out
}
