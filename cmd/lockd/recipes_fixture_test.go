package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// recipe is a folder with the files of docs/RECIPES.md, and a server.
type recipe struct {
	*server
	folder string
	bin    string // replaces /usr/local/bin; empty: lockctl is not installed
}

// newRecipe links the programs of a folder to where the recipes expect them.
func newRecipe(t *testing.T, programs string) *recipe {
	t.Helper()
	r := &recipe{server: start(t, sqliteURL(testdb.SQLite(t))), folder: t.TempDir()}
	for _, f := range fencesOf(document(t, "docs/RECIPES.md")) {
		if f.saveAs == "" {
			t.Errorf("a block of %s has no file name:\n%s", f.language, f.text)
		}
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(r.folder, f.saveAs)), 0o700))
		r.write(t, f.saveAs, f.text)
	}
	if programs != "" {
		r.bin = filepath.Join(r.folder, "bin")
		must(t, os.Mkdir(r.bin, 0o700))
		must(t, os.Symlink(filepath.Join(programs, "lockctl"), filepath.Join(r.bin, "lockctl")))
	}
	return r
}

func (r *recipe) write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o700))
}

// read returns the content of a file, or "" if there is none.
func (r *recipe) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(r.folder, name))
	return string(text)
}

// text returns a file of the recipes with this server's address and program folder.
func (r *recipe) text(t *testing.T, name string) string {
	t.Helper()
	text := r.read(name)
	if text == "" {
		t.Fatalf("docs/RECIPES.md has no file %s", name)
	}
	return strings.NewReplacer("http://localhost:8000", r.url, "/usr/local/bin", r.bin).Replace(text)
}

// writeCommand writes a command for a recipe. Its function wait_for waits for a file, at
// most half a minute, so that no command outlives a failed test.
func (r *recipe) writeCommand(t *testing.T, name, script string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(r.folder, name)), 0o700))
	r.write(t, name, `#!/bin/sh
wait_for() { i=0; while [ ! -e "$1" ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done; }
`+script+"\n")
}

// command returns a command without a terminal, as in cron, CI and systemd.
func (r *recipe) command(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = r.folder
	cmd.Env = append(os.Environ(), "LOCKD="+r.url, "LOCKCTL_URL="+r.url, "PATH="+r.bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// started is a running command.
type started struct {
	*exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
}

func startCommand(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{Cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	must(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // ProcessState has the result
		close(s.ended)
	}()
	return s
}

// wantEnd waits for the end of a command and checks its exit code.
func (s *started) wantEnd(t *testing.T, code int) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(apptest.Timeout):
		_ = syscall.Kill(-s.Process.Pid, syscall.SIGKILL)
		t.Fatalf("%v has not ended", s.Cmd)
	}
	if got := s.ProcessState.ExitCode(); got != code {
		t.Errorf("%v ended with %d, want %d: %s", s.Cmd, got, code, &s.output)
	}
}

// wantQuiet waits for the end of a command that must succeed and print nothing.
func (s *started) wantQuiet(t *testing.T) {
	t.Helper()
	s.wantEnd(t, 0)
	if s.output.Len() > 0 {
		t.Errorf("%v printed %s", s.Cmd, &s.output)
	}
}

func (r *recipe) eventually(t *testing.T, file, text string) {
	t.Helper()
	apptest.Eventually(t, fmt.Sprintf("%s has %q", file, text), func() bool { return r.read(file) == text })
}

func (r *recipe) wantFree(t *testing.T, resource string) {
	t.Helper()
	if s := r.status(t, resource); s.Data["is_locked"] != false {
		t.Errorf("at the end: %+v", s.Data)
	}
}
