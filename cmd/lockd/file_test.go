package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// launchOn starts lockd in the mount namespace of a disk.
func launchOn(t *testing.T, disk *robust.SmallDisk, databaseURL string) *apptest.Process {
	t.Helper()
	cmd := exec.Command(disk.Program(t, os.Args[0]))
	cmd.Dir, cmd.Env = t.TempDir(), append(environment(databaseURL), runMain+"=1", "PATH="+os.Getenv("PATH"))
	return apptest.Launch(t, cmd)
}

// TestSecondServerOnTheFile checks that two servers never use one file, whatever path the
// second one uses, and whatever happened to the file x.db.lock.
func TestSecondServerOnTheFile(t *testing.T) {
	t.Parallel()
	t.Run("lock file deleted", func(t *testing.T) {
		t.Parallel()
		path := testdb.SQLite(t)
		s := start(t, sqliteURL(path))
		must(t, os.Remove(path+".lock"))
		wantSecondRefused(t, s, path, launch(t, t.TempDir(), environment(sqliteURL(path))))
	})
	t.Run("lock file replaced", func(t *testing.T) {
		t.Parallel()
		path := testdb.SQLite(t)
		s := start(t, sqliteURL(path))
		must(t, os.Remove(path+".lock"))
		must(t, os.WriteFile(path+".lock", nil, 0o600))
		wantSecondRefused(t, s, path, launch(t, t.TempDir(), environment(sqliteURL(path))))
	})
	t.Run("by a symbolic link to the folder", func(t *testing.T) {
		t.Parallel()
		path := testdb.SQLite(t)
		s := start(t, sqliteURL(path))
		other := filepath.Join(t.TempDir(), "other")
		must(t, os.Symlink(filepath.Dir(path), other))
		other = filepath.Join(other, filepath.Base(path))
		wantSecondRefused(t, s, other, launch(t, t.TempDir(), environment(sqliteURL(other))))
	})
	t.Run("by a hard link in another folder", func(t *testing.T) {
		t.Parallel()
		path := testdb.SQLite(t)
		s := start(t, sqliteURL(path))
		other := testdb.SQLite(t)
		must(t, os.Link(path, other))
		wantSecondRefused(t, s, other, launch(t, t.TempDir(), environment(sqliteURL(other))))
	})
	t.Run("by a bind mount of the folder", func(t *testing.T) {
		t.Parallel()
		disk := robust.NewSmallDisk(t, 64<<20)
		s := listening(t, launchOn(t, disk, disk.DatabaseURL()))
		other := t.TempDir()
		disk.Run(t, "mount", "--bind", disk.Folder(), other)
		disk.Run(t, "rm", filepath.Join(other, "locks.db.lock"))
		path := filepath.Join(other, "locks.db")
		wantSecondRefused(t, s, path, launchOn(t, disk, sqliteURL(path)))
	})
	t.Run("by a bind mount of the file", func(t *testing.T) {
		t.Parallel()
		disk := robust.NewSmallDisk(t, 64<<20)
		s := listening(t, launchOn(t, disk, disk.DatabaseURL()))
		other := testdb.SQLite(t)
		must(t, os.WriteFile(other, nil, 0o600))
		disk.Run(t, "mount", "--bind", filepath.Join(disk.Folder(), "locks.db"), other)
		wantSecondRefused(t, s, other, launchOn(t, disk, sqliteURL(other)))
		s.Stop(t, syscall.SIGTERM)
		// On this path the server would keep its newest commits in a file that the next
		// server does not find.
		wantRefusal(t, launchOn(t, disk, sqliteURL(other)), other, "is a mount point", "mount the folder")
	})
}

// wantSecondRefused checks that the second server ends and that the first one continues.
func wantSecondRefused(t *testing.T, first *server, path string, second *apptest.Process) {
	t.Helper()
	wantRefusal(t, second, path, "in use by another server")
	first.wantHeld(t, []hold{first.acquire(t, "r", "p")})
}

// lines returns the log lines of a level, except those about requests.
func (s *server) lines(t *testing.T, level string) (found []string) {
	t.Helper()
	for _, line := range s.Output.Lines() {
		var r struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &r); err == nil && r.Level == level && r.Msg != "request" {
			found = append(found, line)
		}
	}
	return found
}

// wantNothingGranted checks that a server whose database was taken away changes nothing
// and has logged the reason once. A status shows the hold or fails.
func (s *server) wantNothingGranted(t *testing.T, h hold, why string) {
	t.Helper()
	if strings.Contains(why, "locks.db ") {
		for _, path := range []string{
			"/locks/status?resource_name=" + h.resource, "/locks/status?resource_name=new",
			"/locks/all-locked", "/locks/all-locked?limit=3",
			"/locks/history?resource_name=" + h.resource,
		} {
			wantUnavailable(t, path, s.get(t, path), "database_unavailable")
		}
	} else if r := s.status(t, h.resource); r.Data["locked_by"] != h.process ||
		!slices.Equal(s.locked(t), []string{h.resource}) {
		t.Errorf("status: %+v, locked: %q", r, s.locked(t))
	}
	for name, r := range map[string]reply{
		"acquire":         s.request(t, "new", "p"),
		"acquire of held": s.request(t, h.resource, "q"),
		"renew": s.do(t, http.MethodPost, "/locks/renew",
			map[string]any{"resource_name": h.resource, "process_id": h.process, "ttl_seconds": 60}),
		"release": s.do(t, http.MethodDelete,
			"/locks/release?resource_name="+h.resource+"&process_id="+h.process, nil),
		"readyz": s.get(t, "/readyz"),
	} {
		wantUnavailable(t, name, r, "database_unavailable")
	}
	if r := s.get(t, "/livez"); r.Status != http.StatusOK {
		t.Errorf("livez: %+v", r)
	}
	if line := only(t, s.lines(t, "ERROR")); !strings.Contains(line, why) {
		t.Errorf("the log does not say %q: %s", why, line)
	}
}

// TestDatabaseTakenAway removes, replaces or moves the database of a running server.
// Nothing is granted until the database is back.
func TestDatabaseTakenAway(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		take, back func(t *testing.T, path string) // back is nil if the database cannot be put back
		why        string
	}{
		"file removed": {
			take: func(t *testing.T, path string) { must(t, os.Remove(path)) },
			why:  "locks.db was removed",
		},
		"all files removed": {
			take: func(t *testing.T, path string) {
				for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
					must(t, os.Remove(path+suffix))
				}
			},
			why: "locks.db was removed",
		},
		"file moved": {
			take: func(t *testing.T, path string) { must(t, os.Rename(path, path+".old")) },
			back: func(t *testing.T, path string) { must(t, os.Rename(path+".old", path)) },
			why:  "locks.db was removed or moved",
		},
		"folder moved": {
			take: func(t *testing.T, path string) { must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".old")) },
			back: func(t *testing.T, path string) { must(t, os.Rename(filepath.Dir(path)+".old", filepath.Dir(path))) },
			why:  "locks.db was removed or moved",
		},
		"replaced by a copy": {
			take: func(t *testing.T, path string) {
				must(t, os.Rename(path, path+".old"))
				must(t, exec.Command("cp", path+".old", path).Run())
			},
			back: func(t *testing.T, path string) { must(t, os.Rename(path+".old", path)) },
			why:  "locks.db was replaced",
		},
		"replaced by an empty file": {
			take: func(t *testing.T, path string) {
				must(t, os.WriteFile(path+".new", nil, 0o600))
				must(t, os.Rename(path+".new", path))
			},
			why: "locks.db was replaced",
		},
		"replaced by a link to a moved file": { // equivalent to the original path
			take: func(t *testing.T, path string) { must(t, os.Rename(path, path+".old")) },
			back: func(t *testing.T, path string) { must(t, os.Symlink(path+".old", path)) },
			why:  "locks.db was removed",
		},
		"log removed": {
			take: func(t *testing.T, path string) { must(t, os.Remove(path+"-wal")) },
			why:  "locks.db-wal was removed",
		},
		"log moved": {
			take: func(t *testing.T, path string) { must(t, os.Rename(path+"-wal", path+".old")) },
			back: func(t *testing.T, path string) { must(t, os.Rename(path+".old", path+"-wal")) },
			why:  "locks.db-wal was removed or moved",
		},
		"log replaced": {
			take: func(t *testing.T, path string) {
				must(t, os.WriteFile(path+".new", nil, 0o600))
				must(t, os.Rename(path+".new", path+"-wal"))
			},
			why: "locks.db-wal was replaced",
		},
		"index of the log removed": {
			take: func(t *testing.T, path string) { must(t, os.Remove(path+"-shm")) },
			why:  "locks.db-shm was removed",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "data", "locks.db")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			s := start(t, sqliteURL(path))
			h := s.acquire(t, "held", "p")
			test.take(t, path)
			s.wantNothingGranted(t, h, test.why)
			if test.back != nil {
				test.back(t, path)
				if r := s.get(t, "/readyz"); r.Status != http.StatusOK {
					t.Errorf("the database is back, but readyz returns %+v", r)
				}
				s.wantHeld(t, []hold{h, s.acquire(t, "new", "p")})
				if !strings.Contains(s.Output.String(), "the database is back") {
					t.Error("the log does not say that the database is back")
				}
			}
			s.Stop(t, syscall.SIGTERM)
			if _, err := os.Stat(path); err == nil && !strings.Contains(test.why, "locks.db was replaced") {
				start(t, sqliteURL(path)).wantHeld(t, []hold{h})
			}
		})
	}
}

// TestServerOnTheFilesThatCameInstead deletes the database of a running server and starts
// another server on the same path. The first one must serve nothing any more, and must
// not delete the files of the second one when it stops.
func TestServerOnTheFilesThatCameInstead(t *testing.T) {
	t.Parallel()
	path := testdb.SQLite(t)
	first := start(t, sqliteURL(path))
	h := first.acquire(t, "held", "p")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		must(t, os.Remove(path+suffix))
	}
	must(t, os.Remove(path+".lock"))
	second := start(t, sqliteURL(path))
	mine := second.acquire(t, "held", "q")
	first.wantNothingGranted(t, h, "locks.db was replaced")
	first.Stop(t, syscall.SIGTERM)
	holds := []hold{mine, second.acquire(t, "new", "q")}
	second.wantHeld(t, holds)
	second.Kill(t)
	start(t, sqliteURL(path)).wantHeld(t, holds)
}

// TestServerOnAFileBesideAForeignLog checks that the write-ahead log of a deleted or
// replaced database is not used for the next one.
func TestServerOnAFileBesideAForeignLog(t *testing.T) {
	t.Parallel()
	t.Run("in use", func(t *testing.T) {
		t.Parallel()
		path, other := testdb.SQLite(t), testdb.SQLite(t)
		start(t, sqliteURL(other)).Stop(t, syscall.SIGTERM)
		s := start(t, sqliteURL(path))
		h := s.acquire(t, "held", "p")
		must(t, os.Rename(path, path+".old"))
		must(t, os.Rename(other, path))
		must(t, os.Remove(path+".lock"))
		wantRefusal(t, launch(t, t.TempDir(), environment(sqliteURL(path))), path+"-wal", "in use by another server")
		must(t, os.Rename(path+".old", path))
		s.wantHeld(t, []hold{h})
	})
	t.Run("left behind", func(t *testing.T) {
		t.Parallel()
		path := testdb.SQLite(t)
		s := start(t, sqliteURL(path))
		h := s.acquire(t, "held", "p")
		s.Kill(t)
		must(t, os.Rename(path, path+".old"))
		for range 2 { // the first start must not mislead the second one
			wantRefusal(t, launch(t, t.TempDir(), environment(sqliteURL(path))), path, path+"-wal", "missing or empty")
		}
		must(t, os.Rename(path+".old", path))
		start(t, sqliteURL(path)).wantHeld(t, []hold{h})
	})
}

// TestFileSystemBecomesReadOnly makes the file system read-only while a server uses it,
// as an error of the disk does. The server grants nothing, and continues when the file
// system is writable again. Only the path is read-only, because the kernel does not
// permit more while files are open.
func TestFileSystemBecomesReadOnly(t *testing.T) {
	t.Parallel()
	disk := robust.NewSmallDisk(t, 64<<20)
	s := listening(t, launchOn(t, disk, disk.DatabaseURL()))
	h := s.acquire(t, "held", "p")
	disk.Run(t, "mount", "--bind", disk.Folder(), disk.Folder())
	disk.Run(t, "mount", "-o", "remount,bind,ro", disk.Folder())
	s.wantNothingGranted(t, h, "has become read-only")
	disk.Run(t, "umount", disk.Folder())
	s.wantHeld(t, []hold{h, s.acquire(t, "new", "p")})
}

func TestSQLiteOnADiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		disk := robust.NewSmallDisk(t, 1<<20)
		disk.Fill(t, 0)
		p := launchOn(t, disk, disk.DatabaseURL())
		wantRefusal(t, p, filepath.Join(disk.Folder(), "locks.db"), "no space left")
		only(t, p.Output.Lines())
		disk.Free(t)
		listening(t, launchOn(t, disk, disk.DatabaseURL())).acquire(t, "r", "p")
	})
	t.Run("read-only", func(t *testing.T) {
		t.Parallel()
		disk := robust.NewSmallDisk(t, 64<<20)
		s := listening(t, launchOn(t, disk, disk.DatabaseURL()))
		h := s.acquire(t, "r", "p")
		s.Stop(t, syscall.SIGTERM)
		disk.Run(t, "mount", "-o", "remount,ro", disk.Folder())
		for _, name := range []string{"locks.db", "new.db"} {
			path := filepath.Join(disk.Folder(), name)
			p := launchOn(t, disk, sqliteURL(path))
			wantRefusal(t, p, path, "read-only file system", "make the file system writable")
			only(t, p.Output.Lines())
		}
		disk.Run(t, "mount", "-o", "remount,rw", disk.Folder())
		listening(t, launchOn(t, disk, disk.DatabaseURL())).wantHeld(t, []hold{h})
	})
}

// TestLogBesideAListThatIsNotRead has a client that requests the whole list and reads
// nothing of it, while the locks are renewed. The write-ahead log stays short.
func TestLogBesideAListThatIsNotRead(t *testing.T) {
	t.Parallel()
	path := testdb.SQLite(t)
	s := start(t, sqliteURL(path))
	const locks, renewals = 1500, 6000
	// The metadata makes the list longer than the buffers of the network.
	metadata := map[string]any{"a": strings.Repeat("x", 4000)}
	s.each(t, locks, func(i int) (reply, error) {
		return s.try(http.MethodPost, "/locks/request",
			map[string]any{"resource_name": fmt.Sprint(i), "process_id": "p", "metadata": metadata})
	})

	idle := dial(t, s)
	must(t, idle.Conn.(*net.TCPConn).SetReadBuffer(64<<10))
	idle.send(t, "GET /locks/all-locked HTTP/1.1\r\nHost: lockd\r\n\r\n")
	if _, err := io.ReadFull(idle, make([]byte, len("HTTP/1.1 200 OK\r"))); err != nil { // the answer has started
		t.Fatal(err)
	}
	var mu sync.Mutex
	longest := int64(0)
	s.each(t, renewals, func(i int) (reply, error) {
		if info, err := os.Stat(path + "-wal"); err == nil && i%100 == 0 {
			mu.Lock()
			longest = max(longest, info.Size())
			mu.Unlock()
		}
		return s.try(http.MethodPost, "/locks/renew",
			map[string]any{"resource_name": fmt.Sprint(i % locks), "process_id": "p", "ttl_seconds": 3600})
	})
	if longest > 20<<20 {
		t.Errorf("the log has grown to %d MiB", longest>>20)
	}
	rest, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r"), idle)), nil)
	must(t, err)
	defer rest.Body.Close()
	var list struct {
		Data struct {
			Total int   `json:"total_locks"`
			Locks []any `json:"locks"`
		}
	}
	must(t, json.NewDecoder(rest.Body).Decode(&list))
	if list.Data.Total != locks || len(list.Data.Locks) != locks {
		t.Errorf("total_locks %d for %d locks, want %d", list.Data.Total, len(list.Data.Locks), locks)
	}
}

// each sends n requests, several at a time, which must all succeed.
func (s *server) each(t *testing.T, n int, request func(i int) (reply, error)) {
	t.Helper()
	const clients = 8
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for i := client; i < n; i += clients {
				if r, err := request(i); err != nil || r.Status != http.StatusOK {
					t.Errorf("request %d: %+v, %v", i, r, err)
					return
				}
			}
		})
	}
	all.Wait()
}
