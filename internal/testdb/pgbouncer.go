package testdb

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pgbouncerConfig makes every client the cluster's administrator.
const pgbouncerConfig = `[databases]
* = host=%s port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 200
`

// PgBouncer returns another URL for a database, through a PgBouncer in transaction mode.
// Its clients share the given number of connections. It ends with the test.
func PgBouncer(tb testing.TB, databaseURL string, connections int) string {
	tb.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // the PATH of an ordinary user does not contain this folder
	}
	if _, err := os.Stat(program); err != nil {
		tb.Fatal("this test needs pgbouncer: install Debian's package pgbouncer, or put the program on the PATH")
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	dir, account, err := serverFolder()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf(pgbouncerConfig, u.Hostname(), u.Port(), port, connections)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}

	cmd := exec.Command(program, config)
	var said strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // SIGTERM ends it at once
		if err := cmd.Wait(); tb.Failed() {
			tb.Logf("pgbouncer: %v\n%s", err, said.String())
		}
	})
	u.Host = fmt.Sprint("127.0.0.1:", port)
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	deadline := time.After(30 * time.Second)
	for {
		err := db.PingContext(tb.Context())
		if err == nil {
			return u.String()
		}
		select {
		case <-deadline:
			tb.Fatalf("pgbouncer does not answer: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
