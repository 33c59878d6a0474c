package notify_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"resource-lock-manager/internal/notify"
	"resource-lock-manager/internal/testdb"
)

func TestMain(m *testing.M) {
	code := testdb.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// patience is how long a test waits for what must come, also on a busy machine.
const patience = 30 * time.Second

// channel is a name that has to be quoted.
const channel = `Lockd "1`

// heard is what a listener tells: a payload, or "*" when everything is to be woken.
type heard chan string

// next waits for the next thing that is told.
func (h heard) next(t *testing.T) string {
	t.Helper()
	select {
	case what := <-h:
		return what
	case <-time.After(patience):
		t.Fatal("nothing is told")
		return ""
	}
}

// want fails the test unless that is what is told next.
func (h heard) want(t *testing.T, want string) {
	t.Helper()
	if got := h.next(t); got != want {
		t.Fatalf("told %q, want %q", got, want)
	}
}

// log is a log that can be read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// levels returns the level of each line.
func (l *log) levels() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var levels []string
	for line := range strings.Lines(l.text.String()) {
		_, rest, _ := strings.Cut(line, "level=")
		level, _, _ := strings.Cut(rest, " ")
		levels = append(levels, level)
	}
	return strings.Join(levels, " ")
}

// listen starts a listener that is stopped when the test ends, unless the test stops it.
func listen(t *testing.T, url string) (told heard, lines *log, stop func()) {
	t.Helper()
	told, lines = make(heard, 1000), &log{}
	l, err := notify.New(notify.Config{
		URL:      url,
		Channels: map[string]func(string){channel: func(payload string) { told <- payload }},
		WakeAll:  func() { told <- "*" },
		Logger:   slog.New(slog.NewTextHandler(lines, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			stopped := make(chan struct{})
			go func() {
				l.Stop()
				close(stopped)
			}()
			select {
			case <-stopped:
			case <-time.After(patience / 2):
				t.Error("Stop does not return")
			}
		})
	}
	t.Cleanup(stop)
	return told, lines, stop
}

// connect opens a connection of the test's own.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, statement string, arguments ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement, arguments...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// TestWakes: each notification on its channel, with its payload, in order; of other channels none.
func TestWakes(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	told, lines, _ := listen(t, db)
	told.want(t, "*") // what was told before it listened is lost
	conn := connect(t, db)
	payloads := []string{"r", "", `日本 "'; --`, strings.Repeat("x", 7000)}
	for i := range 100 {
		payloads = append(payloads, fmt.Sprint("r", i))
	}
	exec(t, conn, "SELECT pg_notify('other', 'x'), pg_notify(lower($1), 'x')", channel)
	for _, payload := range payloads {
		exec(t, conn, "SELECT pg_notify($1, $2)", channel, payload)
	}
	for _, payload := range payloads {
		told.want(t, payload)
	}
	if got := lines.levels(); got != "" {
		t.Errorf("log: %q", lines.text.String())
	}
	var name string
	row := conn.QueryRow(t.Context(), "SELECT application_name FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
	if err := row.Scan(&name); err != nil || name != "lockd listener" {
		t.Errorf("its connection is called %q, %v", name, err)
	}
}

// TestComesBack: whenever its connection has ended it makes a new one, has everything woken, and says so once.
func TestComesBack(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	told, lines, _ := listen(t, db)
	told.want(t, "*")
	want := ""
	for round := range 3 {
		exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		told.want(t, "*")
		payload := fmt.Sprint("r", round)
		exec(t, conn, "SELECT pg_notify($1, $2)", channel, payload)
		told.want(t, payload)
		if want = strings.TrimSpace(want + " WARN INFO"); lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
	}
}

// gate stands between a listener and its database. It lets connections through, refuses them, or takes them and says
// nothing.
type gate struct {
	net.Listener
	upstream string
	mu       sync.Mutex
	mode     string // "" through, "refuse", "silent"
	open     []net.Conn
	came     chan struct{} // for each connection that came
	pipes    sync.WaitGroup
}

func newGate(t *testing.T, db, mode string) (g *gate, through string) {
	t.Helper()
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{Listener: listener, upstream: u.Host, mode: mode, came: make(chan struct{}, 1000)}
	u.Host = listener.Addr().String()
	g.pipes.Go(g.accept)
	t.Cleanup(func() {
		listener.Close()
		g.set("refuse")
		g.pipes.Wait()
	})
	return g, u.String()
}

func (g *gate) accept() {
	for {
		client, err := g.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		mode := g.mode
		g.open = append(g.open, client)
		g.mu.Unlock()
		switch mode {
		case "refuse":
			client.Close()
		case "":
			server, err := net.Dial("tcp", g.upstream)
			if err != nil {
				client.Close()
				break
			}
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				g.pipes.Go(func() {
					_, _ = io.Copy(way[1], way[0])
					client.Close()
					server.Close()
				})
			}
		}
		g.came <- struct{}{}
	}
}

// set changes what becomes of connections, and cuts those that are open.
func (g *gate) set(mode string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = mode
	for _, conn := range g.open {
		conn.Close()
	}
	g.open = nil
}

// TestDatabaseIsDown at first, and for a while later on: it goes on trying, less and less often, with one line in the log.
func TestDatabaseIsDown(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	g, through := newGate(t, db, "refuse")
	told, lines, _ := listen(t, through)
	begun := time.Now()
	want := ""
	for round := range 2 {
		for range 6 { // at most two for an attempt
			<-g.came
		}
		if took := time.Since(begun); round == 0 && took < 100*time.Millisecond {
			t.Errorf("three attempts within %v", took)
		}
		if want = strings.TrimSpace(want + " WARN"); lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
		g.set("")
		told.want(t, "*")
		for len(g.came) > 0 {
			<-g.came
		}
		exec(t, conn, "SELECT pg_notify($1, 'r')", channel)
		told.want(t, "r")
		if want += " INFO"; lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
		g.set("refuse")
	}
	if got := len(told); got != 0 {
		t.Errorf("%d more were told", got)
	}
}

// TestFirstHostIsSilent: of several hosts the first takes connections and says nothing, so it listens on the second.
func TestFirstHostIsSilent(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	silent, _ := newGate(t, db, "silent")
	told, _, _ := listen(t, strings.Replace(db, "@", "@"+silent.Addr().String()+",", 1))
	told.want(t, "*")
	exec(t, conn, "SELECT pg_notify($1, 'r')", channel)
	told.want(t, "r")
}

// TestStop returns at once, whatever the listener is at.
func TestStop(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	tests := map[string]struct {
		mode  string
		until func(t *testing.T, g *gate, told heard)
	}{
		"at once":          {"", func(*testing.T, *gate, heard) {}},
		"while listening":  {"", func(t *testing.T, _ *gate, told heard) { told.want(t, "*") }},
		"while connecting": {"silent", func(_ *testing.T, g *gate, _ heard) { <-g.came }},
		"between attempts": {"refuse", func(_ *testing.T, g *gate, _ heard) {
			for range 12 { // at most two for an attempt: the next one is more than a second and a half away
				<-g.came
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, through := newGate(t, db, test.mode)
			told, lines, stop := listen(t, through)
			test.until(t, g, told)
			logged := lines.levels()
			begun := time.Now()
			stop()
			if took := time.Since(begun); took > time.Second { // to give up connecting would take five
				t.Errorf("Stop took %v", took)
			}
			if got := lines.levels(); got != logged && logged != "" || strings.Contains(got, "WARN WARN") {
				t.Errorf("log: %s", lines.text.String())
			}
			if name == "at once" || name == "while listening" || name == "while connecting" {
				if got := lines.levels(); got != "" {
					t.Errorf("being stopped was logged as a failure: %s", lines.text.String())
				}
			}
		})
	}
}

// TestStopClosesTheConnection, so that the database does not keep it.
func TestStopClosesTheConnection(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	told, _, stop := listen(t, db)
	told.want(t, "*")
	stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		var others int
		row := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		if err := row.Scan(&others); err != nil {
			t.Fatal(err)
		}
		if others == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", others)
		}
	}
}

// TestBadURL is told when the listener is made.
func TestBadURL(t *testing.T) {
	t.Parallel()
	if _, err := notify.New(notify.Config{URL: "postgres://host:port/db"}); err == nil {
		t.Error("no error")
	}
}
