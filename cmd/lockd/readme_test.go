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
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// fence is a block of code in a document. The text before it may state the name of its
// file.
type fence struct{ language, text, saveAs string }

var (
	fences     = regexp.MustCompile("(?ms)(?:Save it as `([^`]+)`:\n\n)?^```(\\w+)\n(.*?)^```$")
	timestamps = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$`)
	cuts       = regexp.MustCompile(`(?m)^( *)\.\.\.$`)
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

// readme returns the README's blocks of code between two headings.
func readme(t *testing.T, from, to string) []fence {
	t.Helper()
	_, part, begins := strings.Cut(document(t, "README.md"), "\n## "+from+"\n")
	part, _, ends := strings.Cut(part, "\n## "+to+"\n")
	if !begins || !ends {
		t.Fatalf("the README has no headings %q and %q, in this order", from, to)
	}
	return fencesOf(part)
}

// shape returns what two answers to the same command have in common: everything except
// timestamps, numbers that depend on them, and ids.
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
		if timestamps.MatchString(v) {
			return "a timestamp"
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

// cut removes the fields of an answer that an example does not show. It does so in each
// object for which the example has a line "...". It returns an error if such a line
// stands for no field.
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

// compare returns an error unless an answer has the shape of an example. An example has
// every field, unless a line "..." says that it omits some.
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

// TestExamplesAreCompared checks that compare finds an example that differs from the
// answer, also if it omits fields.
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
		"nothing is cut": {
			"{\n  \"list\": [{\n    \"x\": 1,\n    \"y\": \"text\",\n    ...\n  }],\n  ...\n}", false,
		},
		"another length": {"{\n  \"list\": [],\n  ...\n}", false},
	} {
		if err := compare(test.example, answer); (err == nil) != test.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// runner runs the commands of documents against its own server.
type runner struct {
	*server
	folder string
}

func newRunner(t *testing.T) runner {
	t.Helper()
	return runner{start(t, sqliteURL(testdb.SQLite(t))), t.TempDir()}
}

// run returns what a command prints to stdout and to stderr.
func (r runner) run(t *testing.T, command string) (out, errs string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.ReplaceAll(command, "http://localhost:8000", r.url))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.folder, append(os.Environ(), "LOCKCTL_URL="+r.url), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("%w: %s\n%s", err, command, &stderr)
	}
	return stdout.String(), stderr.String(), nil
}

// TestTour runs the commands of the tour. Each must print exactly what the tour shows
// below it, with every field.
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
				out, _, err := r.run(t, command)
				if err != nil {
					t.Error(err)
				}
				answer <- out
			}()
			waits = append(waits, answer)
			r.awaitQueue(t, "report", "second")
		case f.language == "bash":
			commands++
			out, _, err := r.run(t, command)
			must(t, err)
			printed = out
		case f.language == "json":
			answers++
			if printed == "" && len(waits) > 0 {
				released := r.do(t, "DELETE", "/locks/release?resource_name=report&process_id=first", nil)
				if released.Status != http.StatusOK {
					t.Fatalf("%+v", released)
				}
				select {
				case printed = <-waits[0]:
				case <-time.After(apptest.Timeout):
					t.Fatal("the command in the background was not answered")
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

// TestReadmeCommands runs the README's commands of curl and lockctl. Each must print what
// the README shows below it, with more fields only where the example says so.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	must(t, os.Mkdir(filepath.Join(r.folder, "bin"), 0o700))
	buildLockctl(t, filepath.Join(r.folder, "bin"))
	blocks := append(readme(t, "Start", "With lockctl or with curl"),
		readme(t, "With lockctl or with curl", "From Go")...)
	if blocks[0].text != "make run\n" { // TestMakeRun runs this one
		t.Errorf("the first command is %q", blocks[0].text)
	}
	blocks = blocks[1:]
	if len(blocks) < 14 || len(blocks)%2 != 0 {
		t.Fatalf("%d blocks of code found, want at least 7 commands, each with its answer", len(blocks))
	}
	for pair := range slices.Chunk(blocks, 2) {
		command, answer := pair[0], pair[1]
		if command.language != "bash" || answer.language != "json" && answer.language != "text" {
			t.Fatalf("a block of %s is followed by one of %s", command.language, answer.language)
		}
		out, errs, err := r.run(t, command.text)
		must(t, err)
		if answer.language == "json" {
			err = compare(answer.text, out)
		} else if diff := cmp.Diff(plain(answer.text), plain(errs+out)); diff != "" {
			err = fmt.Errorf("%s printed something else (-example +answer):\n%s", command.text, diff)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// plain returns the output of lockctl without what depends on the time.
func plain(text string) string {
	text = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(text, "TIME")
	text = regexp.MustCompile(`\([\dms]+ ago\)|\(in [\dms]+\)`).ReplaceAllString(text, "(DURATION)")
	return regexp.MustCompile(`\d{16}`).ReplaceAllString(text, "TOKEN")
}

// TestReadmeGo compiles the README's Go code in a module of its own, and runs it.
func TestReadmeGo(t *testing.T) {
	t.Parallel()
	s := start(t, sqliteURL(testdb.SQLite(t)))
	lines := readme(t, "From Go", "Where to go from here")[0]
	if lines.language != "go" || strings.Count(lines.text, "\n") != 4 {
		t.Fatalf("the README has %d lines of %s", strings.Count(lines.text, "\n"), lines.language)
	}
	program := goProgram(t, `package main

import (
	"context"
	"fmt"
	"log"

	"`+module+`/client"
)

func main() {
	ctx := context.Background()
	deploy := func(ctx context.Context) error {
		fmt.Println("deploying", ctx.Err())
		return nil
	}
	`+strings.ReplaceAll(lines.text, "http://localhost:8000", s.url)+`
	if err != nil {
		log.Fatal(err)
	}
}
`)
	out, err := exec.CommandContext(t.Context(), program).CombinedOutput()
	if err != nil || string(out) != "deploying <nil>\n" {
		t.Errorf("it printed %q, %v", out, err)
	}
	history := s.get(t, "/locks/history?resource_name=deploy/web")
	if events, _ := history.Data["events"].([]any); len(events) != 2 {
		t.Errorf("the history of the lock: %+v, want acquired and released", history.Data)
	}
}

// goProgram compiles a program that uses the client, as the README describes, and returns
// its path.
func goProgram(t *testing.T, source string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	blocks := readme(t, "From Go", "Where to go from here")
	if len(blocks) < 2 || !strings.Contains(blocks[1].text, "replace "+module+" =>") {
		t.Fatal("the README does not show the replace line")
	}
	folder := t.TempDir()
	program := filepath.Join(folder, "program")
	must(t, os.Mkdir(program, 0o700))
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, module)), 0o700))
	must(t, os.Symlink(root, filepath.Join(folder, module))) // beside the program
	must(t, os.WriteFile(filepath.Join(program, "main.go"), []byte(source), 0o600))
	for _, command := range [][]string{{"mod", "init", "example.com/program"}, {"build", "-o", "program"}} {
		cmd := exec.CommandContext(t.Context(), "go", command...)
		cmd.Dir = program
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		if command[0] == "mod" {
			goMod, err := os.ReadFile(filepath.Join(program, "go.mod"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(program, "go.mod"), append(goMod, blocks[1].text...), 0o600))
		}
	}
	return filepath.Join(program, "program")
}

// TestMakeInstall is not parallel, so that no other test runs make at the same time.
func TestMakeInstall(t *testing.T) {
	folder := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "build", "install", "DESTDIR="+folder, "PREFIX=/usr")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	for _, program := range []string{"lockd", "lockctl"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "usr/bin", program), "--help")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
	}
	for _, file := range []string{
		"man/man1/lockctl-run.1", "bash-completion/completions/lockctl", "zsh/site-functions/_lockctl",
		"fish/vendor_completions.d/lockctl.fish",
	} {
		text, err := os.ReadFile(filepath.Join(folder, "usr/share", file))
		if err != nil || !bytes.Contains(text, []byte("lockctl")) {
			t.Errorf("%s: %v, %d bytes", file, err, len(text))
		}
	}
}

// TestLinks checks that each link of a document to another one, or to a heading, has a
// target.
func TestLinks(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	links := 0
	for _, path := range append(documents, "../../README.md") {
		text, err := os.ReadFile(path)
		must(t, err)
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]+)?\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			} else if content, _ := os.ReadFile(target); m[2] != "" &&
				!slices.Contains(anchors(string(content)), m[2]) {
				t.Errorf("%s links to %s%s, which has the headings %q", path, m[1], m[2], anchors(string(content)))
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links found", links)
	}
}

// anchors returns the anchors that Git hosts give to the headings of a document.
func anchors(text string) (found []string) {
	for _, m := range regexp.MustCompile(`(?m)^##+ (.+)$`).FindAllStringSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, "#"+strings.ReplaceAll(anchor, " ", "-"))
	}
	return found
}

// TestDocumentsNameEveryWord checks that the README explains every code, and that the
// tour explains every reason that a server writes.
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
