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

// testTimeout is how long a test waits for an expected event, also on a busy machine.
const testTimeout = 30 * time.Second

// channel is a channel name that must be quoted.
const channel = `Lockd "1`

// calls holds what a listener has called: the payload of each notification, or "*" for a
// call of WakeAll.
type calls chan string

// want waits for the next call and fails the test if it is another one.
func (c calls) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Fatalf("the listener called %q, want %q", got, want)
		}
	case <-time.After(testTimeout):
		t.Fatalf("the listener did not call %q", want)
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

// listen starts a listener, which is stopped when the test ends.
func listen(t *testing.T, url string) (got calls, lines *log, stop func()) {
	t.Helper()
	got, lines = make(calls, 1000), &log{}
	l, err := notify.New(notify.Config{
		URL:      url,
		Channels: map[string]func(string){channel: func(payload string) { got <- payload }},
		WakeAll:  func() { got <- "*" },
		Logger:   slog.New(slog.NewTextHandler(lines, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	stop = func() {
		stopped := make(chan struct{})
		go func() {
			l.Stop()
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-time.After(testTimeout / 2):
			t.Error("Stop does not return")
		}
	}
	t.Cleanup(stop)
	return got, lines, stop
}

// connect opens a connection for the statements of the test.
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

// The listener passes on every notification of its channel in order, and none of other
// channels.
func TestNotificationsArePassedOn(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	got, lines, _ := listen(t, db)
	got.want(t, "*") // earlier notifications are lost
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
		got.want(t, payload)
	}
	if levels := lines.levels(); levels != "" {
		t.Errorf("log: %q", lines.text.String())
	}
	var name string
	row := conn.QueryRow(t.Context(), `SELECT application_name FROM pg_stat_activity
		WHERE query LIKE 'LISTEN%' AND datname = current_database()`)
	if err := row.Scan(&name); err != nil || name != "lockd listener" {
		t.Errorf("the application name of the connection is %q, %v", name, err)
	}
}

// After the connection has ended, the listener connects again, calls WakeAll and logs
// both once.
func TestReconnect(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	got, lines, _ := listen(t, db)
	got.want(t, "*")
	want := ""
	for round := range 3 {
		exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		got.want(t, "*")
		payload := fmt.Sprint("r", round)
		exec(t, conn, "SELECT pg_notify($1, $2)", channel, payload)
		got.want(t, payload)
		if want = strings.TrimSpace(want + " WARN INFO"); lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
	}
}

// proxy is a TCP proxy between a listener and its database. It forwards connections,
// refuses them, or accepts them and stays silent.
type proxy struct {
	net.Listener
	upstream string
	accepted chan struct{} // for each connection
	pipes    sync.WaitGroup

	mu   sync.Mutex
	mode string // "forward", "refuse" or "silent"
	open []net.Conn
}

func newProxy(t *testing.T, db, mode string) (p *proxy, proxied string) {
	t.Helper()
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{Listener: listener, upstream: u.Host, mode: mode, accepted: make(chan struct{}, 1000)}
	u.Host = listener.Addr().String()
	p.pipes.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.set("refuse")
		p.pipes.Wait()
	})
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		mode := p.mode
		p.open = append(p.open, client)
		p.mu.Unlock()
		switch mode {
		case "refuse":
			client.Close()
		case "forward":
			server, err := net.Dial("tcp", p.upstream)
			if err != nil {
				client.Close()
				break
			}
			for _, pipe := range [][2]net.Conn{{client, server}, {server, client}} {
				p.pipes.Go(func() {
					_, _ = io.Copy(pipe[1], pipe[0])
					client.Close()
					server.Close()
				})
			}
		}
		p.accepted <- struct{}{}
	}
}

// set changes the mode and closes all open connections.
func (p *proxy) set(mode string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	for _, conn := range p.open {
		conn.Close()
	}
	p.open = nil
}

// While the database is down, the listener tries to connect with growing pauses, and logs
// one line.
func TestDatabaseIsDown(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	p, proxied := newProxy(t, db, "refuse")
	got, lines, _ := listen(t, proxied)
	began := time.Now()
	want := ""
	for round := range 2 {
		for range 6 { // an attempt makes at most two connections
			<-p.accepted
		}
		if took := time.Since(began); round == 0 && took < 100*time.Millisecond {
			t.Errorf("three attempts within %v", took)
		}
		if want = strings.TrimSpace(want + " WARN"); lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
		p.set("forward")
		got.want(t, "*")
		for len(p.accepted) > 0 {
			<-p.accepted
		}
		exec(t, conn, "SELECT pg_notify($1, 'r')", channel)
		got.want(t, "r")
		if want += " INFO"; lines.levels() != want {
			t.Errorf("levels of the log are %q, want %q", lines.levels(), want)
		}
		p.set("refuse")
	}
	if n := len(got); n != 0 {
		t.Errorf("the listener made %d more calls", n)
	}
}

// If the first of several hosts accepts connections but does not respond, the listener
// connects to the second one.
func TestFirstHostIsSilent(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	silent, _ := newProxy(t, db, "silent")
	got, _, _ := listen(t, strings.Replace(db, "@", "@"+silent.Addr().String()+",", 1))
	got.want(t, "*")
	exec(t, conn, "SELECT pg_notify($1, 'r')", channel)
	got.want(t, "r")
}

// Stop returns without delay in every state of the listener.
func TestStop(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	tests := map[string]struct {
		mode  string
		until func(t *testing.T, p *proxy, got calls)
	}{
		"after Start":      {"forward", func(*testing.T, *proxy, calls) {}},
		"while listening":  {"forward", func(t *testing.T, _ *proxy, got calls) { got.want(t, "*") }},
		"while connecting": {"silent", func(_ *testing.T, p *proxy, _ calls) { <-p.accepted }},
		"between attempts": {"refuse", func(_ *testing.T, p *proxy, _ calls) {
			// An attempt makes at most two connections. So the next pause is at least
			// 1.6 s.
			for range 12 {
				<-p.accepted
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, proxied := newProxy(t, db, test.mode)
			got, lines, stop := listen(t, proxied)
			test.until(t, p, got)
			logged := lines.levels()
			began := time.Now()
			stop()
			if took := time.Since(began); took > time.Second { // a connection attempt times out after 5 s
				t.Errorf("Stop took %v", took)
			}
			levels := lines.levels()
			if levels != logged && logged != "" || strings.Contains(levels, "WARN WARN") {
				t.Errorf("log: %s", lines.text.String())
			}
			if test.mode != "refuse" && levels != "" {
				t.Errorf("the stop was logged as a failure: %s", lines.text.String())
			}
		})
	}
}

func TestStopClosesTheConnection(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	conn := connect(t, db)
	got, _, stop := listen(t, db)
	got.want(t, "*")
	stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(testTimeout); ; <-ticker.C {
		var others int
		row := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		if err := row.Scan(&others); err != nil {
			t.Fatal(err)
		}
		if others == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still open", others)
		}
	}
}

func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	l, err := notify.New(notify.Config{URL: "postgres://host/db"})
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	l.Stop()
}

func TestBadURL(t *testing.T) {
	t.Parallel()
	if _, err := notify.New(notify.Config{URL: "postgres://host:port/db"}); err == nil {
		t.Error("no error")
	}
}
