package testdb_test

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"testing"

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
		t.Error("the database of a test that has ended is still there")
	}
}

// A cluster that was stopped, as by a crash, comes back at the same place with what was committed.
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
