// Package testdb gives tests a real database, fresh for each test: a SQLite file, or a Postgres database on a throwaway
// cluster that [Main] starts for the package's tests. A missing Postgres is a failure, never a skip. Production code does
// not import it.
package testdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the connections that this package opens itself
)

// Cluster is a running Postgres server with a data folder of its own. It dies with the process that started it.
type Cluster struct {
	bin     string
	dir     string
	port    int
	options []string            // of the server program, beyond ours
	account *syscall.Credential // nil: this process's own
	server  *exec.Cmd
}

// Durable are the options of a server that syncs what it commits, as one in production does: for measuring.
var Durable = []string{"-c", "fsync=on", "-c", "full_page_writes=on"}

// NewCluster makes a cluster on a free port of 127.0.0.1 and starts it, with more options for the server program.
func NewCluster(options ...string) (_ *Cluster, err error) {
	c := &Cluster{options: options}
	if c.bin, err = serverBinaries(); err != nil {
		return nil, err
	}
	// Not under a test's own folder: the account that runs the server could not reach it.
	if c.dir, err = os.MkdirTemp("", "testdb-"); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 { // the server refuses to run as root
		if c.account, err = unprivileged(); err != nil {
			return nil, err
		}
		if err := os.Chown(c.dir, int(c.account.Uid), int(c.account.Gid)); err != nil {
			return nil, err
		}
	}
	if c.port, err = freePort(); err != nil {
		return nil, err
	}
	initdb := c.command("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return c, c.Start()
}

// Start runs the server on the cluster's port and returns when it answers.
func (c *Cluster) Start() error {
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Without fsync the tests are quick; what they kill is the server, not the machine.
	c.server = c.command("postgres", append([]string{
		"-D", c.data(), "-k", c.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(c.port),
		"-F", "-c", "full_page_writes=off", "-c", "max_connections=200",
	}, c.options...)...)
	c.server.Stdout, c.server.Stderr = log, log
	if err := c.server.Start(); err != nil {
		return err
	}
	return c.waitUntilReady()
}

func (c *Cluster) waitUntilReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("pgx", c.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("postgres did not start: %w\n%s", err, text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the server at once, as a crash would, and leaves the data. Start brings it back.
func (c *Cluster) Stop() error {
	if err := c.server.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := c.server.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// Close stops the server and deletes its data.
func (c *Cluster) Close() error {
	return errors.Join(c.Stop(), os.RemoveAll(c.dir))
}

// URL is the address of one of the cluster's databases.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", c.port, database)
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// serverBinaries finds the folder that holds initdb and postgres: on the PATH, by pg_config, or where Debian keeps the
// versions.
func serverBinaries() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		candidates = append(candidates, string(out[:len(out)-1]))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(debian)
	for _, dir := range append(candidates, debian...) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
				return dir, nil
			}
		}
	}
	return "", errors.New("the tests need the Postgres server programs initdb and postgres: " +
		"install Debian's package postgresql, or put their folder on the PATH")
}

// unprivileged is the account that runs the server when this process is root.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("the Postgres server refuses to run as root, and there is no account postgres or nobody to run it as")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
