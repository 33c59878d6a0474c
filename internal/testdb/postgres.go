// Package testdb gives tests a real database, fresh for each test: a SQLite file, or a Postgres database on a throwaway
// cluster that [Main] starts for the package's tests. A missing Postgres is a failure, never a skip. Production code does
// not import it.
package testdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the connections that this package opens itself
)

// Cluster is a Postgres server with a data folder of its own. It dies with the process that started it.
type Cluster struct {
	bin     string
	dir     string
	port    int
	options []string            // of the server program, beyond ours
	account *syscall.Credential // nil: this process's own
	server  *exec.Cmd           // nil while it does not run
}

// Durable are the options of a server that syncs what it commits, as one in production does: for measuring.
var Durable = []string{"-c", "fsync=on", "-c", "full_page_writes=on"}

// NewCluster makes a cluster on a free port of 127.0.0.1 and starts it, with more options for the server program.
func NewCluster(options ...string) (*Cluster, error) {
	c, err := newFolder(options)
	if err != nil {
		return nil, err
	}
	if err := c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8",
		"--locale=C"); err != nil {
		return nil, err
	}
	return c, c.Start()
}

// newFolder makes what a cluster needs before it has data.
func newFolder(options []string) (_ *Cluster, err error) {
	c := &Cluster{options: options}
	if c.bin, err = serverBinaries(); err != nil {
		return nil, err
	}
	if c.dir, c.account, err = serverFolder(); err != nil {
		return nil, err
	}
	c.port, err = freePort()
	return c, err
}

// serverFolder makes a folder for a server program that refuses to run as root, and names the account that runs it; nil is
// this process's own.
func serverFolder() (dir string, account *syscall.Credential, err error) {
	// Not under a test's own folder: the account that runs the server could not reach it.
	if dir, err = os.MkdirTemp("", "testdb-"); err != nil || os.Getuid() != 0 {
		return dir, nil, err
	}
	if account, err = unprivileged(); err != nil {
		return dir, nil, err
	}
	return dir, account, os.Chown(dir, int(account.Uid), int(account.Gid))
}

// run runs one of Postgres's programs to its end.
func (c *Cluster) run(name string, args ...string) error {
	if out, err := c.command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// Start runs the server on the cluster's port and returns when it answers.
func (c *Cluster) Start() error {
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Without fsync the tests are quick; what they kill is the server, not the machine.
	server := c.command("postgres", append([]string{
		"-D", c.data(), "-k", c.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(c.port),
		"-F", "-c", "full_page_writes=off", "-c", "max_connections=200", "-c", "wal_retrieve_retry_interval=50ms",
	}, c.options...)...)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return err
	}
	c.server = server
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

// Stop ends the server at once, as a crash of one of its processes would, and leaves the data. Start brings it back.
func (c *Cluster) Stop() error {
	if err := c.server.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	return c.wait()
}

// Kill ends every process of the server with SIGKILL, in the middle of what it is at, and leaves the data. Start brings the
// server back.
func (c *Cluster) Kill() error {
	// The others would outlive their parent by a moment: long enough to end a commit and to answer it.
	if err := c.stand(); err != nil {
		return err
	}
	children, err := c.signalChildren(syscall.SIGKILL)
	if err != nil {
		return err
	}
	for _, child := range children { // the memory that they share keeps the server from starting again until they are gone
		if err := waitForEnd(child); err != nil {
			return err
		}
	}
	if err := c.server.Process.Kill(); err != nil {
		return err
	}
	return c.wait()
}

// signalChildren signals every process of the server but the first, which must stand still.
func (c *Cluster) signalChildren(signal syscall.Signal) (children []string, err error) {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.server.Process.Pid))
	if err != nil {
		return nil, err
	}
	children = strings.Fields(string(list))
	for _, child := range children {
		id, err := strconv.Atoi(child)
		if err != nil {
			return nil, err
		}
		// One that has just ended by itself is still its parent's: the id is nobody else's.
		if err := syscall.Kill(id, signal); err != nil {
			return nil, err
		}
	}
	return children, nil
}

// Freeze has every process of the server stand still; the connections to it stay open. Thaw lets it go on.
func (c *Cluster) Freeze() error {
	if err := c.stand(); err != nil {
		return err
	}
	_, err := c.signalChildren(syscall.SIGSTOP)
	return err
}

// Thaw ends what Freeze began.
func (c *Cluster) Thaw() error {
	_, err := c.signalChildren(syscall.SIGCONT)
	return errors.Join(err, c.server.Process.Signal(syscall.SIGCONT))
}

// stand returns when the first process of the server stands still, so that there will be no more of them.
func (c *Cluster) stand() error {
	if err := c.server.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.server.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("postgres does not stand still: %#x, %w", status, err)
	}
	return nil
}

// waitForEnd returns when a process that was killed has ended, whether or not its parent has taken note of it.
func waitForEnd(process string) error {
	deadline := time.After(30 * time.Second)
	for {
		text, err := os.ReadFile("/proc/" + process + "/stat")
		_, afterName, _ := strings.Cut(string(text), ") ")
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(afterName, "Z") {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("process %s was killed and does not end: %s, %w", process, text, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// wait returns when the server has ended, however it did.
func (c *Cluster) wait() error {
	err := c.server.Wait()
	c.server = nil
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}

// Close stops the server, if it runs, and deletes its data.
func (c *Cluster) Close() error {
	var err error
	if c.server != nil {
		err = c.Stop()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// Address is where the server listens.
func (c *Cluster) Address() string { return "127.0.0.1:" + strconv.Itoa(c.port) }

// URL is the address of one of the cluster's databases.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", c.Address(), database)
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// serverBinaries finds the folder of the programs that this package runs: on the PATH, where links may lead to it, by
// pg_config, or where Debian keeps the versions.
func serverBinaries() (string, error) {
	programs := []string{"initdb", "postgres", "pg_basebackup"}
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(path))
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		candidates = append(candidates, string(out[:len(out)-1]))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(debian)
	for _, dir := range append(candidates, debian...) {
		missing := func(program string) bool {
			_, err := os.Stat(filepath.Join(dir, program))
			return err != nil
		}
		if !slices.ContainsFunc(programs, missing) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the tests need the Postgres server programs %s: "+
		"install Debian's package postgresql, or put their folder on the PATH", strings.Join(programs, ", "))
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
