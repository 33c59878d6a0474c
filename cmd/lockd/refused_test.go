package main

import (
	"database/sql"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the drivers with which the tests prepare databases
	_ "github.com/mattn/go-sqlite3"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// secret is in the settings of some servers. They must not print it.
const secret = "hunter2%40x"

// wantRefusal checks that lockd soon ends with exit code 1 and a short message with the
// wanted texts.
func wantRefusal(t *testing.T, p *apptest.Process, wants ...string) {
	t.Helper()
	begun := time.Now()
	if code := p.ExitCode(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	text := p.Output.String()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the output does not contain %q", want)
		}
	}
	if lines := p.Output.Lines(); len(lines) > max(5, len(wants)) || len(text) > 1500 {
		t.Errorf("the output is long: %d lines with %d bytes", len(lines), len(text))
	}
	for _, noise := range []string{"goroutine ", "panic", "Usage", "-env-file", "hunter2", "listening"} {
		if strings.Contains(text, noise) {
			t.Errorf("the output contains %q", noise)
		}
	}
	if t.Failed() {
		t.Logf("the output is:\n%s", text)
	}
}

func TestSQLiteFileThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	text := strings.Repeat("these are not the pages of a database\n", 1000)
	must(t, os.WriteFile(filepath.Join(folder, "text.db"), []byte(text), 0o600))
	must(t, os.Mkdir(filepath.Join(folder, "folder.db"), 0o700))

	tests := map[string]struct{ file, want string }{
		"in a missing folder": {"missing/locks.db", "must exist"},
		"a folder":            {"folder.db", "is a directory"},
		"not a database":      {"text.db", "not a database"},
		"below a file":        {"text.db/locks.db", "not a directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(folder, test.file)
			wantRefusal(t, launch(t, folder, environment(sqliteURL(path))), path, test.want)
		})
	}
	t.Cleanup(func() {
		if now, err := os.ReadFile(filepath.Join(folder, "text.db")); err != nil || string(now) != text {
			t.Errorf("the file that is not a database was changed: %v", err)
		}
	})
}

// freeAddress returns an address that no process listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

func TestPostgresThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	t.Run("nothing listens", func(t *testing.T) {
		t.Parallel()
		address := freeAddress(t)
		p := launch(t, t.TempDir(), environment("postgresql://u:"+secret+"@"+address+"/d"))
		wantRefusal(t, p, "Postgres", address, "connection refused")
	})
	t.Run("it never answers", func(t *testing.T) {
		t.Parallel()
		silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts connections for it
		must(t, err)
		t.Cleanup(func() { _ = silent.Close() })
		p := launch(t, t.TempDir(), environment("postgresql://u:"+secret+"@"+silent.Addr().String()+"/d"))
		wantRefusal(t, p, "Postgres", silent.Addr().String())
	})
	t.Run("no such database", func(t *testing.T) {
		t.Parallel()
		p := launch(t, t.TempDir(), environment(strings.Replace(testdb.Postgres(t), "/test_", "/missing_", 1)))
		wantRefusal(t, p, "Postgres", "missing_", "does not exist")
	})
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		databaseURL := withPassword(t, testdb.Postgres(t), "right"+secret)
		p := launch(t, t.TempDir(), environment(strings.Replace(databaseURL, "right", "wrong", 1)))
		wantRefusal(t, p, "Postgres", "password authentication failed")

		s := start(t, databaseURL, "LOG_LEVEL=debug")
		s.wantHeld(t, []hold{s.acquire(t, "r", "p")})
		s.Stop(t, syscall.SIGTERM)
		if strings.Contains(s.Output.String(), "hunter2") {
			t.Error("the log of a server contains the password")
		}
	})
}

// withPassword creates a role with a password that owns the database, and returns its
// URL.
func withPassword(t *testing.T, databaseURL, password string) string {
	t.Helper()
	db := open(t, "pgx", databaseURL)
	var name, file string
	must(t, db.QueryRow("SELECT current_database(), current_setting('hba_file')").Scan(&name, &file))
	// The role has the name of the database, which no other test uses.
	execute(t, db, "CREATE ROLE "+name+" LOGIN PASSWORD '"+strings.ReplaceAll(password, "%40", "@")+"'")
	t.Cleanup(func() {
		execute(t, db, "REASSIGN OWNED BY "+name+" TO postgres; DROP OWNED BY "+name+"; DROP ROLE "+name)
	})
	execute(t, db, "ALTER DATABASE "+name+" OWNER TO "+name)
	execute(t, db, "ALTER SCHEMA public OWNER TO "+name)

	rules, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append([]byte("host all "+name+" 127.0.0.1/32 scram-sha-256\n"), rules...), 0o600))
	execute(t, db, "SELECT pg_reload_conf()")
	guest := open(t, "pgx", strings.Replace(databaseURL, "postgres@", name+":guess@", 1))
	apptest.Eventually(t, "passwords are checked", func() bool { return guest.Ping() != nil })
	return strings.Replace(databaseURL, "postgres@", name+":"+password+"@", 1)
}

func open(t *testing.T, driver, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, source)
	must(t, err)
	db.SetMaxIdleConns(0) // each statement uses a new connection to the current server
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(statement, ": ", err)
	}
}

func TestPortThatIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	must(t, err)
	file := testdb.SQLite(t)
	p := launch(t, t.TempDir(), []string{"DATABASE_URL=" + sqliteURL(file), "PORT=" + port})
	wantRefusal(t, p, taken.Addr().String(), "PORT", "address already in use")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server that cannot listen created a database: %v", err)
	}
}

func TestEveryBadSettingIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	p := launch(t, t.TempDir(), []string{
		"DATABASE_URL=mysql://u:" + secret + "@h/d", "HOST=h:1", "PORT=http",
		"LOG_LEVEL=loud", "LOG_FORMAT=xml", "SWEEP_INTERVAL=10",
		"IDLE_RETENTION=-1h", "MAX_TTL=0s", "MAX_QUEUE=0", "SHUTDOWN_TIMEOUT=soon",
	})
	wantRefusal(t, p, "DATABASE_URL", "HOST", `"http"`, "LOG_LEVEL", "LOG_FORMAT", "SWEEP_INTERVAL",
		"IDLE_RETENTION", "MAX_TTL",
		"MAX_QUEUE", `"soon"`)
}

// TestDatabaseOfANewerVersionIsRefused starts a server on a newer schema. The server must
// not write to it, because it may not know all of it.
func TestDatabaseOfANewerVersionIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		s := start(t, databaseURL)
		h := s.acquire(t, "r", "p")
		s.Stop(t, syscall.SIGTERM)

		driver, source := "pgx", databaseURL
		if path, isFile := strings.CutPrefix(databaseURL, "sqlite:///"); isFile {
			driver, source = "sqlite3", path
		}
		db := open(t, driver, source)
		execute(t, db, "INSERT INTO lockd_schema_version (version) VALUES (9999)")
		p := launch(t, t.TempDir(), environment(databaseURL))
		wantRefusal(t, p, "9999", "newer version")
		only(t, p.Output.Lines())

		execute(t, db, "DELETE FROM lockd_schema_version WHERE version = 9999")
		start(t, databaseURL).wantHeld(t, []hold{h})
	})
}
