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

// step is the unit of the clock and of TTLs. It is long, so that a command often comes
// exactly when a hold expires.
const step = 500 * time.Millisecond

// machine is a store in memory. Commands share a transaction until the clock moves.
// Beside the states that the rules decided it keeps a model of each name, which does not
// use the rules.
type machine struct {
	now    time.Time
	states map[string]lock.Resource
	floor  int64 // the highest token of the deleted names, as the store keeps it
	nextID int64

	history []lock.Event
	steady  bool // the clock is never set back

	models     map[string]*nameModel
	modelFloor int64
}

// load returns what the store gives to a command. Behind each slice of holds there are
// two markers, so that an append in place is detected.
func (m *machine) load(names []string) []lock.Resource {
	resources := make([]lock.Resource, len(names))
	for i, name := range names {
		r, found := m.states[name]
		if !found {
			r = lock.Resource{Name: name, Token: m.floor}
		}
		r.Holds = withMarkers(r.Holds)
		resources[i] = r
	}
	return resources
}

func withMarkers(holds []lock.Hold) []lock.Hold {
	marker := lock.Hold{ProcessID: "behind the slice"}
	longer := append(slices.Clone(holds), marker, marker)
	return longer[:len(holds)]
}

// copyWithMarkers returns a deep copy that includes the markers.
func copyWithMarkers(resources []lock.Resource) []lock.Resource {
	copied := slices.Clone(resources)
	for i, r := range resources {
		copied[i].Holds = slices.Clone(r.Holds[:len(r.Holds)+2])
	}
	return copied
}

// run decides a command twice and stores what it changed.
func (m *machine) run(t *rapid.T, c lock.Command) (lock.Outcome, error) {
	before := m.load(c.Needs().Resources)
	kept := copyWithMarkers(before)
	out, err := c.Decide(m.now, before)
	again, errAgain := c.Decide(m.now, before)
	if diff := differ(kept, copyWithMarkers(before)); diff != "" {
		t.Fatalf("%#v wrote into its input (-before +after):\n%s", c, diff)
	}
	if diff := differ(out, again); diff != "" {
		t.Fatalf("%#v decided twice (-first +second):\n%s", c, diff)
	}
	if diff := differ(err, errAgain); diff != "" {
		t.Fatalf("%#v refused twice (-first +second):\n%s", c, diff)
	}
	checkChanges(t, c, before, out, err)
	if err != nil {
		return out, err
	}
	if !out.Now.Equal(m.now) {
		t.Fatalf("%#v: time %v, want %v", c, out.Now, m.now)
	}
	for _, r := range out.Changed {
		m.states[r.Name] = r
	}
	for _, e := range out.Events {
		if i := slices.IndexFunc(m.history, func(earlier lock.Event) bool { // I10
			return m.steady && earlier.Resource == e.Resource && earlier.At.After(e.At)
		}); i >= 0 {
			t.Fatalf("%+v was recorded after %+v", e, m.history[i])
		}
		e.ID = int64(len(m.history) + 1)
		m.history = append(m.history, e)
	}
	return out, nil
}

// checkChanges checks which states an outcome contains: only those that changed, and as
// the result of a command on one resource the state after the command.
func checkChanges(t *rapid.T, c lock.Command, before []lock.Resource, out lock.Outcome, err error) {
	if err != nil { // I3
		if diff := differ(lock.Outcome{}, out); diff != "" {
			t.Fatalf("%#v was refused and has an outcome (-want +got):\n%s", c, diff)
		}
		return
	}
	names := c.Needs().Resources
	changed := map[string]bool{}
	for _, r := range out.Changed {
		i := slices.Index(names, r.Name)
		if i < 0 || changed[r.Name] {
			t.Fatalf("%#v changed %q, want each resource at most once, and of %q", c, r.Name, names)
		}
		changed[r.Name] = true
		if reflect.DeepEqual(before[i], r) {
			t.Fatalf("%#v: Changed contains %+v, which is unchanged", c, r)
		}
	}
	switch c.(type) {
	case lock.Acquire, lock.TimeOut, lock.Disconnect, lock.DropOrphan, lock.Release, lock.Renew, lock.ForceRelease:
		want := before[0]
		if len(out.Changed) > 0 {
			want = out.Changed[0]
		}
		if diff := differ(want, out.Resource); diff != "" {
			t.Fatalf("%#v: state after it (-want +got):\n%s", c, diff)
		}
	}
}

// differ is cmp.Diff for values that are nearly always equal. cmp.Diff is slow under the
// race detector.
func differ(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// wantChanged compares which resources a command changed and all its events. The new
// states are compared by check.
func wantChanged(t *rapid.T, out lock.Outcome, want []string, events ...lock.Event) {
	if diff := differ(want, namesOf(out.Changed)); diff != "" {
		t.Fatalf("changed resources (-want +got):\n%s", diff)
	}
	if diff := differ(events, out.Events); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// clock commits the transaction and moves the clock. It sometimes sets the clock back,
// which an operator of a database server may do.
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
		m.commit(m.models[name])
	}
	back := -2
	if m.steady {
		back = 0
	}
	m.now = m.now.Add(step * time.Duration(rapid.IntRange(back, 6).Draw(t, "clock")))
}

// check compares the states with the models and with the history after every command.
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
		model := m.models[name]
		hold, held := got.Holder(m.now)
		if holder := model.holder(m.now); held != (holder != nil) || held && hold != holder.state() {
			t.Fatalf("%q is held by %+v (%t), want %+v", name, hold, held, holder)
		}
		own := model.owned(m.now, hold.ProcessID)
		if owned := held && hold.Owned(m.now); owned != (own != nil) {
			t.Fatalf("%q is owned by the process of %+v: %t, want %+v", name, hold, owned, own)
		}
		want := m.state(name)
		if (got.ID != 0) != model.stored {
			t.Fatalf("%q has the id %d, want a row: %t", name, got.ID, model.stored)
		}
		want.ID = got.ID
		want.Holds = withMarkers(want.Holds) // an empty slice equals nil
		if diff := differ(want, got); diff != "" {
			t.Fatalf("state of %q (-want +got):\n%s", name, diff)
		}
	}
	m.checkHistory(t)
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			now:    t0,
			steady: rapid.Bool().Draw(t, "steady"),
			states: map[string]lock.Resource{},
			models: map[string]*nameModel{},
		}
		for _, name := range someNames {
			m.models[name] = &nameModel{unused: true}
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
			"delete":        m.deleteIdle,
			"clock":         m.clock,
			"":              m.check,
		})
	})
}
