package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// fence is a block of code in a document. The text before it may say under which name to save it.
type fence struct{ language, text, saveAs string }

var (
	fences  = regexp.MustCompile("(?ms)(?:Save it as `([^`]+)`:\n\n)?^```(\\w+)\n(.*?)^```$")
	moments = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$`)
	cuts    = regexp.MustCompile(`(?m)^( *)\.\.\.$`)
)

// document returns a document of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	must(t, err)
	return string(text)
}

// fencesOf returns the blocks of code of a text.
func fencesOf(text string) (found []fence) {
	for _, m := range fences.FindAllStringSubmatch(text, -1) {
		found = append(found, fence{saveAs: m[1], language: m[2], text: m[3]})
	}
	return found
}

// readme returns the README's blocks of code from one heading to another.
func readme(t *testing.T, from, to string) []fence {
	t.Helper()
	_, part, begins := strings.Cut(document(t, "README.md"), "\n## "+from+"\n")
	part, _, ends := strings.Cut(part, "\n## "+to+"\n")
	if !begins || !ends {
		t.Fatalf("the README has no headings %q and %q, in this order", from, to)
	}
	return fencesOf(part)
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

// cut takes out of an answer the fields that an example does not show, in each object for which the example says so by a
// line "...". It returns an error where such a line stands for nothing.
func cut(example, answer any) (err error) {
	switch example := example.(type) {
	case map[string]any:
		answer, _ := answer.(map[string]any)
		if _, isCut := example["..."]; isCut {
			delete(example, "...")
			all := len(answer)
			maps.DeleteFunc(answer, func(key string, _ any) bool { _, shown := example[key]; return !shown })
			if len(answer) == all {
				err = errors.New(`a line "..." stands for no field`)
			}
		}
		for key, part := range example {
			err = errors.Join(err, cut(part, answer[key]))
		}
	case []any:
		answer, _ := answer.([]any)
		for i := range min(len(example), len(answer)) {
			err = errors.Join(err, cut(example[i], answer[i]))
		}
	}
	return err
}

// compare returns an error unless an answer has the shape of an example. The example has every field, unless a line "..."
// says that it leaves some out.
func compare(example, answer string) error {
	var shown, got any
	if err := json.Unmarshal([]byte(cuts.ReplaceAllString(example, `$1"...": true`)), &shown); err != nil {
		return fmt.Errorf("%w in the example %q", err, example)
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		return fmt.Errorf("%w in the answer %q", err, answer)
	}
	if err := cut(shown, got); err != nil {
		return fmt.Errorf("%w: %s", err, example)
	}
	if diff := cmp.Diff(shape(shown), shape(got)); diff != "" {
		return fmt.Errorf("the answer differs from the example (-example +answer):\n%s", diff)
	}
	return nil
}

// An example that shows something else than the server answers is found, also where it leaves fields out.
func TestExamplesAreCompared(t *testing.T) {
	t.Parallel()
	const answer = `{"name":"alice","n":1,"inner":{"a":"long text","b":null},"list":[{"x":1,"y":"text"}]}`
	for name, test := range map[string]struct {
		example string
		same    bool
	}{
		"the answer itself":       {answer, true},
		"another number":          {strings.Replace(answer, `"n":1`, `"n":2.5`, 1), true},
		"another text":            {strings.Replace(answer, "alice", "bobby", 1), false},
		"another type":            {strings.Replace(answer, `"n":1`, `"n":"one"`, 1), false},
		"a field too few":         {strings.Replace(answer, `"n":1,`, "", 1), false},
		"a field too many":        {strings.Replace(answer, `"n":1`, `"n":1,"m":1`, 1), false},
		"cut":                     {"{\n  \"name\": \"alice\",\n  ...\n}", true},
		"cut, another text":       {"{\n  \"name\": \"bobby\",\n  ...\n}", false},
		"cut, a field too many":   {"{\n  \"name\": \"alice\",\n  \"m\": 1,\n  ...\n}", false},
		"cut inside":              {"{\n  \"inner\": {\n    \"b\": null,\n    ...\n  },\n  ...\n}", true},
		"cut inside, other value": {"{\n  \"inner\": {\n    \"b\": true,\n    ...\n  },\n  ...\n}", false},
		"cut outside only":        {"{\n  \"inner\": {\n    \"b\": null\n  },\n  ...\n}", false},
		"cut in a list":           {"{\n  \"list\": [{\n    \"y\": \"text\",\n    ...\n  }],\n  ...\n}", true},
		"nothing is cut":          {"{\n  \"list\": [{\n    \"x\": 1,\n    \"y\": \"text\",\n    ...\n  }],\n  ...\n}", false},
		"another length":          {"{\n  \"list\": [],\n  ...\n}", false},
	} {
		if err := compare(test.example, answer); (err == nil) != test.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// runner runs the commands of documents against a server of its own.
type runner struct {
	*server
	folder string
}

func newRunner(t *testing.T) runner {
	t.Helper()
	return runner{start(t, sqliteURL(testdb.SQLite(t))), t.TempDir()}
}

// run returns what a command prints.
func (r runner) run(t *testing.T, command string) (string, error) {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.ReplaceAll(command, "http://localhost:8000", r.url))
	cmd.Dir, cmd.Stderr = r.folder, &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s\n%s", err, command, &errs)
	}
	return string(out), nil
}

// TestTour runs the tour word by word: each command prints what stands below it, to the last field.
func TestTour(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	var printed string
	var waits []chan string // the commands in the background
	commands, answers := 0, 0
	for _, f := range fencesOf(document(t, "docs/TOUR.md")) {
		command, inBackground := strings.CutSuffix(strings.TrimSpace(f.text), "&")
		switch {
		case f.language == "bash" && inBackground:
			answer := make(chan string, 1)
			go func() {
				out, err := r.run(t, command)
				if err != nil {
					t.Error(err)
				}
				answer <- out
			}()
			waits = append(waits, answer)
			r.awaitQueue(t, "report", "second")
		case f.language == "bash":
			commands++
			out, err := r.run(t, command)
			must(t, err)
			printed = out
		case f.language == "json":
			answers++
			if printed == "" && len(waits) > 0 {
				if released := r.do(t, "DELETE", "/locks/release?resource_name=report&process_id=first", nil); released.Status != http.StatusOK {
					t.Fatalf("%+v", released)
				}
				select {
				case printed = <-waits[0]:
				case <-time.After(patience):
					t.Fatal("the command in the background is not answered")
				}
				waits = waits[1:]
			}
			if cuts.MatchString(f.text) {
				t.Errorf("the tour leaves fields out:\n%s", f.text)
			}
			if err := compare(f.text, printed); err != nil {
				t.Error(err)
			}
			printed = ""
		}
	}
	if commands < 10 || answers < commands {
		t.Errorf("only %d commands and %d answers found", commands, answers)
	}
}

// TestReadmeCommands runs the README's first commands: each prints what stands below it, with more fields where the example
// says so.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	blocks := readme(t, "Try it with curl", "Guard something")
	if len(blocks) < 8 || len(blocks)%2 != 0 {
		t.Fatalf("%d blocks of code found, want at least 4 commands, each with its answer", len(blocks))
	}
	for pair := range slices.Chunk(blocks, 2) {
		command, answer := pair[0], pair[1]
		if command.language != "bash" || answer.language != "json" {
			t.Fatalf("a block of %s is followed by one of %s", command.language, answer.language)
		}
		printed, err := r.run(t, command.text)
		must(t, err)
		if err := compare(answer.text, printed); err != nil {
			t.Error(err)
		}
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

// TestDocumentsNameEveryWord: whoever meets a code finds it in the README, and a reason that the server wrote in the tour.
func TestDocumentsNameEveryWord(t *testing.T) {
	t.Parallel()
	source := document(t, "internal/wire/wire.go")
	for _, words := range []struct {
		kind, in string
		least    int
	}{{"Code", "README.md", 15}, {"Reason", "docs/TOUR.md", 4}} {
		constants := regexp.MustCompile(words.kind+`\w+ +`+words.kind+` = "(\w+)"`).FindAllStringSubmatch(source, -1)
		if len(constants) < words.least {
			t.Errorf("only %d constants of the type %s found", len(constants), words.kind)
		}
		text := document(t, words.in)
		for _, m := range constants {
			if !strings.Contains(text, "`"+m[1]+"`") {
				t.Errorf("%s does not name the %s %s", words.in, words.kind, m[1])
			}
		}
	}
}
