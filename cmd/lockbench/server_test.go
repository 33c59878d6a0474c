package main

import (
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// database is a new database of one section.
type database struct {
	url          string
	transactions func(t *testing.T) int64 // a number that grows by one with every transaction that writes
}

// kinds are the kinds of databases.
var kinds = []struct {
	name string
	make func(s *suite, t *testing.T) database
}{
	{"SQLite", (*suite).sqlite},
	{"Postgres", (*suite).postgres},
}

func (*suite) sqlite(t *testing.T) database {
	path := testdb.SQLite(t)
	return database{"sqlite:///" + path, func(t *testing.T) int64 {
		// The header of the WAL's index counts the transactions:
		// https://sqlite.org/walformat.html
		index, err := os.ReadFile(path + "-shm")
		must(t, err)
		return int64(binary.NativeEndian.Uint32(index[8:12]))
	}}
}

func (s *suite) postgres(t *testing.T) database {
	admin := openPostgres(t, s.cluster.URL("postgres"))
	name := "bench_" + strings.ToLower(rand.Text())
	_, err := admin.Exec("CREATE DATABASE " + name)
	must(t, err)
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return database{s.cluster.URL(name), func(t *testing.T) (n int64) {
		// Each transaction takes one number. The statistics would show them later.
		must(t, admin.QueryRow("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").Scan(&n))
		return n
	}}
}

// openPostgres opens one connection.
func openPostgres(t *testing.T, databaseURL string) *sql.DB {
	db, err := sql.Open("pgx", databaseURL)
	must(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// server is a lockd with the default settings.
type server struct {
	*apptest.Process
	url     *url.URL
	startUp time.Duration // the time until it answered
}

func (s *suite) start(t *testing.T, databaseURL string) *server {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := free.Addr().String()
	must(t, free.Close())
	_, port, _ := net.SplitHostPort(address)

	// The log has the default level and is discarded: a reader would share the machine.
	cmd := exec.Command("sh", "-c", `exec "$0" 2>/dev/null`, s.program)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"DATABASE_URL=" + databaseURL, "PORT=" + port}, s.settings...)
	begun := time.Now()
	running := &server{Process: apptest.Launch(t, cmd), url: &url.URL{Scheme: "http", Host: address}}
	t.Cleanup(func() { running.stop(t) })
	apptest.Eventually(t, "lockd answers", func() bool {
		c, err := dial(running.url)
		if err != nil {
			return false
		}
		defer c.close()
		return c.must(c.request(http.MethodGet, "/readyz", nil), http.StatusOK) == nil
	})
	running.startUp = time.Since(begun)
	return running
}

// stop stops the server in order, unless it has ended.
func (r *server) stop(t *testing.T) {
	select {
	case <-r.Exited:
		return
	default:
	}
	r.Signal(t, syscall.SIGTERM)
	if code := r.ExitCode(t); code != 0 {
		t.Errorf("lockd ended with exit code %d", code)
	}
}

// compare measures the rounds of a workload and prints the result.
func (s *suite) compare(t *testing.T, kind string, to *server, workload string, o options) report {
	t.Helper()
	w, err := find(workload)
	must(t, err)
	o.url, o.duration, o.rounds = to.url, s.length, s.rounds
	r, err := compare(w, o, io.Discard)
	must(t, err)
	ratio := ""
	if o.floor {
		ratio = fmt.Sprintf(", ratio %.2f", r.Ratio)
	}
	fmt.Fprintf(t.Output(), "%s, %s, %d connections: %.0f/s, p99 %.2f ms%s\n",
		kind, workload, o.connections, r.Server.PerSecond, r.Server.P99, ratio)
	if workload == "pairs" && s.capacity[key(kind, o.connections)] == 0 {
		s.capacity[key(kind, o.connections)] = r.Server.PerSecond
	}
	return r
}

// capacityOf returns the number of pairs a second of the server in a closed loop.
func (s *suite) capacityOf(t *testing.T, kind string, of *server, connections int) float64 {
	t.Helper()
	if s.capacity[key(kind, connections)] == 0 {
		s.compare(t, kind, of, "pairs", options{connections: connections})
	}
	return s.capacity[key(kind, connections)]
}

func key(kind string, connections int) string { return fmt.Sprint(kind, connections) }

// each runs a part of a section for each kind of database, with a new server and
// database.
func (s *suite) each(t *testing.T, run func(t *testing.T, kind string, on *server, db database)) {
	for _, kind := range kinds {
		if !t.Run(kind.name, func(t *testing.T) {
			db := kind.make(s, t)
			run(t, kind.name, s.start(t, db.url), db)
		}) {
			t.FailNow()
		}
	}
}
