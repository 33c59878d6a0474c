package testdb_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"resource-lock-manager/internal/testdb"
)

func TestMain(m *testing.M) {
	os.Exit(testdb.Main(m))
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestPostgresIsFreshForEachTest(t *testing.T) {
	var first string
	t.Run("first", func(t *testing.T) {
		first = testdb.Postgres(t)
		if _, err := open(t, first).Exec("CREATE TABLE t ()"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("second", func(t *testing.T) {
		second := testdb.Postgres(t)
		if _, err := open(t, second).Exec("CREATE TABLE t ()"); err != nil {
			t.Error(err)
		}
	})
	if err := open(t, first).Ping(); err == nil {
		t.Error("the database of a test that has ended still exists")
	}
}

func TestClusterComesBackWithItsData(t *testing.T) {
	cluster, err := testdb.NewCluster()
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, cluster.URL("postgres"))
	if _, err := db.Exec("CREATE TABLE t AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	var dir string
	if err := db.QueryRow("SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}

	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(); err == nil {
		t.Error("a stopped cluster answers")
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRow("SELECT n FROM t").Scan(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}

	if err := cluster.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a closed cluster left its data in %s: %v", dir, err)
	}
}

// newCluster makes a cluster that ends with the test.
func newCluster(t *testing.T, options ...string) *testdb.Cluster {
	t.Helper()
	cluster, err := testdb.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	closeAtTheEnd(t, cluster)
	return cluster
}

func closeAtTheEnd(t *testing.T, cluster *testdb.Cluster) {
	t.Helper()
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
}

// count inserts numbers until an insert fails. It sends the number of acknowledged
// inserts.
func count(db *sql.DB, acknowledged chan<- int) {
	for n := 0; ; n++ {
		if _, err := db.Exec("INSERT INTO t VALUES ($1)", n); err != nil {
			acknowledged <- n
			return
		}
	}
}

// wantCounted checks that every acknowledged number is stored.
func wantCounted(t *testing.T, db *sql.DB, acknowledged int) {
	t.Helper()
	var n int
	err := db.QueryRow("SELECT count(*) FROM t WHERE n BETWEEN 0 AND $1 - 1", acknowledged).Scan(&n)
	if err != nil || n != acknowledged {
		t.Errorf("%d of %d acknowledged rows are stored, %v", n, acknowledged, err)
	}
}

func TestKilledClusterKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testdb.Durable...)
	db := open(t, cluster.URL("postgres"))
	if _, err := db.Exec("CREATE TABLE t (n bigint)"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := db.Exec("TRUNCATE t"); err != nil {
			t.Fatal(err)
		}
		acknowledged := make(chan int)
		go count(db, acknowledged)
		waitForRows(t, db, 20)
		if err := cluster.Kill(); err != nil {
			t.Fatal(err)
		}
		n := <-acknowledged
		if err := db.Ping(); err == nil {
			t.Error("a killed cluster answers")
		}
		if err := cluster.Start(); err != nil {
			t.Fatal(err)
		}
		wantCounted(t, db, n)
	}
}

// TestPromotedStandbyHasWhatWasCommitted also checks that a promoted standby does not
// wait for another one, and that it may have a standby of its own.
func TestPromotedStandbyHasWhatWasCommitted(t *testing.T) {
	t.Parallel()
	primary := newCluster(t)
	db := open(t, primary.URL("postgres"))
	if _, err := db.Exec("CREATE TABLE t (n bigint)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		standby, err := primary.NewStandby()
		if err != nil {
			t.Fatal(err)
		}
		closeAtTheEnd(t, standby)
		db := open(t, primary.URL("postgres"))
		if _, err := db.Exec("TRUNCATE t"); err != nil {
			t.Fatal(err)
		}
		if err := standby.Stop(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := db.ExecContext(short, "INSERT INTO t VALUES (-1)"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a commit without the standby: %v", err)
		}
		cancel()
		if err := standby.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := make(chan int)
		go count(db, acknowledged)
		waitForRows(t, db, 20)
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		n := <-acknowledged
		if err := standby.Promote(); err != nil {
			t.Fatal(err)
		}
		db = open(t, standby.URL("postgres"))
		wantCounted(t, db, n)
		if _, err := db.Exec("INSERT INTO t VALUES (-1)"); err != nil {
			t.Error(err)
		}
		primary = standby
	}
}

func waitForRows(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	for n := 0; n < want; {
		if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}
