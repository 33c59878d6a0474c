package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// TestSecondServerOnASQLiteFileIsRefused checks that a second server on a SQLite file is
// refused, whatever path it uses. Two servers would have two clocks.
func TestSecondServerOnASQLiteFileIsRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		exists        bool // the file exists before the first server starts
		first, second string
	}{
		"same path":                             {false, "data/locks.db", "data/locks.db"},
		"relative path":                         {false, "data/locks.db", "./data/../data/locks.db"},
		"link to the file":                      {true, "data/locks.db", "link.db"},
		"the first by a link":                   {true, "link.db", "data/locks.db"},
		"the first by a link to a file to come": {false, "link.db", "data/locks.db"},
		"link to its folder":                    {false, "data/locks.db", "folder/locks.db"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			must(t, os.Mkdir(filepath.Join(folder, "data"), 0o700))
			must(t, os.Symlink("data", filepath.Join(folder, "folder")))
			must(t, os.Symlink("data/locks.db", filepath.Join(folder, "link.db")))
			if test.exists {
				must(t, os.WriteFile(filepath.Join(folder, "data/locks.db"), nil, 0o600))
			}
			first := listening(t, launch(t, folder, environment("sqlite:///"+test.first)))

			second := launch(t, folder, environment(sqliteURL(filepath.Join(folder, test.second))))
			wantInUse(t, second)
			h := first.acquire(t, "r", "p")
			first.wantHeld(t, []hold{h})
		})
	}
}

// wantInUse checks that a process was refused because another one uses the file.
func wantInUse(t *testing.T, p *apptest.Process) {
	t.Helper()
	select {
	case address := <-p.Listening:
		t.Fatalf("a second server listens on %s", address)
	case <-p.Exited:
	case <-time.After(apptest.Timeout):
		t.Fatal("the second server neither listens nor ends")
	}
	if code := p.ExitCode(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if line := only(t, p.Output.Lines()); !strings.Contains(line, "in use") || !strings.Contains(line, "locks.db") {
		t.Errorf("the log is: %s", line)
	}
}

func TestOneOfTwoServersStartedAtOnceGetsTheSQLiteFile(t *testing.T) {
	t.Parallel()
	for round := range 10 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			databaseURL := sqliteURL(testdb.SQLite(t))
			a := launch(t, t.TempDir(), environment(databaseURL))
			b := launch(t, t.TempDir(), environment(databaseURL))
			winner, loser := a, b
			select {
			case <-a.Exited:
				winner, loser = b, a
			case <-b.Exited:
			case <-time.After(apptest.Timeout):
				t.Fatal("both servers run")
			}
			wantInUse(t, loser)
			listening(t, winner).acquire(t, "r", "p")
		})
	}
}

// TestSeveralServersOnOnePostgres starts several servers at once on an empty Postgres
// database. All start, and they are one lock service.
func TestSeveralServersOnOnePostgres(t *testing.T) {
	t.Parallel()
	databaseURL := testdb.Postgres(t)
	var processes [3]*apptest.Process
	for i := range processes {
		processes[i] = launch(t, t.TempDir(), environment(databaseURL))
	}
	var servers [3]*server
	for i, p := range processes {
		servers[i] = listening(t, p)
	}

	t.Run("a hold of one counts on all", func(t *testing.T) {
		h := servers[0].acquire(t, "r", "p")
		for _, s := range servers {
			s.wantHeld(t, []hold{h})
		}
		servers[1].release(t, h)
		if r := servers[2].status(t, "r"); r.Data["is_locked"] != false {
			t.Errorf("after a release on another server: %+v", r)
		}
	})
	t.Run("tokens grow across all", func(t *testing.T) {
		last := 0.0
		for n := range 12 {
			s := servers[n%len(servers)]
			h := s.acquire(t, "s", "p")
			if h.token <= last {
				t.Errorf("token %.0f after %.0f", h.token, last)
			}
			last = h.token
			servers[(n+1)%len(servers)].release(t, h)
		}
	})
	t.Run("one of many wins", func(t *testing.T) {
		for n := range 20 {
			resource := fmt.Sprintf("contended %d", n)
			contend(t, servers[:], resource) // without a row
			contend(t, servers[:], resource) // with a row
		}
	})
}

// contend has many clients request one resource at once. Exactly one must get it. It
// releases the resource again.
func contend(t *testing.T, servers []*server, resource string) {
	t.Helper()
	replies := make(chan reply, 12)
	var clients sync.WaitGroup
	for i := range cap(replies) {
		clients.Go(func() {
			r, err := servers[i%len(servers)].try(http.MethodPost, "/locks/request",
				acquisition(resource, fmt.Sprint("p", i)))
			if err != nil {
				t.Error(err)
			}
			replies <- r
		})
	}
	clients.Wait()
	close(replies)
	var winners []hold
	for r := range replies {
		if h, granted := holdOf(r); granted {
			winners = append(winners, h)
		} else if r.Status != http.StatusConflict {
			t.Errorf("got %+v", r)
		}
	}
	if len(winners) != 1 {
		t.Fatalf("%s was granted to %+v", resource, winners)
	}
	for _, s := range servers {
		s.wantHeld(t, winners)
	}
	servers[0].release(t, winners[0])
}
