package lock_test

import (
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

	history []lock.Event
	steady  bool // the clock never goes back

	accounts map[string]*account
	lowest   int64 // the account's own floor
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
	for _, e := range out.Events {
		if i := slices.IndexFunc(m.history, func(told lock.Event) bool { // I10
			return m.steady && told.Resource == e.Resource && told.At.After(e.At)
		}); i >= 0 {
			t.Fatalf("%+v comes after %+v", e, m.history[i])
		}
		e.ID = int64(len(m.history) + 1)
		m.history = append(m.history, e)
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

// wantChanged compares what a command did: which resources it changed (check compares to what), and all that it told.
func wantChanged(t *rapid.T, out lock.Outcome, want []string, events ...lock.Event) {
	var got []string
	for _, r := range out.Changed {
		got = append(got, r.Name)
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("changed resources (-want +got):\n%s", diff)
	}
	if diff := differ(events, out.Events); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// clock commits the transaction and moves the clock, sometimes back, as the clock of a database server may be set.
func (m *machine) clock(t *rapid.T) {
	for _, name := range someNames {
		r, found := m.states[name]
		switch {
		case found && r.Deleted:
			m.floor = max(m.floor, r.Token)
			delete(m.states, name)
		case found && r.ID == 0:
			m.nextID++
			r.ID = m.nextID
			m.states[name] = r
		}
		m.commit(m.accounts[name])
	}
	back := -2
	if m.steady {
		back = 0
	}
	m.now = m.now.Add(step * time.Duration(rapid.IntRange(back, 6).Draw(t, "clock")))
}

// check compares the states with the account, and with the history, after every command.
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
		if holder := m.accounts[name].holder(m.now); held != (holder != nil) || held && hold != holder.shown() {
			t.Fatalf("%q is held by %+v (%t), want %+v", name, hold, held, holder)
		}
		own := m.accounts[name].owned(m.now, hold.ProcessID)
		if owned := held && hold.Owned(m.now); owned != (own != nil) {
			t.Fatalf("%q is owned by the process of %+v: %t, want %+v", name, hold, owned, own)
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
	m.checkHistory(t)
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			now:      t0,
			steady:   rapid.Bool().Draw(t, "steady"),
			states:   map[string]lock.Resource{},
			accounts: map[string]*account{},
		}
		for _, name := range someNames {
			m.accounts[name] = &account{fresh: true}
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire":       m.acquire,
			"repeat":        m.repeat,
			"release":       m.release,
			"release all":   m.releaseAll,
			"renew":         m.renew,
			"renew all":     m.renewAll,
			"force-release": m.forceRelease,
			"expire":        m.expire,
			"forget":        m.forget,
			"clock":         m.clock,
			"":              m.check,
		})
	})
}
