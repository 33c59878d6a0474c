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

// Patch is a change to the source of lockd that a test makes before it builds the
// program.
type Patch struct {
	File     string // relative to the project's root
	Old, New string // Old must occur in the file exactly once
}

const root = "../.." // relative to this package's folder, where its tests run

// Build compiles lockd and returns the program's path. It uses the race detector if the
// tests do.
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

// overlay writes the patched files and the overlay file of the compiler.
func overlay(tb testing.TB, folder string, patches []Patch) string {
	tb.Helper()
	base, err := filepath.Abs(root)
	must(tb, err)
	texts := map[string]string{}
	for _, p := range patches {
		path := filepath.Join(base, p.File)
		if texts[path] == "" {
			text, err := os.ReadFile(path)
			must(tb, err)
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], p.Old); n != 1 {
			tb.Fatalf("%s contains %d times, want once: %s", p.File, n, p.Old)
		}
		texts[path] = strings.Replace(texts[path], p.Old, p.New, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		replace[path] = filepath.Join(folder, fmt.Sprint(len(replace), filepath.Base(path)))
		must(tb, os.WriteFile(replace[path], []byte(text), 0o600))
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	must(tb, err)
	path := filepath.Join(folder, "overlay.json")
	must(tb, os.WriteFile(path, list, 0o600))
	return path
}

// Server is a lockd that can be stopped and started again behind one address. It may be
// used by one goroutine at a time.
type Server struct {
	*apptest.Process // the running process

	URL   string
	Front *Proxy // between the clients and the server

	program string
	folder  string
	env     []string
}

// StartServer runs a program on a database and returns when it listens. Settings are
// those of .env.example.
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

// Start runs the server, which must not be running, and returns when it listens.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command(s.program)
	cmd.Dir, cmd.Env = s.folder, s.env
	s.Process = apptest.Launch(tb, cmd)
	s.Front.SetUpstream(strings.TrimPrefix(s.Address(tb), "http://"))
}

// Kill ends the process as a crash does. Until the next Start the proxy refuses
// connections, because another program may get the old port.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.Process.Kill(tb)
	s.Front.SetUpstream("")
}

// Stop stops the process with a signal. Otherwise it is like Kill.
func (s *Server) Stop(tb testing.TB, signal os.Signal) {
	tb.Helper()
	s.Process.Stop(tb, signal)
	s.Front.SetUpstream("")
}

// Set changes a setting from the next Start on.
func (s *Server) Set(setting string) { s.env = append(s.env, setting) } // the last one counts

// Pause stops the whole process until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.Signal(tb, syscall.SIGSTOP)
}

// Resume continues a paused process.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.Signal(tb, syscall.SIGCONT)
}
