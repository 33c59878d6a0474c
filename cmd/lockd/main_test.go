package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

const (
	runMain      = "LOCKD_RUN_MAIN" // set to 1: the test binary is lockd, built with the test's flags such as -race
	maxFileBytes = "LOCKD_TEST_MAX_FILE_BYTES"
)

func TestMain(m *testing.M) {
	if os.Getenv(runMain) == "1" {
		if limit := os.Getenv(maxFileBytes); limit != "" {
			limitFiles(limit)
		}
		main()
		return
	}
	apptest.CatchIgnored()
	os.Exit(testdb.Main(m))
}

// limitFiles makes this process unable to write files beyond a size.
func limitFiles(limit string) {
	n, err := strconv.ParseUint(limit, 10, 64)
	if err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
	}
	if err != nil {
		panic(err)
	}
}

// onBoth runs a test on a new database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, sqliteURL(testdb.SQLite(t)))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, testdb.Postgres(t))
	})
}

func sqliteURL(path string) string { return "sqlite:///" + path }

// launch starts lockd in a folder, with only the given variables in its environment.
func launch(tb testing.TB, folder string, environment []string, args ...string) *apptest.Process {
	tb.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = folder
	cmd.Env = append([]string{runMain + "=1"}, environment...)
	return apptest.Launch(tb, cmd)
}

// server is a lockd that listens.
type server struct {
	*apptest.Process
	*client
}

// start runs lockd on a database and waits until it listens.
func start(tb testing.TB, databaseURL string, more ...string) *server {
	tb.Helper()
	return listening(tb, launch(tb, tb.TempDir(), environment(databaseURL, more...)))
}

func environment(databaseURL string, more ...string) []string {
	return append([]string{"DATABASE_URL=" + databaseURL, "PORT=0", "LOG_FORMAT=json"}, more...)
}

func listening(tb testing.TB, p *apptest.Process) *server {
	tb.Helper()
	return &server{p, newClient(tb, p.Address(tb))}
}

// only returns the only element of lines. It fails the test if there is not exactly one.
func only(tb testing.TB, lines []string) string {
	tb.Helper()
	if len(lines) != 1 {
		tb.Fatal(fmt.Sprintf("%d lines, want one:\n", len(lines)) + strings.Join(lines, "\n"))
	}
	return lines[0]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
