package lock_test

import (
	"errors"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// drawName returns a name, and drawProcess a process.
func drawName(t *rapid.T) string    { return rapid.SampledFrom(someNames).Draw(t, "resource") }
func drawProcess(t *rapid.T) string { return rapid.SampledFrom(someProcesses).Draw(t, "process") }

// drawTTL returns a TTL of some steps.
func drawTTL(t *rapid.T, least int) time.Duration {
	return step * time.Duration(rapid.IntRange(least, 4).Draw(t, "ttl"))
}

// drawNames returns some names, each once, in any order.
func drawNames(t *rapid.T) []string {
	names := rapid.Permutation(someNames).Draw(t, "names")
	return names[:rapid.IntRange(0, len(names)).Draw(t, "how many")]
}

// drawAcquire returns a sound request: with a TTL the minimum is no longer than that.
func drawAcquire(t *rapid.T) lock.Acquire {
	c := lock.Acquire{Request: lock.Request{
		Resource: drawName(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 0), RequestID: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "request"), Reason: rapid.SampledFrom([]string{"", "because"}).Draw(t, "reason"), Metadata: rapid.SampledFrom([]string{"", "{}"}).Draw(t, "metadata"),
	}}
	longest := 4
	if c.TTL > 0 {
		longest = int(c.TTL / step)
	}
	c.MinHold = step * time.Duration(rapid.IntRange(0, longest).Draw(t, "minimum"))
	return c
}

func (m *machine) acquire(t *rapid.T) { m.ask(t, drawAcquire(t)) }

// repeat asks again for what the newest grant was for, perhaps with another TTL or reason.
func (m *machine) repeat(t *rapid.T) {
	c := drawAcquire(t)
	if g := m.accounts[c.Resource].newest(); g != nil {
		c.ProcessID, c.RequestID = g.hold.ProcessID, g.hold.RequestID
	}
	m.ask(t, c)
}

func (m *machine) ask(t *rapid.T, c lock.Acquire) {
	a := m.accounts[c.Resource]
	out, err := m.run(t, c)
	if holder := a.holder(m.now); holder != nil { // I1
		if own := a.owned(m.now, c.ProcessID); own != nil && c.RequestID != "" && c.RequestID == own.hold.RequestID {
			if err != nil || out.Hold != own.shown() {
				t.Fatalf("got %+v, %v, want the hold that it has: %+v", out.Hold, err, own.shown())
			}
			wantChanged(t, out, []string{c.Resource}) // to the same: check compares it
			return
		}
		var held *lock.HeldError
		if !errors.As(err, &held) || held.Resource != c.Resource || held.Holder != holder.shown() || !held.Now.Equal(m.now) {
			t.Fatalf("got %v, want it held by %+v", err, holder.shown())
		}
		return
	}
	if err != nil {
		t.Fatalf("refused although nobody holds it: %v", err)
	}
	want := lock.Hold{
		ProcessID: c.ProcessID, Token: m.nextToken(a), LockedAt: m.now,
		RequestID: c.RequestID, Reason: c.Reason, Metadata: c.Metadata,
	}
	if c.TTL > 0 {
		want.ExpiresAt = m.now.Add(c.TTL)
	}
	if c.MinHold > 0 {
		want.MinHoldUntil = m.now.Add(c.MinHold)
	}
	if diff := differ(want, out.Hold); diff != "" {
		t.Fatalf("hold (-want +got):\n%s", diff)
	}
	for _, earlier := range a.grants { // I2
		if out.Hold.Token <= earlier.hold.Token {
			t.Fatalf("token %d after %d", out.Hold.Token, earlier.hold.Token)
		}
		if m.steady && !earlier.broken && m.now.Before(earlier.hold.MinHoldUntil) { // I6
			t.Fatalf("granted within the minimum of %+v", earlier.hold)
		}
	}
	var events []lock.Event
	if a.expired(m.now) {
		events = a.expire(c.Resource)
	}
	a.grants = append(a.grants, grant{hold: want})
	a.fresh, a.going = false, false
	acquired := a.newest().event(lock.EventAcquired, c.Resource, m.now)
	acquired.Reason = c.Reason
	wantChanged(t, out, []string{c.Resource}, append(events, acquired)...)
}

// mayChange returns the grant that a release or a renewal is about. If there is none it wants the refusal.
func (m *machine) mayChange(t *rapid.T, resource, process string, token int64, err error) *grant {
	own := m.accounts[resource].owned(m.now, process)
	why := m.accounts[resource].why(m.now, process, token)
	if own != nil && token != 0 && token != own.hold.Token {
		own, why = nil, lock.ReasonTokenMismatch
	}
	if own != nil { // I4
		if err != nil {
			t.Fatalf("refused to the holder: %v", err)
		}
		return own
	}
	var refusal *lock.NotHeldError
	if !errors.As(err, &refusal) || *refusal != (lock.NotHeldError{Resource: resource, ProcessID: process, Why: why}) {
		t.Fatalf("got %v, want a refusal because of %d", err, why)
	}
	return nil
}

func (m *machine) release(t *rapid.T) {
	c := lock.Release{Resource: drawName(t), ProcessID: drawProcess(t)}
	a := m.accounts[c.Resource]
	c.Token = a.drawToken(t)
	out, err := m.run(t, c)
	if own := m.mayChange(t, c.Resource, c.ProcessID, c.Token, err); own != nil {
		wantChanged(t, out, []string{c.Resource}, a.release(c.Resource, m.now))
		wantHold(t, own.shown(), out)
	}
}

func (m *machine) renew(t *rapid.T) {
	c := lock.Renew{Resource: drawName(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 0)}
	a := m.accounts[c.Resource]
	c.Token = a.drawToken(t)
	out, err := m.run(t, c)
	if own := m.mayChange(t, c.Resource, c.ProcessID, c.Token, err); own != nil {
		a.renew(m.now, c.TTL)
		wantChanged(t, out, []string{c.Resource})
		wantHold(t, own.shown(), out)
	}
}

func wantHold(t *rapid.T, want lock.Hold, out lock.Outcome) {
	if diff := differ(want, out.Hold); diff != "" {
		t.Fatalf("hold (-want +got):\n%s", diff)
	}
}

func (m *machine) forceRelease(t *rapid.T) {
	c := lock.ForceRelease{Resource: drawName(t), Reason: "it hangs", By: rapid.SampledFrom([]string{"", "ops"}).Draw(t, "by")}
	c.Token = m.accounts[c.Resource].drawToken(t)
	g := m.accounts[c.Resource].holder(m.now)
	out, err := m.run(t, c)
	if g == nil {
		var refusal *lock.NotLockedError
		if !errors.As(err, &refusal) || refusal.Resource != c.Resource {
			t.Fatalf("got %v, want a refusal: nobody holds it", err)
		}
		return
	}
	if c.Token != 0 && c.Token != g.hold.Token {
		var refusal *lock.OtherHoldError
		if !errors.As(err, &refusal) || *refusal != (lock.OtherHoldError{Resource: c.Resource, Holder: g.shown()}) {
			t.Fatalf("got %v, want a refusal: the token is not that of %+v", err, g.shown())
		}
		return
	}
	if err != nil {
		t.Fatalf("refused although somebody holds it: %v", err)
	}
	g.over, g.ended, g.broken = true, m.now, true
	broken := g.event(lock.EventForceReleased, c.Resource, m.now)
	broken.Reason, broken.By = c.Reason, c.By
	wantChanged(t, out, []string{c.Resource}, broken)
	wantHold(t, g.shown(), out)
}

// drawOnly is no list, or one of some holds that there are and some that there are not.
func (m *machine) drawOnly(t *rapid.T) lock.Only {
	if rapid.Bool().Draw(t, "no list") {
		return nil
	}
	only := lock.Only{}
	for _, name := range drawNames(t) {
		only[lock.HoldRef{Resource: name, Token: m.accounts[name].drawToken(t)}] = true
	}
	return only
}

// chosen reports whether a command for all holds of a process is about its hold of the name.
func (m *machine) chosen(name, process string, only lock.Only) bool {
	own := m.accounts[name].owned(m.now, process)
	return own != nil && (only == nil || only[lock.HoldRef{Resource: name, Token: own.hold.Token}])
}

func (m *machine) renewAll(t *rapid.T) {
	c := lock.RenewAll{Names: drawNames(t), ProcessID: drawProcess(t), TTL: drawTTL(t, 1), Only: m.drawOnly(t)}
	out := m.accept(t, c)
	var want []string
	var endless []lock.HoldRef
	for _, name := range c.Names {
		if a := m.accounts[name]; !m.chosen(name, c.ProcessID, c.Only) {
			continue
		} else if h := a.newest().hold; h.ExpiresAt.IsZero() {
			endless = append(endless, lock.HoldRef{Resource: name, Token: h.Token})
		} else {
			a.renew(m.now, c.TTL)
			want = append(want, name)
		}
	}
	wantChanged(t, out, want)
	if diff := differ(endless, out.Endless); diff != "" {
		t.Fatalf("without expiry (-want +got):\n%s", diff)
	}
}

func (m *machine) releaseAll(t *rapid.T) {
	c := lock.ReleaseAll{Names: drawNames(t), ProcessID: drawProcess(t), Only: m.drawOnly(t)}
	out := m.accept(t, c)
	var want []string
	var events []lock.Event
	for _, name := range c.Names {
		if m.chosen(name, c.ProcessID, c.Only) {
			events = append(events, m.accounts[name].release(name, m.now))
			want = append(want, name)
		}
	}
	wantChanged(t, out, want, events...)
}

func (m *machine) expire(t *rapid.T) {
	names := drawNames(t)
	out := m.accept(t, lock.ExpireAndGrant{Names: names})
	var want []string
	var events []lock.Event
	for _, name := range names {
		if a := m.accounts[name]; a.expired(m.now) {
			events = append(events, a.expire(name)...)
			want = append(want, name)
		}
	}
	wantChanged(t, out, want, events...)
}

func (m *machine) forget(t *rapid.T) {
	names := drawNames(t)
	cutoff := m.now.Add(-step * time.Duration(rapid.IntRange(-1, 4).Draw(t, "idle")))
	out := m.accept(t, lock.DeleteIdle{Names: names, Before: cutoff})
	var want []string
	for _, name := range names { // I5
		if a := m.accounts[name]; a.row && a.newest().over && a.newest().ended.Before(cutoff) {
			want = append(want, name)
			a.going = true
		}
	}
	wantChanged(t, out, want)
}

// accept runs a command that is never refused and is about no hold in particular.
func (m *machine) accept(t *rapid.T, c lock.Command) lock.Outcome {
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	wantHold(t, lock.Hold{}, out)
	return out
}
