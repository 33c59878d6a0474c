// Package testdb gives each test a new database: a SQLite file, or a Postgres database on
// a cluster that [Main] starts for the package's tests. A missing Postgres is a failure,
// never a skip. Production code does not import this package.
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

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the connections that this package opens
)

// Cluster is a Postgres server with its own data folder. It ends with the process that
// started it.
type Cluster struct {
	bin     string
	dir     string
	port    int
	options []string            // additional options of the server program
	account *syscall.Credential // nil: this process's account
	server  *exec.Cmd           // nil while the server does not run
}

// Durable are the options of a server that syncs its commits, as a production server
// does. They are for measurements.
var Durable = []string{"-c", "fsync=on", "-c", "full_page_writes=on"}

// NewCluster makes a cluster on a free port of 127.0.0.1 and starts it. The options are
// additional options of the server program.
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

// newFolder makes the data folder of a cluster, without data.
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

// serverFolder makes a folder for a server program that refuses to run as root. It
// returns the account that runs the server, or nil for this process's account.
func serverFolder() (dir string, account *syscall.Credential, err error) {
	// The account that runs the server could not read a test's own folder.
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
	// Without fsync the tests are faster. They kill the server but not the machine.
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

// Stop ends the server at once, as a crash of one of its processes does. The data stays,
// and Start starts the server again.
func (c *Cluster) Stop() error {
	if err := c.server.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	return c.wait()
}

// Kill ends every process of the server with SIGKILL. The data stays, and Start starts
// the server again.
func (c *Cluster) Kill() error {
	// Other processes outlive the first one for a short time, which is long enough to
	// finish a commit and to answer it.
	if err := c.awaitStopped(); err != nil {
		return err
	}
	children, err := c.signalChildren(syscall.SIGKILL)
	if err != nil {
		return err
	}
	for _, child := range children { // until they end, their shared memory prevents a new start
		if err := waitForEnd(child); err != nil {
			return err
		}
	}
	if err := c.server.Process.Kill(); err != nil {
		return err
	}
	return c.wait()
}

// signalChildren signals every process of the server except the first one, which must be
// stopped.
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
		// A process that has just ended still belongs to its stopped parent, so no other
		// process has its id.
		if err := syscall.Kill(id, signal); err != nil {
			return nil, err
		}
	}
	return children, nil
}

// Freeze stops every process of the server with SIGSTOP. The connections to it stay open.
// Thaw lets it continue.
func (c *Cluster) Freeze() error {
	if err := c.awaitStopped(); err != nil {
		return err
	}
	_, err := c.signalChildren(syscall.SIGSTOP)
	return err
}

// Thaw undoes Freeze.
func (c *Cluster) Thaw() error {
	_, err := c.signalChildren(syscall.SIGCONT)
	return errors.Join(err, c.server.Process.Signal(syscall.SIGCONT))
}

// awaitStopped returns when the first process of the server is stopped. From then on it
// starts no other process.
func (c *Cluster) awaitStopped() error {
	if err := c.server.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.server.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("postgres has not stopped: %#x, %w", status, err)
	}
	return nil
}

// waitForEnd returns when a killed process has ended, also if its parent has not waited
// for it.
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
			return fmt.Errorf("process %s was killed but has not ended: %s, %w", process, text, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// wait returns when the server has ended, for any reason.
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

// Address returns the address that the server listens on.
func (c *Cluster) Address() string { return "127.0.0.1:" + strconv.Itoa(c.port) }

// URL returns the URL of one of the cluster's databases.
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

// serverBinaries returns the folder of the server programs. It searches the PATH and
// follows links, asks pg_config, and searches where Debian installs them.
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

// unprivileged returns the account that runs the server when this process is root.
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
	return nil, errors.New("the Postgres server refuses to run as root, " +
		"and there is no account postgres or nobody to run it as")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
