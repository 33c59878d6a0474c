package robust_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver with which the tests fill a database

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
	"resource-lock-manager/internal/wire"
)

// caller is a connection of its own to a server, without any proxy: it makes one request at a time.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

// reply is an answer as far as these tests look at it.
type reply struct {
	Status     int       `json:"-"`
	RetryAfter string    `json:"-"`
	Code       wire.Code `json:"code"`
	Data       struct {
		ProcessID    string `json:"process_id"`
		FencingToken int64  `json:"fencing_token"`
		IsLocked     bool   `json:"is_locked"`
		TotalLocks   int    `json:"total_locks"`
		Locks        []struct {
			ResourceName string `json:"resource_name"`
			FencingToken int64  `json:"fencing_token"`
		} `json:"locks"`
		Events []struct {
			Event string `json:"event"`
		} `json:"events"`
	} `json:"data"`
}

// dial makes connections, which end with the test if not before.
func dial(t *testing.T, s *robust.Server, n int) []*caller {
	t.Helper()
	var limit syscall.Rlimit // the Go runtime has raised it as far as it may
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(n + 500); limit.Cur < need {
		t.Fatalf("this test needs %d open files and may have %d: raise the hard limit (ulimit -Hn)", need, limit.Cur)
	}
	callers := make([]*caller, n)
	for i := range callers {
		conn, err := net.Dial("tcp", s.Front.Upstream())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		callers[i] = &caller{conn, bufio.NewReader(conn)}
	}
	return callers
}

func hangUp(callers []*caller) {
	for _, c := range callers {
		_ = c.conn.Close()
	}
}

// text of a request.
func text(method, path, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, len(body), body)
}

func acquireText(o robust.Operation) string {
	body := wire.AcquireRequest{ResourceName: o.Resource, ProcessID: o.Process}
	if o.Wait > 0 {
		wait := o.Wait.Seconds()
		body.WaitSeconds = &wait
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err) // it has no field that could not be encoded
	}
	return text(http.MethodPost, "/locks/request", string(encoded))
}

func releaseText(resource, process string) string {
	query := url.Values{"resource_name": {resource}, "process_id": {process}}
	return text(http.MethodDelete, "/locks/release?"+query.Encode(), "")
}

func getText(path string, query url.Values) string {
	return text(http.MethodGet, path+"?"+query.Encode(), "")
}

// call sends a request and reads its answer.
func (c *caller) call(request string) (reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(2 * apptest.Patience)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return reply{}, err
	}
	return c.answer()
}

func (c *caller) answer() (reply, error) {
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	r := reply{Status: response.StatusCode, RetryAfter: response.Header.Get("Retry-After")}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	return r, json.Unmarshal(body, &r)
}

// want makes a call that must succeed.
func (c *caller) want(t *testing.T, request string) reply {
	t.Helper()
	r, err := c.call(request)
	if err != nil || r.Status != http.StatusOK {
		line, _, _ := strings.Cut(request, "\r\n")
		t.Fatalf("%s: %+v, %v", line, r, err)
	}
	return r
}

// locks are all that the server says are held, with their tokens.
func locks(t *testing.T, c *caller, prefix string) map[string]int64 {
	t.Helper()
	held := map[string]int64{}
	for _, l := range c.want(t, getText("/locks/all-locked", url.Values{"prefix": {prefix}})).Data.Locks {
		held[l.ResourceName] = l.FencingToken
	}
	return held
}

// polite is a client that takes a lock and gives it back, again and again, while others behave badly.
type polite struct {
	t       *testing.T
	process string
	caller  *caller
	pairs   int
	refused int
	slowest time.Duration
}

var polites atomic.Int64

func newPolite(t *testing.T, s *robust.Server) *polite {
	return &polite{t: t, process: fmt.Sprint("polite ", polites.Add(1)), caller: dial(t, s, 1)[0]}
}

// pair takes a lock and gives it back, and returns how long that took. When it is told to come later, it does.
func (p *polite) pair() time.Duration {
	p.t.Helper()
	begun := time.Now()
	resource := "of " + p.process
	p.patiently(acquireText(robust.Operation{Resource: resource, Process: p.process}))
	p.patiently(releaseText(resource, p.process))
	took := time.Since(begun)
	p.pairs++
	p.slowest = max(p.slowest, took)
	return took
}

func (p *polite) patiently(request string) {
	p.t.Helper()
	deadline := time.Now().Add(apptest.Patience)
	for {
		r, err := p.caller.call(request)
		switch {
		case err != nil || r.Status != http.StatusOK && r.Code != wire.CodeOverloaded || time.Now().After(deadline):
			p.t.Errorf("%s: %+v, %v", p.process, r, err)
			return
		case r.Status == http.StatusOK:
			return
		}
		p.refused++
		<-time.After(5 * time.Millisecond)
	}
}

// inBackground works until the function that it returns is called, which checks that it was served.
func (p *polite) inBackground() (end func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				p.pair()
			}
		}
	})
	return func() {
		p.t.Helper()
		close(done)
		all.Wait()
		fmt.Fprintf(p.t.Output(), "meanwhile %d pairs of %s, the slowest took %v, told to come later %d times\n",
			p.pairs, p.process, p.slowest.Round(time.Millisecond), p.refused)
		if p.pairs < 3 {
			p.t.Errorf("%s was not served meanwhile", p.process)
		}
	}
}

// health is what a server is like when all is well.
type health struct {
	server *robust.Server
	pair   time.Duration
	files  int
}

func healthOf(t *testing.T, s *robust.Server) health {
	t.Helper()
	p := newPolite(t, s)
	var took []time.Duration
	for range 21 {
		took = append(took, p.pair())
	}
	slices.Sort(took)
	h := health{s, took[len(took)/2], openFiles(t, s)}
	hangUp([]*caller{p.caller})
	return h
}

// wantBack waits until the server is as well as it was: what came to trouble it has gone.
func (h health) wantBack(t *testing.T) {
	t.Helper()
	apptest.Eventually(t, "connections are gone", func() bool { return openFiles(t, h.server) <= h.files+30 })
	p := newPolite(t, h.server)
	apptest.Eventually(t, "a pair takes as long as before", func() bool { return p.pair() < 10*h.pair+20*time.Millisecond })
	fmt.Fprintf(t.Output(), "a pair took %v before; %v\n", h.pair.Round(time.Microsecond), h.server.Memory(t))
}

func openFiles(t *testing.T, s *robust.Server) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.ID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// wantBounded checks that a server has never had more memory than so many MB. The race detector takes a multiple.
func wantBounded(t *testing.T, s *robust.Server, limit int64) {
	t.Helper()
	m := s.Memory(t)
	if m.Peak > limit*1e6 {
		t.Errorf("%v, want at most %d MB", m, limit)
	}
}

// A short queue: most are told at once to come later.
func overloadShortQueue(t *testing.T, r *robust.Run) {
	if told := overload(t, r, sqlite(t), "MAX_QUEUE=16"); told == 0 {
		t.Error("nobody was told to come later")
	}
}

// The default queue takes all that this many clients can send.
func overloadPostgres(t *testing.T, r *robust.Run) { overload(t, r, testdb.Postgres(t)) }

// Many times as many impatient clients as keep the server busy. It returns how often they were told to come later.
func overload(t *testing.T, r *robust.Run, databaseURL string, settings ...string) int64 {
	clients := 400
	if r.Long() {
		clients = 10_000 // more than may wait for the database by default
	}
	server := r.Servers(1, databaseURL, settings...)[0]
	well := healthOf(t, server)
	few := &load{t: t, name: "few"}
	few.start(dial(t, server, 8))
	r.Pause(500 * time.Millisecond)
	few.end()
	r.Work(robust.Workload{Clients: 4, Patience: apptest.Patience}, server)
	end := newPolite(t, server).inBackground()
	many := &load{t: t, name: "many"}
	many.start(dial(t, server, clients))
	for r.Lasts() {
		r.Pause(50 * time.Millisecond)
	}
	many.end()
	end()
	fmt.Fprintf(t.Output(), "8 clients: %v; %d clients: %v; %v\n", few, clients, many, server.Memory(t))
	well.wantBack(t)
	wantBounded(t, server, int64(500+clients/5))
	for _, l := range []*load{few, many} {
		l.wantKept(dial(t, server, 1)[0])
	}
	r.Judge()
	return many.told.Load()
}

// load is many clients that take locks of their own, which never end by themselves, and give most of them back. Told to come
// later, they come at once.
type load struct {
	t    *testing.T
	name string

	served, told atomic.Int64
	all          sync.WaitGroup
	stop         chan struct{}
	began        time.Time
	lasted       time.Duration
	callers      []*caller
	held         []map[string]int64 // by caller and resource: the token that was acknowledged
}

func (l *load) String() string {
	per := func(n int64) int { return int(float64(n) / l.lasted.Seconds()) }
	return fmt.Sprintf("%d requests carried out, %d a second, and %d told to come later, %d a second",
		l.served.Load(), per(l.served.Load()), l.told.Load(), per(l.told.Load()))
}

func (l *load) start(callers []*caller) {
	l.callers, l.held, l.stop, l.began = callers, make([]map[string]int64, len(callers)), make(chan struct{}), time.Now()
	for i := range callers {
		l.held[i] = map[string]int64{}
		l.all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if !l.takeTurn(i, n) {
					return
				}
			}
		})
	}
}

// takeTurn tells whether all went as it should.
func (l *load) takeTurn(i, n int) bool {
	resource, process := fmt.Sprintf("%s %d.%d", l.name, i, n), fmt.Sprint("caller ", i)
	got, ok := l.call(i, acquireText(robust.Operation{Resource: resource, Process: process}))
	if got.Status == http.StatusOK {
		l.held[i][resource] = got.Data.FencingToken
		if n%4 > 0 {
			if got, ok = l.call(i, releaseText(resource, process)); got.Status == http.StatusOK {
				delete(l.held[i], resource)
			}
		}
	}
	return ok
}

// call tells whether the answer was one that an overloaded server may give.
func (l *load) call(i int, request string) (reply, bool) {
	got, err := l.callers[i].call(request)
	switch {
	case err == nil && got.Status == http.StatusOK:
		l.served.Add(1)
	case err == nil && got.Status == http.StatusServiceUnavailable && got.Code == wire.CodeOverloaded && got.RetryAfter != "":
		l.told.Add(1)
	default:
		l.t.Errorf("caller %d under load: %+v, %v", i, got, err)
		return got, false
	}
	return got, true
}

func (l *load) end() {
	l.lasted = time.Since(l.began)
	close(l.stop)
	l.all.Wait()
	hangUp(l.callers)
}

// wantKept checks that held is what was acknowledged, and nothing else.
func (l *load) wantKept(reader *caller) {
	l.t.Helper()
	now := locks(l.t, reader, l.name+" ")
	for i := range l.held {
		for resource, token := range l.held[i] {
			if now[resource] != token {
				l.t.Errorf("G9 on %s: the token %d was acknowledged, and held is %d", resource, token, now[resource])
			}
			delete(now, resource)
		}
	}
	for resource, token := range now {
		l.t.Errorf("G9 on %s: the token %d is held, and nobody was told", resource, token)
	}
}

// Clients that send headers and bodies a byte at a time and never come to the end, that do not read their answers, and that
// wait and do not read.
func slowClients(t *testing.T, r *robust.Run) {
	server := r.Servers(1, sqlite(t))[0]
	well := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	end := newPolite(t, server).inBackground()
	begun := time.Now()
	clients := newSlow(t, server, r.Long())
	for r.Lasts() {
		clients.trickle()
		r.Pause(20 * time.Millisecond)
	}
	end()
	files := openFiles(t, server)
	fmt.Fprintf(t.Output(), "%d slow clients; %d open files after %v; %v\n",
		len(clients.all), files, time.Since(begun).Round(time.Second), server.Memory(t))
	const bound = 35 * time.Second // until a request must have come
	if time.Since(begun) > bound && files > well.files+len(clients.all)-len(clients.senders)+50 {
		t.Errorf("after %v the server has not cut off those who send for ever", bound)
	}
	hangUp(clients.all)
	well.wantBack(t)
	wantBounded(t, server, 1000)
	r.Judge()
}

// A server that is told to stop does so in order, however slow some clients are.
func stopWithSlowClients(t *testing.T, r *robust.Run) {
	server := r.Servers(1, sqlite(t), "SHUTDOWN_TIMEOUT=20s")[0]
	well := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	clients := newSlow(t, server, false)
	for r.Lasts() {
		clients.trickle()
		r.Pause(20 * time.Millisecond)
	}
	r.Fault("restart", 0, func() {
		begun := time.Now()
		server.Signal(t, syscall.SIGTERM)
		server.WantStopped(t)
		fmt.Fprintf(t.Output(), "with %d slow clients it took %v to stop\n", len(clients.all), time.Since(begun).Round(time.Millisecond))
		server.Start(t)
	})
	well.wantBack(t)
	r.Judge()
}

// slow are clients that take their time.
type slow struct {
	all     []*caller
	senders []func() // each sends another byte
}

func newSlow(t *testing.T, server *robust.Server, many bool) *slow {
	t.Helper()
	each := 150
	if many {
		each = 250
	}
	filler := dial(t, server, 1)[0]
	for n := range 500 { // so that a list is long
		resource := fmt.Sprint("filler ", n, strings.Repeat("r", 200))
		filler.want(t, acquireText(robust.Operation{Resource: resource, Process: strings.Repeat("p", 255)}))
	}
	filler.want(t, acquireText(robust.Operation{Resource: "wanted", Process: "filler"}))
	s := &slow{all: dial(t, server, 4*each)}
	for i, c := range s.all {
		send := func(text string) { _, _ = io.WriteString(c.conn, text) } // the server may have had enough
		switch i % 4 {
		case 0:
			send("GET /livez HTTP/1.1\r\nHost: lockd\r\nX-Long: ")
			s.senders = append(s.senders, func() { send("x") })
		case 1:
			send("POST /locks/request HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{")
			s.senders = append(s.senders, func() { send(" ") })
		case 2:
			_ = c.conn.(*net.TCPConn).SetReadBuffer(1 << 12)
			send(strings.Repeat(getText("/locks/all-locked", nil), 50))
		case 3:
			send(acquireText(robust.Operation{Resource: "wanted", Process: fmt.Sprint("waiter ", i), Wait: time.Minute}))
		}
	}
	return s
}

// trickle sends a byte of each that sends.
func (s *slow) trickle() {
	for _, send := range s.senders {
		send()
	}
}

// Connections on which nothing comes, also when the server is to stop.
func idleConnections(t *testing.T, r *robust.Run) {
	const count = 5000
	server := r.Servers(1, sqlite(t))[0]
	well := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	end := newPolite(t, server).inBackground()
	idle := dial(t, server, count)
	for i := range idle {
		if i%2 == 0 { // half of them have been used
			idle[i].want(t, getText("/livez", nil))
		}
	}
	for r.Lasts() {
		r.Pause(50 * time.Millisecond)
	}
	if files := openFiles(t, server); files < count {
		t.Errorf("only %d open files", files)
	}
	end()
	fmt.Fprintf(t.Output(), "%d idle connections; %v\n", count, server.Memory(t))
	wantBounded(t, server, 1000)
	hangUp(idle[:count/2])
	begun := time.Now()
	r.Fault("restart", 0, func() {
		server.Stop(t, syscall.SIGTERM)
		fmt.Fprintf(t.Output(), "with %d of them it took %v to stop\n", count/2, time.Since(begun).Round(time.Millisecond))
		server.Start(t)
	})
	hangUp(idle)
	well.wantBack(t)
	r.Judge()
}

func manyHoldsSQLite(t *testing.T, r *robust.Run)   { manyHolds(t, r, sqlite(t)) }
func manyHoldsPostgres(t *testing.T, r *robust.Run) { manyHolds(t, r, testdb.Postgres(t)) }

// So many locks are held that all of them together would fill memory if they were kept there.
func manyHolds(t *testing.T, r *robust.Run, databaseURL string) {
	count := 100_000
	if r.Long() {
		count = 1_000_000
	}
	server := r.Servers(1, databaseURL)[0]
	server.Stop(t, syscall.SIGTERM)
	begun := time.Now()
	fill(t, databaseURL, count, 0)
	filled := time.Since(begun)
	server.Start(t)
	fmt.Fprintf(t.Output(), "filled in %v, started after %v\n", filled, time.Since(begun)-filled)
	well := healthOf(t, server)
	r.Work(robust.Workload{}, server)
	end := newPolite(t, server).inBackground()
	reader := dial(t, server, 1)[0]
	lists := 0
	for r.Lasts() || lists == 0 {
		if total := reader.want(t, getText("/locks/all-locked", url.Values{"prefix": {"filled "}})).Data.TotalLocks; total != count {
			t.Errorf("%d locks are held, want %d", total, count)
		}
		lists++
	}
	end()
	fmt.Fprintf(t.Output(), "%d lists of %d locks; %v\n", lists, count, server.Memory(t))
	well.wantBack(t)
	wantBounded(t, server, 1000)
	r.Judge()
}

func expiringSQLite(t *testing.T, r *robust.Run)   { expiringAtOnce(t, r, sqlite(t)) }
func expiringPostgres(t *testing.T, r *robust.Run) { expiringAtOnce(t, r, testdb.Postgres(t)) }

// Very many locks expire within one second, some of them with somebody who waits.
func expiringAtOnce(t *testing.T, r *robust.Run, databaseURL string) {
	count, lead, waiters := 20_000, 3*time.Second, 100
	if r.Long() {
		count, lead, waiters = 100_000, 10*time.Second, 1000
	}
	server := r.Servers(1, databaseURL, "SWEEP_INTERVAL=200ms")[0]
	well := healthOf(t, server)
	server.Stop(t, syscall.SIGTERM)
	expiry := time.Now().Add(lead)
	fill(t, databaseURL, count, lead)
	server.Start(t)
	fmt.Fprintf(t.Output(), "%v to go\n", time.Until(expiry))
	r.Work(robust.Workload{}, server)
	end := newPolite(t, server).inBackground()
	waiting := dial(t, server, waiters)
	var all sync.WaitGroup
	for i, c := range waiting {
		all.Go(func() {
			resource, process := fmt.Sprint("filled ", i*(count/waiters)), fmt.Sprint("waiter ", i)
			if got, err := c.call(acquireText(robust.Operation{Resource: resource, Process: process, Wait: time.Minute})); err != nil ||
				got.Status != http.StatusOK {
				t.Errorf("%s got %+v, %v", process, got, err)
			}
		})
	}
	all.Wait()
	granted := time.Since(expiry)
	r.Pause(time.Until(expiry.Add(2 * time.Second)))
	reader := dial(t, server, 1)[0]
	if held := locks(t, reader, "filled "); len(held) != waiters {
		t.Errorf("%d locks are held, want the %d of those who waited", len(held), waiters)
	}
	for r.Lasts() {
		r.Pause(50 * time.Millisecond)
	}
	for n := range 20 {
		name := fmt.Sprint("filled ", n*(count/20)+1)
		apptest.Eventually(t, "the history tells of it", func() bool {
			events := reader.want(t, getText("/locks/history", url.Values{"resource_name": {name}})).Data.Events
			return len(events) == 1 && events[0].Event == "expired"
		})
	}
	swept := time.Since(expiry)
	end()
	fmt.Fprintf(t.Output(), "%d expired within a second; %v later all %d who waited had theirs, %v later all had been swept; %v\n",
		count, granted.Round(time.Millisecond), waiters, swept.Round(time.Millisecond), server.Memory(t))
	hangUp(waiting)
	well.wantBack(t)
	wantBounded(t, server, 1000)
	r.Judge()
}

// fill adds holds to the database of a server that does not run. They never end, or all within a second after so long.
func fill(t *testing.T, databaseURL string, count int, end time.Duration) {
	t.Helper()
	driver, source := "pgx", databaseURL
	statement := `INSERT INTO resource_locks (resource_name, process_id, locked_at, expires_at, is_active, fencing_token)
		SELECT 'filled ' || i, 'filler', now(), CASE WHEN $2 > 0 THEN now() + make_interval(secs => $2 + i / ($1 + 1.0)) END,
			true, (extract(epoch FROM now()) * 1000000)::bigint
		FROM generate_series(0, $1 - 1) AS i`
	if path, ok := strings.CutPrefix(databaseURL, "sqlite:///"); ok {
		driver, source = "sqlite3", path
		statement = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1)
			INSERT INTO resource_locks (resource_name, process_id, locked_at, expires_at, is_active, fencing_token)
			SELECT 'filled ' || i, 'filler', strftime('%Y-%m-%d %H:%M:%f000', 'now'),
				CASE WHEN ?2 > 0 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', '+' || (?2 + i / (?1 + 1.0)) || ' seconds') END,
				true, unixepoch() * 1000000
			FROM n`
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, count, end.Seconds()); err != nil {
		t.Fatal(err)
	}
}

// More want to wait than may: those are told to come later, and when there is room again they find it.
func waitersFull(t *testing.T, r *robust.Run) {
	const room, extra = 50, 100
	server := r.Servers(1, sqlite(t), fmt.Sprint("MAX_WAITERS=", room))[0]
	well := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	holder := dial(t, server, 1)[0]
	end := newPolite(t, server).inBackground()
	for round := 0; r.Lasts() || round == 0; round++ {
		const resource = "wanted"
		holder.want(t, acquireText(robust.Operation{Resource: resource, Process: "holder"}))
		callers := dial(t, server, room+extra)
		var granted, full atomic.Int64
		var all sync.WaitGroup
		for i, c := range callers {
			all.Go(func() {
				process := fmt.Sprint("waiter ", i)
				ctx, cancel := context.WithTimeout(context.Background(), apptest.Patience)
				defer cancel()
				for ctx.Err() == nil {
					got, err := c.call(acquireText(robust.Operation{Resource: resource, Process: process, Wait: apptest.Patience}))
					switch {
					case err != nil:
						t.Errorf("%s: %v", process, err)
						return
					case got.Status == http.StatusOK:
						granted.Add(1)
						_, _ = c.call(releaseText(resource, process))
						return
					case got.Code != wire.CodeQueueFull || got.Status != http.StatusServiceUnavailable || got.RetryAfter == "":
						t.Errorf("%s: %+v", process, got)
						return
					}
					full.Add(1)
					<-time.After(20 * time.Millisecond)
				}
			})
		}
		apptest.Eventually(t, "the room is full", func() bool { return full.Load() >= extra })
		holder.want(t, releaseText(resource, "holder"))
		all.Wait()
		hangUp(callers)
		if granted.Load() != room+extra {
			t.Errorf("%d of %d got the lock in the end", granted.Load(), room+extra)
		}
		fmt.Fprintf(t.Output(), "%d got the lock, %d times somebody found the room full\n", granted.Load(), full.Load())
	}
	end()
	well.wantBack(t)
	r.Judge()
}
