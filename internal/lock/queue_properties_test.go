package lock_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/lock"
)

// queueMachine runs commands of three servers on a database in memory, and keeps its own account of who waits.
type queueMachine struct {
	*database
	now   time.Time
	at    int // the server that decides
	lines map[string]*line
	last  int64 // connection

	displaced []lock.Acquire       // requests whose place a later one has taken
	told      map[string]time.Time // the moment of each resource's newest event
}

var someResources = []string{"r", "s"}

// queueLimit is small, so that queues are full now and then.
const queueLimit = 5

// run decides a command on a server, on states whose slices have room behind them, and keeps what it changed. Nobody may be
// granted what somebody who is there has waited for longer, unless that one has just left.
func (m *queueMachine) run(t *rapid.T, c lock.Command) (lock.Outcome, error) {
	var before []lock.Resource
	for _, name := range c.Resources() {
		before = append(before, m.load(name, m.at))
	}
	out, err := c.Decide(m.now, before)
	again, errAgain := c.Decide(m.now, before)
	if diff := differ(out, again) + differ(err, errAgain); diff != "" {
		t.Fatalf("%#v decided twice (-first +second):\n%s", c, diff)
	}
	for i, name := range c.Resources() {
		if diff := differ(m.load(name, m.at), before[i]); diff != "" {
			t.Fatalf("%#v wrote into its input (-before +after):\n%s", c, diff)
		}
	}
	if err != nil && differ(lock.Outcome{}, out) != "" {
		t.Fatalf("%#v was refused and has an outcome: %+v", c, out)
	}
	for _, g := range out.Granted {
		i := slices.Index(c.Resources(), g.To.Resource)
		m.wantNobodyOvertaken(t, c, before[i], g.To)
		m.wantConnectedHere(t, c, before[i], g.To)
	}
	if c, acquires := c.(lock.Acquire); acquires && out.Hold.LockedAt.Equal(m.now) && out.Hold.Token > before[0].Token {
		m.wantNobodyOvertaken(t, c, before[0], c)
	}
	for _, e := range out.Events { // I10
		if e.At.Before(m.told[e.Resource]) || e.At.After(m.now) {
			t.Fatalf("%#v at %v, after an event at %v: %+v", c, m.now, m.told[e.Resource], e)
		}
		m.told[e.Resource] = e.At
	}
	for _, r := range out.Changed {
		i := slices.Index(c.Resources(), r.Name)
		m.save(r, before[i].Queue, m.at)
	}
	return out, err
}

// wantNobodyOvertaken looks at the queue as it was, without the oracle.
func (m *queueMachine) wantNobodyOvertaken(t *rapid.T, c lock.Command, before lock.Resource, granted lock.Acquire) {
	for _, w := range before.Queue {
		who := w.Request
		if who.ProcessID == granted.ProcessID && who.RequestID == granted.RequestID {
			return // those behind it came later
		}
		leave, leaves := c.(lock.Leave)
		left := leaves && who.ProcessID == leave.Request.ProcessID && who.RequestID == leave.Request.RequestID
		if w.DetachedUntil.IsZero() && (w.Local || w.AliveUntil.After(m.now)) && !left {
			t.Fatalf("%#v: %q was granted %q before %q, who waits with the ticket %d", c, granted.ProcessID, before.Name, who.ProcessID, w.Ticket)
		}
	}
}

// wantConnectedHere: what is handed over goes to one who is there, and whom this server can tell.
func (m *queueMachine) wantConnectedHere(t *rapid.T, c lock.Command, before lock.Resource, granted lock.Acquire) {
	if ask, acquires := c.(lock.Acquire); acquires && ask == granted {
		return
	}
	for _, w := range before.Queue {
		if w.Request == granted && w.Local && w.DetachedUntil.IsZero() {
			return
		}
	}
	t.Fatalf("%#v: handed over to %+v, which is not connected here", c, granted)
}

// want compares what a command told and granted with the account.
func (m *queueMachine) want(t *rapid.T, c lock.Command, out lock.Outcome) {
	var told, toldWant, handed, handedWant []string
	for _, name := range c.Resources() {
		l := m.lines[name]
		toldWant, handedWant = append(toldWant, l.told...), append(handedWant, l.handed...)
		l.told, l.handed = nil, nil
	}
	for _, e := range out.Events {
		told = append(told, fmt.Sprintf("%s %s %s", e.Resource, e.Kind, e.ProcessID))
	}
	for _, g := range out.Granted {
		handed = append(handed, g.To.ProcessID)
	}
	if diff := differ(toldWant, told); diff != "" {
		t.Fatalf("%#v: events (-want +got):\n%s", c, diff)
	}
	if diff := differ(handedWant, handed); diff != "" {
		t.Fatalf("%#v: handed over (-want +got):\n%s", c, diff)
	}
}

func (m *queueMachine) line(t *rapid.T) *line {
	m.at = rapid.IntRange(1, 3).Draw(t, "server")
	return m.lines[rapid.SampledFrom(someResources).Draw(t, "resource")]
}

// drawPerson is somebody with a place, nil if there is none.
func drawPerson(t *rapid.T, l *line) *person {
	if len(l.people) == 0 {
		return nil
	}
	return rapid.SampledFrom(l.people).Draw(t, "person")
}

// come is a request, perhaps of somebody who has a place or the hold already.
func (m *queueMachine) come(t *rapid.T) {
	l := m.line(t)
	ask := lock.Acquire{Request: lock.Request{
		Resource: l.name, ProcessID: drawProcess(t), RequestID: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "request"), TTL: drawTTL(t, 0),
	}, QueueLimit: queueLimit}
	if ask.TTL > 0 {
		ask.MinHold = step * time.Duration(rapid.IntRange(0, int(ask.TTL/step)).Draw(t, "minimum"))
	}
	if rapid.IntRange(0, 3).Draw(t, "waits") > 0 {
		m.last++
		ask.Wait, ask.Connection = time.Minute, m.last
	} else if rapid.Bool().Draw(t, "nameless") {
		ask.RequestID = ""
	}
	ask.Named = ask.RequestID != ""
	m.ask(t, l, ask)
}

// again is a request that waits, or whose place a later one has taken, and that has to ask again.
func (m *queueMachine) again(t *rapid.T) {
	if len(m.displaced) > 0 && rapid.Bool().Draw(t, "displaced") {
		ask := rapid.SampledFrom(m.displaced).Draw(t, "request")
		m.at = rapid.IntRange(1, 3).Draw(t, "server")
		ask.Requeued = true
		out, err := m.run(t, ask)
		var refusal *lock.HeldError
		superseded := errors.As(err, &refusal) && refusal.Superseded
		if !superseded && !errors.As(err, new(*lock.PlaceLostError)) {
			t.Fatalf("%#v: got %+v, %v, although a later request took its place", ask, out, err)
		}
		return
	}
	l := m.line(t)
	if p := drawPerson(t, l); p != nil {
		ask := p.ask
		ask.Requeued = true
		m.at = p.server
		if !p.back.IsZero() || rapid.IntRange(0, 3).Draw(t, "superseded") == 0 {
			m.last++
			ask.Connection = m.last
		}
		m.ask(t, l, ask)
	}
}

func (m *queueMachine) ask(t *rapid.T, l *line, ask lock.Acquire) {
	out, err := m.run(t, ask)
	h := l.holder
	if h.live(m.now) && !h.released && ask.RequestID != "" && h.process == ask.ProcessID && h.request == ask.RequestID {
		if ask.Requeued && h.connection != ask.Connection {
			m.wantRefused(t, l, ask, true, err)
			return
		}
		if out.Repeated != (h.connection != ask.Connection) {
			t.Fatalf("%#v: repeated %t, the hold's connection is %d", ask, out.Repeated, h.connection)
		}
		if err != nil || out.Hold.Token != h.token {
			t.Fatalf("%#v: got %+v, %v, want the hold that it has: %+v", ask, out.Hold, err, h)
		}
		if h.connection != ask.Connection {
			h.connection = 0
		}
		m.want(t, ask, out)
		return
	}
	p := l.person(ask.ProcessID, ask.RequestID)
	late := p != nil && !p.back.IsZero() && !p.back.After(m.now)
	waiting := len(l.people)
	if late {
		waiting--
	}
	first := m.turn(l)
	superseded := ask.Requeued && p != nil && !late && p.ask.Connection != ask.Connection
	mayTake := !h.live(m.now) && (first == nil || p != nil && !late && p.ticket <= first.ticket)
	full := p == nil || late
	full = full && waiting >= queueLimit
	switch {
	case ask.Requeued && ask.Named && (p == nil || late):
		if !errors.As(err, new(*lock.PlaceLostError)) {
			t.Fatalf("%#v: got %+v, %v, want its place to be lost", ask, out, err)
		}
		return
	case superseded || !mayTake && ask.Wait == 0:
		m.wantRefused(t, l, ask, superseded, err)
		return
	case !mayTake && full:
		if !errors.As(err, new(*lock.QueueFullError)) {
			t.Fatalf("%#v: got %v, want the queue to be full with %d", ask, err, waiting)
		}
		return
	case err != nil:
		t.Fatalf("%#v: refused: %v", ask, err)
	}
	if late {
		l.giveUp(p)
		p = nil
	}
	var displaced []lock.Acquire
	if p != nil && p.back.IsZero() && p.ask.Connection != ask.Connection {
		displaced = append(displaced, p.ask)
	}
	m.wantDisplaced(t, ask, out, displaced)
	if mayTake {
		var since time.Time
		if p != nil {
			since = p.since
			l.strike(p)
		}
		m.finish(l)
		m.take(l, ask, since)
		if out.Hold.Token != l.token {
			t.Fatalf("%#v: got %+v, want the token %d", ask, out.Hold, l.token)
		}
		m.want(t, ask, out)
		return
	}
	if out.Hold != (lock.Hold{}) {
		t.Fatalf("%#v: got %+v, want it to wait", ask, out.Hold)
	}
	if p == nil {
		l.ticket = max(l.ticket+1, m.now.UnixMicro())
		p = &person{process: ask.ProcessID, request: ask.RequestID, ticket: l.ticket, since: m.now}
		l.people = append(l.people, p)
		l.queued[p.process]++
		l.tell(lock.EventQueued, p.process)
	}
	p.ask, p.server, p.back = ask, m.at, time.Time{}
	m.handOver(l)
	m.want(t, ask, out)
}

// wantDisplaced wants an outcome to name the requests whose place it took, and remembers them.
func (m *queueMachine) wantDisplaced(t *rapid.T, ask lock.Acquire, out lock.Outcome, want []lock.Acquire) {
	var got []lock.Acquire
	for _, w := range out.Superseded {
		got = append(got, w.Request)
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("%#v: superseded (-want +got):\n%s", ask, diff)
	}
	m.displaced = append(m.displaced, got...)
}

// wantRefused wants a HeldError that tells who is before the request.
func (m *queueMachine) wantRefused(t *rapid.T, l *line, c lock.Command, superseded bool, err error) {
	var refusal *lock.HeldError
	if !errors.As(err, &refusal) {
		t.Fatalf("%#v: got %v, want a HeldError", c, err)
	}
	var token int64
	next := ""
	if l.holder.live(m.now) {
		token = l.holder.token
	} else if first := m.turn(l); first != nil {
		next = first.process
	}
	if refusal.Holder.Token != token || refusal.Next != next || refusal.Superseded != superseded || !refusal.Now.Equal(m.now) {
		t.Fatalf("%#v: got %+v, want holder %d, next %q, superseded %t", c, refusal, token, next, superseded)
	}
}

// leave is somebody's who waits, or has just been granted, or is long gone.
func (m *queueMachine) leave(t *rapid.T) {
	l := m.line(t)
	c := lock.Leave{Gone: rapid.Bool().Draw(t, "gone"), Keep: drawTTL(t, 0), Why: "because"}
	p, h := drawPerson(t, l), l.holder
	switch {
	case h.live(m.now) && !h.released && h.connection != 0 && rapid.Bool().Draw(t, "holder"):
		c.Request = lock.Acquire{Request: lock.Request{Resource: l.name, ProcessID: h.process, RequestID: h.request}, Connection: h.connection}
		p = nil
	case p != nil && m.there(p):
		m.at, c.Request, c.Ticket = p.server, p.ask, p.ticket
	default:
		m.last++
		c.Request = lock.Acquire{Request: lock.Request{Resource: l.name, ProcessID: drawProcess(t), RequestID: "x"}, Connection: m.last}
		out, err := m.run(t, c)
		waits := l.person(c.Request.ProcessID, "x")
		holds := h.live(m.now) && !h.released && h.process == c.Request.ProcessID && h.request == "x"
		m.wantRefused(t, l, c, !c.Gone && (waits != nil && waits.back.IsZero() || holds), err)
		m.want(t, c, out)
		return
	}
	c.Place = p != nil && c.Gone && rapid.Bool().Draw(t, "place only")
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%#v: refused: %v", c, err)
	}
	first := m.turn(l)
	switch {
	case p == nil && !c.Gone: // it was granted what it waited for
		if out.Hold.Token != h.token {
			t.Fatalf("%#v: got %+v, want its hold %d", c, out.Hold, h.token)
		}
	case p == nil:
		h.finished = true
		l.tell(lock.EventReleased, h.process)
		m.handOver(l)
	case !c.Gone && p == first && !h.live(m.now):
		m.handOver(l)
		l.handed = nil // it is the one who is answered
		if out.Hold.Token != l.token {
			t.Fatalf("%#v: got %+v, want the hold %d: its turn has come", c, out.Hold, l.token)
		}
	case c.Keep > 0:
		p.back = m.now.Add(c.Keep)
		m.handOver(l)
	default:
		l.giveUp(p)
		m.handOver(l)
	}
	m.want(t, c, out)
}

// putBack is a hang-up that crossed with a grant to somebody whose place is kept.
func (m *queueMachine) putBack(t *rapid.T) {
	l := m.line(t)
	h := l.holder
	if !h.live(m.now) || h.released || h.connection == 0 || h.since.IsZero() {
		return
	}
	for _, p := range l.people {
		if p.ticket == h.since.UnixMicro() { // tickets are told apart by the moment when they were new
			return
		}
	}
	c := lock.Leave{
		Request: lock.Acquire{Request: lock.Request{Resource: l.name, ProcessID: h.process, RequestID: h.request}, Connection: h.connection},
		Ticket:  h.since.UnixMicro(), Keep: drawTTL(t, 1), Gone: true,
	}
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%#v: refused: %v", c, err)
	}
	h.finished = true
	l.tell(lock.EventReleased, h.process)
	l.people = append(l.people, &person{
		process: h.process, request: h.request, ticket: c.Ticket, since: h.since, ask: c.Request, server: m.at, back: m.now.Add(c.Keep),
	})
	l.ticket = max(l.ticket, c.Ticket)
	l.queued[h.process]++
	m.handOver(l)
	m.want(t, c, out)
}

func (m *queueMachine) vacate(t *rapid.T) {
	l := m.line(t)
	c := lock.RemoveAbandoned{Keep: drawTTL(t, 0)}
	people := slices.Clone(l.people)
	struck := false
	for _, p := range people {
		if !rapid.Bool().Draw(t, "named") {
			continue
		}
		c.Gone = append(c.Gone, lock.Place{Resource: l.name, ProcessID: p.process, RequestID: p.request})
		over := !p.back.IsZero() && !p.back.After(m.now)
		if p.back.IsZero() && p.server != m.at {
			over = !m.alive[p.server].Add(c.Keep).After(m.now)
		}
		if over {
			l.giveUp(p)
			struck = true
		}
	}
	if struck {
		m.handOver(l)
	}
	m.want(t, c, m.accept(t, c))
}

func (m *queueMachine) accept(t *rapid.T, c lock.Command) lock.Outcome {
	out, err := m.run(t, c)
	if err != nil {
		t.Fatalf("%#v: refused: %v", c, err)
	}
	return out
}

func (m *queueMachine) settle(t *rapid.T) {
	m.line(t)
	c := lock.ExpireAndGrant{Names: someResources}
	out := m.accept(t, c)
	for _, name := range c.Names {
		m.handOver(m.lines[name])
	}
	m.want(t, c, out)
}

// end is a release, one of many or one by force.
func (m *queueMachine) end(t *rapid.T) {
	l := m.line(t)
	h := l.holder
	owned := h.live(m.now) && !h.released
	process := "p"
	if owned {
		process = h.process
	}
	switch rapid.SampledFrom([]string{"release", "release all", "break"}).Draw(t, "end") {
	case "release":
		c := lock.Release{Resource: l.name, ProcessID: process}
		out, err := m.run(t, c)
		if owned != (err == nil) {
			t.Fatalf("%#v: got %v, owned: %t", c, err, owned)
		}
		if owned {
			m.ends(l, lock.EventReleased)
		}
		m.want(t, c, out)
	case "release all":
		c := lock.ReleaseAll{Names: someResources, ProcessID: process}
		out := m.accept(t, c)
		for _, name := range c.Names {
			if l := m.lines[name]; l.holder.live(m.now) && !l.holder.released && l.holder.process == process {
				m.ends(l, lock.EventReleased)
			}
		}
		m.want(t, c, out)
	case "break":
		c := lock.ForceRelease{Resource: l.name, Reason: "it hangs"}
		live := h.live(m.now)
		out, err := m.run(t, c)
		if live != (err == nil) {
			t.Fatalf("%#v: got %v, live: %t", c, err, live)
		}
		if live {
			m.ends(l, lock.EventForceReleased)
		}
		m.want(t, c, out)
	}
}

func (m *queueMachine) renew(t *rapid.T) {
	l := m.line(t)
	if h := l.holder; h.live(m.now) && !h.released {
		c := lock.Renew{Resource: l.name, ProcessID: h.process, TTL: drawTTL(t, 1)}
		h.end = m.now.Add(c.TTL)
		if h.least.After(h.end) {
			h.end = h.least
		}
		m.want(t, c, m.accept(t, c))
	}
}

func (m *queueMachine) forget(t *rapid.T) {
	l := m.line(t)
	r := m.resources[l.name]
	c := lock.DeleteIdle{Names: []string{l.name}, Before: m.now.Add(step)}
	out := m.accept(t, c)
	want := r.ID != 0 && len(l.people) == 0 && (l.holder == nil || l.holder.finished)
	if got := len(out.Changed) == 1; got != want {
		t.Fatalf("%q forgotten: %t, want %t with %d places", l.name, got, want, len(l.people))
	}
	if want { // but not really: that is another machine's business
		r.Deleted = false
		m.resources[l.name], m.servers[l.name] = r, map[int64]int{}
	}
}

// clock moves the time on. Some servers are heard of again, and some are dead by then.
func (m *queueMachine) clock(t *rapid.T) {
	m.now = m.now.Add(step * time.Duration(rapid.IntRange(0, 3).Draw(t, "clock")))
	for server := 1; server <= 3; server++ {
		if rapid.Bool().Draw(t, "heard of") {
			m.alive[server] = m.now.Add(2 * step)
		}
	}
}

// check compares the states with the account.
func (m *queueMachine) check(t *rapid.T) {
	for name, l := range m.lines {
		r := m.load(name, 1)
		live := 0
		for _, h := range r.Holds {
			if h.Live(m.now) {
				live++
			}
		}
		if live > 1 || len(r.Holds) > 1 {
			t.Fatalf("%q has %d holds: %+v", name, len(r.Holds), r.Holds)
		}
		hold, held := r.Holder(m.now)
		if h := l.holder; held != h.live(m.now) || held && (hold.Token != h.token || hold.ProcessID != h.process ||
			hold.Connection != h.connection || !hold.QueuedAt.Equal(h.since) || !hold.ExpiresAt.Equal(h.end) || hold.ReleasedAt.IsZero() == h.released) {
			t.Fatalf("%q is held: %t, by %+v, want %+v", name, held, hold, h)
		}
		m.checkQueue(t, l, r)
	}
}

// checkQueue: nobody is lost, and everybody has one place.
func (m *queueMachine) checkQueue(t *rapid.T, l *line, r lock.Resource) {
	describe := func(ticket int64, process, request string, since, back time.Time, connection int64) string {
		if !back.IsZero() {
			connection = 0 // of no importance
		}
		return fmt.Sprint(ticket, process, request, since.Sub(t0), back.IsZero(), connection)
	}
	people := slices.Clone(l.people)
	slices.SortFunc(people, func(a, b *person) int { return int(a.ticket - b.ticket) })
	var want, got []string
	waiters, away := 0, 0
	inLine := map[string]int{}
	for _, p := range people {
		want = append(want, describe(p.ticket, p.process, p.request, p.since, p.back, p.ask.Connection))
		inLine[p.process]++
		if p.back.IsZero() {
			waiters++
		} else {
			away++
		}
	}
	for _, w := range r.Queue {
		got = append(got, describe(w.Ticket, w.Request.ProcessID, w.Request.RequestID, w.Since, w.DetachedUntil, w.Connection))
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("queue of %q (-want +got):\n%s", l.name, diff)
	}
	if r.Waiters != waiters || r.Detached != away || r.LastTicket != l.ticket {
		t.Fatalf("%q counts %d waiters, %d away, last ticket %d, want %d, %d and %d", l.name, r.Waiters, r.Detached, r.LastTicket, waiters, away, l.ticket)
	}
	for _, process := range someProcesses {
		if l.queued[process] != l.granted[process]+l.gaveUp[process]+inLine[process] {
			t.Fatalf("%q was queued %d times for %q, granted %d times, gave up %d times and is there %d times",
				process, l.queued[process], l.name, l.granted[process], l.gaveUp[process], inLine[process])
		}
	}
}

func TestQueueInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &queueMachine{database: newDatabase(), now: t0, lines: map[string]*line{}, told: map[string]time.Time{}}
		for _, name := range someResources {
			m.lines[name] = newLine(name)
		}
		for server := 1; server <= 3; server++ {
			m.alive[server] = t0.Add(2 * step)
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": m.come, "come too": m.come, "again": m.again, "leave": m.leave, "put back": m.putBack, "vacate": m.vacate,
			"settle": m.settle, "end": m.end, "end too": m.end, "renew": m.renew, "forget": m.forget, "clock": m.clock, "": m.check,
		})
	})
}
