package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/store"
)

// openOnly is an environment variable with the path of a SQLite file. If it is set, the
// test binary only opens and closes that file.
const openOnly = "STORE_TEST_OPEN"

// openAndSay prints why a file cannot be opened and returns the exit code.
func openAndSay(path string) int {
	cfg := store.Config{Driver: store.SQLite, Source: path, MaxQueue: 1, Logger: slog.New(slog.DiscardHandler)}
	s, err := store.Open(context.Background(), cfg)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Print(err)
		return 1
	}
	return 0
}

// openAsNobody opens a file in a process of the user nobody, if root runs the tests, and
// returns its output.
func openAsNobody(t *testing.T, folder, path string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // the user nobody may not enter the folder of the binary
	cmd.Dir, cmd.Env = folder, []string{openOnly + "=" + path, "GORACE=atexit_sleep_ms=0"}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody(t), Gid: nobody(t)}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String()
}

func nobody(t *testing.T) uint32 {
	t.Helper()
	account, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id)
}

// made creates a valid database.
func made(t *testing.T, path string) {
	t.Helper()
	cfg := config(t, store.SQLite)
	cfg.Source = path
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(nil)
	execute(t, s, acquire("r", "p"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The error for a database that cannot be opened has its absolute path, the file at
// fault, and advice.
func TestSQLiteOpenErrors(t *testing.T) {
	t.Parallel()
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mode := func(mode os.FileMode, suffix string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			made(t, path)
			if suffix != "" {
				must(t, os.WriteFile(path+suffix, nil, 0o600))
			}
			must(t, os.Chmod(path, 0o666))
			must(t, os.Chmod(path+suffix, mode))
		}
	}
	create := func(statement string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			run(t, store.Config{Driver: store.SQLite, Source: path}, statement)
		}
	}
	me, owner := "this server runs as nobody", "root (uid 0)"
	if os.Getuid() != 0 {
		me, owner = fmt.Sprintf("(uid %d)", os.Getuid()), ""
	}
	for name, test := range map[string]struct {
		path    string // below the test's folder, locks.db if empty
		prepare func(t *testing.T, path string)
		want    []string // FOLDER stands for the folder
	}{
		"folder missing": {
			path: "missing/locks.db",
			want: []string{"its folder FOLDER/missing must exist", "DATABASE_URL"},
		},
		"below a file":     {path: "a.txt/locks.db", want: []string{"FOLDER/a.txt is not a directory", "DATABASE_URL"}},
		"far below a file": {path: "a.txt/more/locks.db", want: []string{"FOLDER/a.txt/more", "not a directory"}},
		"a folder":         {path: "sub", want: []string{"it is a directory", "DATABASE_URL"}},
		"a link to itself": {path: "loop", want: []string{"too many levels of symbolic links"}},
		"a name too long":  {path: strings.Repeat("x", 300), want: []string{"file name too long"}},
		"a pipe": {
			prepare: func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o666)) },
			want:    []string{"no regular file"},
		},
		"no database": {path: "a.txt", want: []string{"not a database", "DATABASE_URL"}},
		"another encoding": {
			prepare: create("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a)"),
			want:    []string{"UTF-16le", "must be UTF-8"},
		},
		"another's tables": {
			prepare: create("CREATE TABLE resource_locks (name TEXT)"),
			want:    []string{"tables that are not those of this program", "a file of its own", "resource_locks"},
		},
		"another's tables 2": {
			prepare: create("CREATE TABLE token_floor (x)"),
			want:    []string{"tables that are not those of this program", "token_floor"},
		},
		"damaged": {
			prepare: func(t *testing.T, path string) {
				made(t, path)
				text, err := os.ReadFile(path)
				must(t, err)
				copy(text[100:], bytes.Repeat([]byte{0xff}, len(text)-100))
				must(t, os.WriteFile(path, text, 0o666))
			},
			want: []string{"it is damaged", "restore a backup"},
		},
		"cut off": {
			prepare: func(t *testing.T, path string) {
				made(t, path)
				must(t, os.Truncate(path, 6000))
			},
			want: []string{"it is damaged", "restore a backup"},
		},
		"several names": {
			prepare: func(t *testing.T, path string) { made(t, path); must(t, os.Link(path, path+"2")) },
			want:    []string{"several names", "leave it only this name"},
		},
		"without its file": {
			prepare: func(t *testing.T, path string) { must(t, os.WriteFile(path+"-wal", []byte("commits"), 0o666)) },
			want:    []string{"missing or empty", "FOLDER/locks.db-wal is there"},
		},
		"locked by a program": {
			prepare: func(t *testing.T, path string) {
				made(t, path)
				conn, err := connect(t, store.Config{Driver: store.SQLite, Source: path}).Conn(t.Context())
				must(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				_, err = conn.ExecContext(t.Context(), "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
				must(t, err)
			},
			want: []string{"another program has locked it", "end that program"},
		},
		"left by root": {
			prepare: func(t *testing.T, path string) { made(t, path); must(t, os.Chmod(path, 0o400)) },
			want:    []string{"FOLDER/locks.db: permission denied", "its owner is " + owner, me},
		},
		"file of another": {
			prepare: mode(0o400, ""),
			want: []string{
				"FOLDER/locks.db: permission denied", "its owner is ", "its mode -r--------", me, "must be writable",
			},
		},
		"file not read": {
			prepare: mode(0, ""),
			want:    []string{"FOLDER/locks.db: permission denied", "its mode ----------", me},
		},
		"log of another": {
			prepare: mode(0o400, "-wal"),
			want:    []string{"FOLDER/locks.db-wal: permission denied", "its mode -r--------", me},
		},
		"index of another": {
			prepare: mode(0o400, "-shm"),
			want:    []string{"FOLDER/locks.db-shm: permission denied", "its mode -r--------", me},
		},
		"lock of another": {
			prepare: mode(0, ".lock"),
			want: []string{
				"FOLDER/locks.db.lock: permission denied", "its mode ----------", me,
				"delete it when no server of an earlier version",
			},
		},
		"folder not written": {
			prepare: func(t *testing.T, path string) { made(t, path); must(t, os.Chmod(filepath.Dir(path), 0o555)) },
			want:    []string{"FOLDER: permission denied", "its mode dr-xr-xr-x", me, "its folder must be writable"},
		},
		"folder not entered": {
			path: "closed/in/locks.db",
			prepare: func(t *testing.T, path string) {
				must(t, os.MkdirAll(filepath.Dir(path), 0o777))
				must(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o600))
			},
			want: []string{"FOLDER/closed: permission denied", "its mode drw-------", me},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, err := os.MkdirTemp("", "open-errors-") // unlike t.TempDir, the user nobody can enter it
			must(t, err)
			t.Cleanup(func() {
				must(t, exec.Command("chmod", "-R", "u+rwx", folder).Run())
				must(t, os.RemoveAll(folder))
			})
			must(t, os.Chmod(folder, 0o777))
			must(t, os.WriteFile(filepath.Join(folder, "a.txt"), []byte(strings.Repeat("no database\n", 1000)), 0o666))
			must(t, os.Mkdir(filepath.Join(folder, "sub"), 0o777))
			must(t, os.Symlink("loop", filepath.Join(folder, "loop")))
			if test.path == "" {
				test.path = "locks.db"
			}
			if test.prepare != nil {
				test.prepare(t, filepath.Join(folder, test.path))
			}
			if os.Getuid() == 0 && name != "left by root" {
				must(t, exec.Command("chown", "-R", "nobody", folder).Run())
			}
			for _, base := range []string{folder, "."} { // as an absolute path and as one relative to the working directory
				got := openAsNobody(t, folder, filepath.Join(base, test.path))
				for _, want := range append(test.want, "cannot use the SQLite database FOLDER/"+test.path) {
					if want := strings.ReplaceAll(want, "FOLDER", folder); !strings.Contains(got, want) {
						t.Errorf("it does not say %q: %s", want, got)
					}
				}
				if strings.Contains(got, "\n") {
					t.Errorf("more than a line: %s", got)
				}
			}
		})
	}
}
