package robust

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
)

// Patch is a change to the program's source that a test plants, to see that it is found or what comes of it.
type Patch struct {
	File     string // from the project's root
	Old, New string // Old must stand there exactly once
}

const root = "../.." // from this package's folder, where its tests run

// Build compiles lockd, with the race detector if the tests have it, and returns the program's path.
func Build(tb testing.TB, patches ...Patch) string {
	tb.Helper()
	folder := tb.TempDir()
	program := filepath.Join(folder, "lockd")
	args := []string{"build", "-o", program, "-overlay", overlay(tb, folder, patches)}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/lockd")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return program
}

// BuildCommand compiles a command of this project as users do, and returns its path.
func BuildCommand(tb testing.TB, name string) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/"+name)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return program
}

// overlay writes the patched files and what tells the compiler of them.
func overlay(tb testing.TB, folder string, patches []Patch) string {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	base, err := filepath.Abs(root)
	must(err)
	texts := map[string]string{}
	for _, p := range patches {
		path := filepath.Join(base, p.File)
		if texts[path] == "" {
			text, err := os.ReadFile(path)
			must(err)
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], p.Old); n != 1 {
			tb.Fatalf("%s has %d times what a patch replaces: %s", p.File, n, p.Old)
		}
		texts[path] = strings.Replace(texts[path], p.Old, p.New, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		replace[path] = filepath.Join(folder, fmt.Sprint(len(replace), filepath.Base(path)))
		must(os.WriteFile(replace[path], []byte(text), 0o600))
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	must(err)
	path := filepath.Join(folder, "overlay.json")
	must(os.WriteFile(path, list, 0o600))
	return path
}

// Server is a lockd that can be ended and started again behind one address. It may be used by one goroutine at a time.
type Server struct {
	*apptest.Process // the running one

	URL   string
	Front *Proxy // between clients and the server

	program string
	folder  string
	env     []string
}

// StartServer runs a program on a database and returns when it listens. Settings are those of .env.example.
func StartServer(tb testing.TB, program, databaseURL string, settings ...string) *Server {
	tb.Helper()
	front := NewProxy(tb, "")
	s := &Server{
		URL:     "http://" + front.Address(),
		Front:   front,
		program: program,
		folder:  tb.TempDir(),
		env:     append([]string{"DATABASE_URL=" + databaseURL, "PORT=0", "LOG_FORMAT=json"}, settings...),
	}
	s.Start(tb)
	return s
}

// Start runs the server, which must not run, and returns when it listens.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command(s.program)
	cmd.Dir, cmd.Env = s.folder, s.env
	s.Process = apptest.Launch(tb, cmd)
	s.Front.SetUpstream(strings.TrimPrefix(s.Address(tb), "http://"))
}

// Kill ends the process as a crash would. Another program may get its port, so nobody is
// connected to it until the next Start.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.Process.Kill(tb)
	s.Front.SetUpstream("")
}

// Stop ends the process in order, like Kill otherwise.
func (s *Server) Stop(tb testing.TB, signal os.Signal) {
	tb.Helper()
	s.Process.Stop(tb, signal)
	s.Front.SetUpstream("")
}

// Set changes a setting from the next Start on.
func (s *Server) Set(setting string) { s.env = append(s.env, setting) } // the last one counts

// Pause stops the process, all of it, until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.Signal(tb, syscall.SIGSTOP)
}

// Resume has a paused process go on.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.Signal(tb, syscall.SIGCONT)
}
