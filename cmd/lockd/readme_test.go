package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// fence is a block of code in the README. The text before it may say under which name to save it.
type fence struct{ language, text, saveAs string }

var (
	fences  = regexp.MustCompile("(?ms)(?:Save it as `([^`]+)`:\n\n)?^```(\\w+)\n(.*?)^```$")
	moments = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$`)
)

// readme returns the README's blocks of code from one heading to another.
func readme(t *testing.T, from, to string) []fence {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	must(t, err)
	_, part, begins := strings.Cut(string(text), "\n## "+from+"\n")
	part, _, ends := strings.Cut(part, "\n## "+to+"\n")
	if !begins || !ends {
		t.Fatalf("the README has no headings %q and %q, in this order", from, to)
	}
	var found []fence
	for _, m := range fences.FindAllStringSubmatch(part, -1) {
		found = append(found, fence{saveAs: m[1], language: m[2], text: m[3]})
	}
	return found
}

// shape is what two answers to the same command have in common: all but moments, numbers that depend on them, and ids.
func shape(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, part := range v {
			v[key] = shape(part)
		}
		return v
	case []any:
		for i := range v {
			v[i] = shape(v[i])
		}
		return v
	case string:
		if moments.MatchString(v) {
			return "a moment"
		}
		if len(v) < 4 && strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") == "" {
			return "a cursor or word"
		}
		return v
	case float64:
		return "a number"
	}
	return value
}

func shapeOf(text string) (string, error) {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return "", fmt.Errorf("%w in %q", err, text)
	}
	indented, err := json.MarshalIndent(shape(value), "", "  ")
	return string(indented), err
}

// TestReadmeTour runs the README's tour word by word: each command prints what stands below it.
func TestReadmeTour(t *testing.T) {
	t.Parallel()
	s := start(t, sqliteURL(testdb.SQLite(t)))
	folder := t.TempDir()
	run := func(command string) string {
		var errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.ReplaceAll(command, "http://localhost:8000", s.url))
		cmd.Dir, cmd.Stderr = folder, &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, command, &errs)
		}
		return string(out)
	}
	var printed string
	var waits []chan string // the commands in the background
	commands := 0
	for _, f := range readme(t, "A tour with curl", "Guard something") {
		command, inBackground := strings.CutSuffix(strings.TrimSpace(f.text), "&")
		switch {
		case f.language == "bash" && inBackground:
			answer := make(chan string, 1)
			go func() { answer <- run(command) }()
			waits = append(waits, answer)
			s.awaitQueue(t, "report", "second")
		case f.language == "bash":
			commands++
			printed = run(command)
		case f.language == "json":
			if printed == "" && len(waits) > 0 {
				if r := s.do(t, "DELETE", "/locks/release?resource_name=report&process_id=first", nil); r.Status != http.StatusOK {
					t.Fatalf("%+v", r)
				}
				select {
				case printed = <-waits[0]:
				case <-time.After(patience):
					t.Fatal("the command in the background is not answered")
				}
				waits = waits[1:]
			}
			want, err := shapeOf(f.text)
			must(t, err)
			got, err := shapeOf(printed)
			must(t, err)
			if got != want {
				t.Errorf("the README shows\n%s\nand the command printed\n%s", want, got)
			}
			printed = ""
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands found", commands)
	}
}

// guards writes the README's programs into a folder, with something to guard beside them.
func guards(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for _, f := range readme(t, "Guard something", "When it says no") {
		if f.saveAs != "" {
			must(t, os.WriteFile(filepath.Join(folder, f.saveAs), []byte(f.text), 0o600))
		}
	}
	return folder
}

// program begins one of them.
func program(t *testing.T, s *server, folder string, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "LOCKD="+s.url)
	return cmd
}

func guarded(t *testing.T, folder, name, script string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
}

// TestReadmeCronJob: of several hosts one runs the job, and gives the lock back; soon after that it is not run again.
func TestReadmeCronJob(t *testing.T) {
	t.Parallel()
	s := start(t, sqliteURL(testdb.SQLite(t)))
	folder := guards(t)
	guarded(t, folder, "backup", "echo ran >>ran; while [ ! -e enough ]; do sleep 0.05; done")
	first := program(t, s, folder, "bash", "nightly-backup.sh")
	must(t, first.Start())
	apptest.Eventually(t, "the job runs", func() bool { _, err := os.Stat(filepath.Join(folder, "ran")); return err == nil })
	other := program(t, s, folder, "bash", "nightly-backup.sh")
	if out, err := other.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("another host: %v, %s", err, out)
	}
	must(t, os.WriteFile(filepath.Join(folder, "enough"), nil, 0o600))
	must(t, first.Wait())
	if r := s.status(t, "nightly-backup"); r.Data["released_at"] == nil || r.Data["is_locked"] != true {
		t.Errorf("after the job: %+v, want it released and taken until its minimum has passed", r.Data)
	}
	if out, err := program(t, s, folder, "bash", "nightly-backup.sh").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("a host whose clock is behind: %v, %s", err, out)
	}
	if ran, err := os.ReadFile(filepath.Join(folder, "ran")); err != nil || string(ran) != "ran\n" {
		t.Errorf("the job ran: %q, %v", ran, err)
	}
}

// TestReadmeDeploy: it waits for its turn and gives the lock back; when its lock is broken, the work is stopped.
func TestReadmeDeploy(t *testing.T) {
	t.Parallel()
	s := start(t, sqliteURL(testdb.SQLite(t)))
	folder := guards(t)
	script, err := os.ReadFile(filepath.Join(folder, "guarded-deploy.sh"))
	must(t, err)
	short := strings.Replace(string(script), "ttl=60", "ttl=9", 1)
	if short == string(script) {
		t.Fatal("the script has no ttl=60")
	}
	must(t, os.WriteFile(filepath.Join(folder, "guarded-deploy.sh"), []byte(short), 0o600))
	guarded(t, folder, "deploy", "echo began >>log; while [ ! -e enough ]; do sleep 0.05; done; echo ended >>log")
	log := func() string { text, _ := os.ReadFile(filepath.Join(folder, "log")); return string(text) }

	t.Run("waits, works, gives back", func(t *testing.T) {
		h := s.acquire(t, "deploy/web", "another deploy")
		deploy := program(t, s, folder, "bash", "guarded-deploy.sh")
		must(t, deploy.Start())
		apptest.Eventually(t, "it waits", func() bool { return len(s.queue(t, "deploy/web")) == 1 })
		if log() != "" {
			t.Error("it did not wait for its turn")
		}
		s.release(t, h)
		apptest.Eventually(t, "it works", func() bool { return log() == "began\n" })
		until := s.status(t, "deploy/web").Data["expires_at"]
		apptest.Eventually(t, "it renews", func() bool { return s.status(t, "deploy/web").Data["expires_at"] != until })
		must(t, os.WriteFile(filepath.Join(folder, "enough"), nil, 0o600))
		must(t, deploy.Wait())
		if r := s.status(t, "deploy/web"); r.Data["is_locked"] != false || log() != "began\nended\n" {
			t.Errorf("after the deploy: %+v, log %q", r.Data, log())
		}
	})
	t.Run("stops when its lock is broken", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(folder, "enough")))
		must(t, os.Remove(filepath.Join(folder, "log")))
		deploy := program(t, s, folder, "bash", "guarded-deploy.sh")
		must(t, deploy.Start())
		apptest.Eventually(t, "it works", func() bool { return log() == "began\n" })
		if r := s.do(t, "DELETE", "/locks/force-release?resource_name=deploy/web&reason=test", nil); r.Status != http.StatusOK {
			t.Fatalf("%+v", r)
		}
		if err := deploy.Wait(); err == nil || log() != "began\n" {
			t.Errorf("it ended with %v, log %q", err, log())
		}
	})
	t.Run("stops with the script, and gives back", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(folder, "log")))
		guarded(t, folder, "deploy", "echo began >>log; trap 'echo stopped >>log; exit' TERM; while :; do sleep 0.05; done")
		deploy := program(t, s, folder, "bash", "guarded-deploy.sh")
		must(t, deploy.Start())
		apptest.Eventually(t, "it works", func() bool { return log() == "began\n" })
		must(t, deploy.Process.Signal(syscall.SIGTERM))
		_ = deploy.Wait()
		if code := deploy.ProcessState.ExitCode(); code != 143 || log() != "began\nstopped\n" {
			t.Errorf("it ended with %d, log %q", code, log())
		}
		if r := s.status(t, "deploy/web"); r.Data["is_locked"] != false {
			t.Errorf("after the deploy was stopped: %+v", r.Data)
		}
	})
}

// TestReadmeWorker: it holds the lock while it works and gives it back.
func TestReadmeWorker(t *testing.T) {
	t.Parallel()
	s := start(t, sqliteURL(testdb.SQLite(t)))
	out, err := program(t, s, guards(t), "python3", "worker.py").CombinedOutput()
	must(t, err)
	if strings.Count(string(out), "with the token") != 3 {
		t.Errorf("it printed %s", out)
	}
	if r := s.status(t, "invoices"); r.Data["is_locked"] != false {
		t.Errorf("after the work: %+v", r.Data)
	}
}

// TestReadmeNamesEveryCode: whoever meets a code, or a reason that the server wrote, finds it there.
func TestReadmeNamesEveryCode(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../../internal/wire/wire.go")
	must(t, err)
	text, err := os.ReadFile("../../README.md")
	must(t, err)
	for kind, least := range map[string]int{"Code": 15, "Reason": 4} {
		words := regexp.MustCompile(kind+`\w+ +`+kind+` = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
		if len(words) < least {
			t.Errorf("only %d constants of the type %s found", len(words), kind)
		}
		for _, m := range words {
			if !strings.Contains(string(text), "`"+m[1]+"`") {
				t.Errorf("the README does not name the %s %s", kind, m[1])
			}
		}
	}
}
