package testdb

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// shared is the cluster of this test binary. The first test that needs it starts it.
var shared = sync.OnceValues(func() (*Cluster, error) {
	started.Store(true)
	return NewCluster()
})

// started reports to Main that there is a cluster to stop.
var started atomic.Bool

// Main runs a package's tests and then stops the cluster that they used. It returns the
// exit code.
func Main(m *testing.M) int {
	flag.Parse()
	code := m.Run()
	if started.Load() {
		if cluster, err := shared(); err == nil {
			if err := cluster.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "stopping Postgres:", err)
			}
		}
	}
	return code
}

// SQLite returns the path of a database file that does not exist yet, in a folder of the
// test.
func SQLite(tb testing.TB) string {
	return filepath.Join(tb.TempDir(), "locks.db")
}

// Postgres returns the URL of a new, empty database, which is dropped when the test ends.
// The package's TestMain must call Main.
func Postgres(tb testing.TB) string {
	tb.Helper()
	cluster, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if err := cluster.exec("CREATE DATABASE " + name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := cluster.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return cluster.URL(name)
}
