package lock_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

var (
	someNames     = []string{"a", "b", "c"}
	someProcesses = []string{"p", "q", "r"}
)

// step is the unit of clock and TTLs: coarse, so that a command often comes at the very moment when a hold expires.
const step = 500 * time.Millisecond

// machine plays a store in memory: commands share a transaction until the clock moves. Beside the states that the rules
// made it keeps its own account of what was granted and what ended, written without the rules.
type machine struct {
	now    time.Time
	states map[string]lock.Resource
	floor  int64 // highest token of the forgotten names, as the store keeps it
	nextID int64

	accounts map[string]*account
	lowest   int64 // the account's own floor
}

// account is what the oracle knows of one name.
type account struct {
	grants []grant // all ever made, oldest first; at most the newest is still going on
	row    bool    // the store has a row
	going  bool    // the row is deleted when the transaction commits
	fresh  bool    // nothing was granted since the row was made, or there is none
}

type grant struct {
	hold  lock.Hold
	over  bool
	ended time.Time
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
	return g != nil && !g.over && !g.hold.ExpiresAt.IsZero() && !now.Before(g.hold.ExpiresAt)
}

// holder is who keeps others out.
func (a *account) holder(now time.Time) *lock.Hold {
	g := a.newest()
	if g == nil || g.over || a.expired(now) {
		return nil
	}
	return &g.hold
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
	r := lock.Resource{Name: name, Token: m.lowest, Forgotten: a.going}
	if a.fresh {
		return r
	}
	g := a.newest()
	r.Token = g.hold.Token
	if g.over {
		r.Last, r.EndedAt = g.hold, g.ended
	} else {
		r.Holds = []lock.Hold{g.hold}
	}
	return r
}

// load is what the store hands to a command. Each slice of holds has room behind it, filled with a marker, so that an
// append in place shows.
func (m *machine) load(names []string) []lock.Resource {
	resources := make([]lock.Resource, len(names))
	for i, name := range names {
		r, found := m.states[name]
		if !found {
			r = lock.Resource{Name: name, Token: m.floor}
		}
		r.Holds = roomy(r.Holds)
		resources[i] = r
	}
	return resources
}

func roomy(holds []lock.Hold) []lock.Hold {
	marker := lock.Hold{ProcessID: "room behind the slice"}
	wide := append(slices.Clone(holds), marker, marker)
	return wide[:len(holds)]
}

// whole is a deep copy with the room behind each slice.
func whole(resources []lock.Resource) []lock.Resource {
	copied := slices.Clone(resources)
	for i, r := range resources {
		copied[i].Holds = slices.Clone(r.Holds[:len(r.Holds)+2])
	}
	return copied
}

// run decides a command, twice, and saves what it changed.
func (m *machine) run(t *rapid.T, c lock.Command) (lock.Outcome, error) {
	before := m.load(c.Resources())
	kept := whole(before)
	out, err := c.Decide(m.now, before)
	again, errAgain := c.Decide(m.now, before)
	if diff := differ(kept, whole(before)); diff != "" {
		t.Fatalf("%#v wrote into its input (-before +after):\n%s", c, diff)
	}
	if diff := differ(out, again); diff != "" {
		t.Fatalf("%#v decided twice (-first +second):\n%s", c, diff)
	}
	if diff := differ(err, errAgain); diff != "" {
		t.Fatalf("%#v refused twice (-first +second):\n%s", c, diff)
	}
	if err != nil { // I3
		if diff := differ(lock.Outcome{}, out); diff != "" {
			t.Fatalf("%#v was refused and has an outcome (-want +got):\n%s", c, diff)
		}
		return out, err
	}
	if !out.Now.Equal(m.now) {
		t.Fatalf("%#v: moment %v, want %v", c, out.Now, m.now)
	}
	for _, r := range out.Changed {
		m.states[r.Name] = r
	}
	return out, nil
}

// differ is cmp.Diff, which is slow under the race detector, for what is nearly always equal.
func differ(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

func wantChanged(t *rapid.T, out lock.Outcome, want []string) {
	var got []string
	for _, r := range out.Changed {
		got = append(got, r.Name)
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("changed resources (-want +got):\n%s", diff)
	}
}

func (m *machine) acquire(t *rapid.T) {
	c := lock.Acquire{
		Resource:  rapid.SampledFrom(someNames).Draw(t, "resource"),
		ProcessID: rapid.SampledFrom(someProcesses).Draw(t, "process"),
		TTL:       step * time.Duration(rapid.IntRange(0, 4).Draw(t, "ttl")),
	}
	a := m.accounts[c.Resource]
	out, err := m.run(t, c)
	if holder := a.holder(m.now); holder != nil { // I1
		var held *lock.HeldError
		if !errors.As(err, &held) || held.Resource != c.Resource || held.Holder != *holder {
			t.Fatalf("got %v, want it held by %+v", err, *holder)
		}
		return
	}
	if err != nil {
		t.Fatalf("refused although nobody holds it: %v", err)
	}
	want := lock.Hold{ProcessID: c.ProcessID, Token: m.nextToken(a), LockedAt: m.now}
	if c.TTL > 0 {
		want.ExpiresAt = m.now.Add(c.TTL)
	}
	if diff := differ(want, out.Hold); diff != "" {
		t.Fatalf("hold (-want +got):\n%s", diff)
	}
	for _, earlier := range a.grants { // I2
		if out.Hold.Token <= earlier.hold.Token {
			t.Fatalf("token %d after %d", out.Hold.Token, earlier.hold.Token)
		}
	}
	wantChanged(t, out, []string{c.Resource})
	if a.expired(m.now) {
		a.newest().over = true
	}
	a.grants = append(a.grants, grant{hold: want})
	a.fresh, a.going = false, false
}

func (m *machine) release(t *rapid.T) {
	c := lock.Release{
		Resource:  rapid.SampledFrom(someNames).Draw(t, "resource"),
		ProcessID: rapid.SampledFrom(someProcesses).Draw(t, "process"),
	}
	a := m.accounts[c.Resource]
	out, err := m.run(t, c)
	if holder := a.holder(m.now); holder == nil || holder.ProcessID != c.ProcessID { // I4
		var refusal *lock.NotHeldError
		if !errors.As(err, &refusal) || refusal.Resource != c.Resource || refusal.ProcessID != c.ProcessID {
			t.Fatalf("got %v, want a refusal", err)
		}
		return
	}
	if err != nil || out.Hold != a.newest().hold {
		t.Fatalf("got %+v, %v, want the end of %+v", out.Hold, err, a.newest().hold)
	}
	wantChanged(t, out, []string{c.Resource})
	a.newest().over, a.newest().ended = true, m.now
}

// drawNames returns some names, each once, in any order.
func drawNames(t *rapid.T) []string {
	names := rapid.Permutation(someNames).Draw(t, "names")
	return names[:rapid.IntRange(0, len(names)).Draw(t, "how many")]
}

func (m *machine) expire(t *rapid.T) {
	names := drawNames(t)
	out, err := m.run(t, lock.Expire{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range names {
		if a := m.accounts[name]; a.expired(m.now) {
			want = append(want, name)
			a.newest().over, a.newest().ended = true, a.newest().hold.ExpiresAt
		}
	}
	wantChanged(t, out, want)
}

func (m *machine) forget(t *rapid.T) {
	names := drawNames(t)
	cutoff := m.now.Add(-step * time.Duration(rapid.IntRange(-1, 4).Draw(t, "idle")))
	out, err := m.run(t, lock.Forget{Names: names, Before: cutoff})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range names { // I5
		if a := m.accounts[name]; a.row && a.newest().over && a.newest().ended.Before(cutoff) {
			want = append(want, name)
			a.going = true
		}
	}
	wantChanged(t, out, want)
}

// clock commits the transaction and moves the clock, sometimes back, as the clock of a database server may be set.
func (m *machine) clock(t *rapid.T) {
	for _, name := range someNames {
		r, found := m.states[name]
		switch {
		case found && r.Forgotten:
			m.floor = max(m.floor, r.Token)
			delete(m.states, name)
		case found && r.ID == 0:
			m.nextID++
			r.ID = m.nextID
			m.states[name] = r
		}
		a := m.accounts[name]
		if a.going {
			m.lowest = max(m.lowest, a.newest().hold.Token)
			*a = account{grants: a.grants, fresh: true}
		}
		a.row = !a.fresh
	}
	m.now = m.now.Add(step * time.Duration(rapid.IntRange(-2, 6).Draw(t, "clock")))
}

// check compares the states with the account after every command.
func (m *machine) check(t *rapid.T) {
	for _, name := range someNames {
		got := m.load([]string{name})[0]
		live := 0
		for _, h := range got.Holds {
			if h.Live(m.now) {
				live++
			}
		}
		if live > 1 { // I1
			t.Fatalf("%d live holds of %q: %+v", live, name, got.Holds)
		}
		hold, held := got.Holder(m.now)
		if holder := m.accounts[name].holder(m.now); held != (holder != nil) || held && hold != *holder {
			t.Fatalf("%q is held by %+v (%t), want %+v", name, hold, held, holder)
		}
		want := m.state(name)
		if (got.ID != 0) != m.accounts[name].row {
			t.Fatalf("%q has the id %d, want a row: %t", name, got.ID, m.accounts[name].row)
		}
		want.ID = got.ID
		want.Holds = roomy(want.Holds) // an empty slice and none are the same
		if diff := differ(want, got); diff != "" {
			t.Fatalf("state of %q (-want +got):\n%s", name, diff)
		}
	}
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			now:      t0,
			states:   map[string]lock.Resource{},
			accounts: map[string]*account{},
		}
		for _, name := range someNames {
			m.accounts[name] = &account{fresh: true}
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": m.acquire,
			"release": m.release,
			"expire":  m.expire,
			"forget":  m.forget,
			"clock":   m.clock,
			"":        m.check,
		})
	})
}
