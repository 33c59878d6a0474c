package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
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

	"go.yaml.in/yaml/v3"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

const module = "resource-lock-manager"

// TestRecipes takes the recipes that use lockctl or the client from docs/RECIPES.md and runs them.
func TestRecipes(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	buildLockctl(t, bin)
	for name, test := range map[string]func(*testing.T, *recipe){
		"cron":            cronJob,
		"systemd":         systemdTimer,
		"GitHub Actions":  gitHubActions,
		"GitLab CI":       gitLabCI,
		"migration":       migration,
		"leader election": leaderElection,
		"shell":           shellScripts,
		"pool":            pool,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newRecipe(t, bin))
		})
	}
}

func buildLockctl(t *testing.T, folder string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", folder, "../lockctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// recipe is a folder with the files of docs/RECIPES.md, and a server for them.
type recipe struct {
	*server
	folder string
	bin    string // stands for /usr/local/bin; empty: there is no lockctl
}

// newRecipe copies the programs in a folder to where recipes find them.
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

// read returns what is in a file; empty if there is none.
func (r *recipe) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(r.folder, name))
	return string(text)
}

// text returns a file of the recipes with the server's address, and with the folder of its programs.
func (r *recipe) text(t *testing.T, name string) string {
	t.Helper()
	text := r.read(name)
	if text == "" {
		t.Fatalf("docs/RECIPES.md has no file %s", name)
	}
	return strings.NewReplacer("http://localhost:8000", r.url, "/usr/local/bin", r.bin).Replace(text)
}

// guarded writes a command for a recipe to run. Each waits for half a minute at most, so that none stays when a test fails.
func (r *recipe) guarded(t *testing.T, name, script string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(r.folder, name)), 0o700))
	r.write(t, name, `#!/bin/sh
enough() { i=0; while [ ! -e "$1" ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done; }
`+script+"\n")
}

// command is a command that does not belong to a terminal, as in cron, CI and systemd.
func (r *recipe) command(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = r.folder
	cmd.Env = append(os.Environ(), "LOCKD="+r.url, "LOCKCTL_URL="+r.url, "PATH="+r.bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// started is a command that runs.
type started struct {
	*exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
}

func begin(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{Cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	must(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // ProcessState tells how it ended
		close(s.ended)
	}()
	return s
}

// wantEnd waits for the end of a command.
func (s *started) wantEnd(t *testing.T, code int) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = syscall.Kill(-s.Process.Pid, syscall.SIGKILL)
		t.Fatalf("%v does not end", s.Cmd)
	}
	if got := s.ProcessState.ExitCode(); got != code {
		t.Errorf("%v ended with %d, want %d: %s", s.Cmd, got, code, &s.output)
	}
}

// wantQuiet waits for the end of a command that must succeed without a word.
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

// Of several hosts one runs the job. Soon after that it is not run again.
func cronJob(t *testing.T, r *recipe) {
	var variables []string
	var job string
	for line := range strings.Lines(r.text(t, "crontab")) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
		case regexp.MustCompile(`^[A-Z_]+=`).MatchString(line):
			variables = append(variables, line)
		default:
			m := regexp.MustCompile(`^(?:[\d*/,-]+ +){5}([^%]+)$`).FindStringSubmatch(line) // cron takes % for a new line
			if m == nil || job != "" {
				t.Fatalf("the crontab has the line %q", line)
			}
			job = m[1]
		}
	}
	host := func() *started {
		cmd := r.command(t, "/bin/sh", "-c", job)
		cmd.Env = append([]string{"HOME=" + r.folder, "LOGNAME=root", "SHELL=/bin/sh"}, variables...)
		return begin(t, cmd)
	}
	r.guarded(t, "bin/backup", `echo "began $*" >>log; enough enough; echo ended >>log`)
	hosts := []*started{host(), host()}
	r.eventually(t, "log", "began --all\n")
	skipped, works := hosts[0], hosts[1]
	select {
	case <-skipped.ended:
	case <-works.ended:
		skipped, works = works, skipped
	case <-time.After(patience):
		t.Fatal("both hosts run the job, or one of them waits")
	}
	skipped.wantQuiet(t)
	r.write(t, "enough", "")
	works.wantQuiet(t)
	if s := r.status(t, "nightly-backup"); s.Data["released_at"] == nil || s.Data["is_locked"] != true {
		t.Errorf("after the job: %+v, want it released and taken until its minimum has passed", s.Data)
	}
	host().wantQuiet(t) // its clock is behind
	if log := r.read("log"); log != "began --all\nended\n" {
		t.Errorf("the log is %q", log)
	}
}

// unit is a file of systemd: sections, names, values.
func unit(t *testing.T, text string) map[string]map[string]string {
	t.Helper()
	sections := map[string]map[string]string{}
	var section map[string]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, value, is := strings.Cut(line, "=")
		switch {
		case line == "":
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = map[string]string{}
			sections[strings.Trim(line, "[]")] = section
		case is && section != nil && section[name] == "":
			section[name] = value
		default:
			t.Fatalf("the unit has the line %q", line)
		}
	}
	return sections
}

// One host runs the report, which a stop of the unit stops; another one ends with success.
func systemdTimer(t *testing.T, r *recipe) {
	service := unit(t, r.text(t, "report.service"))["Service"]
	if timer := unit(t, r.text(t, "report.timer")); timer["Timer"]["OnCalendar"] == "" || timer["Install"]["WantedBy"] != "timers.target" {
		t.Errorf("the timer is %v", timer)
	}
	command := strings.Fields(service["ExecStart"]) // nothing in it is quoted, or it would not be found
	grace, err := time.ParseDuration(command[slices.Index(command, "--grace")+1])
	must(t, err)
	if stop, err := time.ParseDuration(service["TimeoutStopSec"] + "s"); err != nil || stop <= grace || service["KillMode"] != "mixed" {
		t.Errorf("the service is stopped %v after a TERM, which is less than %v: %v", stop, grace, service)
	}
	host := func() *started {
		cmd := r.command(t, command...)
		cmd.Env = []string{service["Environment"], "PATH=/usr/bin:/bin"}
		return begin(t, cmd)
	}
	r.guarded(t, "bin/report", `trap 'echo stopped >>log; exit 3' TERM; echo "began $*" >>log; enough enough`)
	works := host()
	r.eventually(t, "log", "began --monthly\n")
	other := host()
	other.wantEnd(t, 75)
	if service["SuccessExitStatus"] != "75" || !strings.Contains(other.output.String(), "not acquired: report: locked by ") {
		t.Errorf("%q is a success, and the other host says %s", service["SuccessExitStatus"], &other.output)
	}
	must(t, works.Process.Signal(syscall.SIGTERM)) // to lockctl alone
	works.wantEnd(t, 3)
	if log := r.read("log"); log != "began --monthly\nstopped\n" {
		t.Errorf("the log is %q", log)
	}
}

// ciJob runs a job of CI: it waits for its turn, says so and why, works, and releases.
func ciJob(t *testing.T, r *recipe, reason string, job func() *started) {
	t.Helper()
	h := r.acquire(t, "deploy/web", "another job")
	works := job()
	apptest.Eventually(t, "it waits", func() bool { return len(r.queue(t, "deploy/web")) == 1 })
	waiting := r.get(t, "/locks/queue?resource_name=deploy/web")
	if first := fmt.Sprint(waiting.Data["waiters"]); !strings.Contains(first, "reason:"+reason) {
		t.Errorf("who waits: %s, want the reason %s", first, reason)
	}
	if log := r.read("log"); log != "" {
		t.Errorf("it did not wait for its turn: %q", log)
	}
	r.release(t, h)
	r.eventually(t, "log", "began\n")
	r.write(t, "enough", "")
	works.wantEnd(t, 0)
	r.wantFree(t, "deploy/web")
	if log := r.read("log"); log != "began\nended\n" {
		t.Errorf("the log is %q", log)
	}
}

// parse reads YAML, and does not accept a field that value does not have.
func parse(t *testing.T, text string, value any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	must(t, decoder.Decode(value))
}

// The deploys of a workflow run one after the other, and a deploy that is canceled is stopped.
func gitHubActions(t *testing.T, r *recipe) {
	var workflow struct {
		Name string
		On   struct{ Push struct{ Branches []string } }
		Jobs map[string]struct {
			RunsOn         string `yaml:"runs-on"`
			TimeoutMinutes int    `yaml:"timeout-minutes"`
			Env            map[string]string
			Steps          []struct{ Name, Uses, Run string }
		}
	}
	parse(t, r.text(t, ".github/workflows/deploy.yml"), &workflow)
	job := workflow.Jobs["deploy"]
	if len(workflow.On.Push.Branches) == 0 || len(job.Steps) != 2 || job.Steps[0].Uses == "" || job.Env["LOCKCTL_URL"] == "" {
		t.Fatalf("the workflow is %+v", workflow)
	}
	r.write(t, "step.sh", job.Steps[1].Run)
	run := func() *started {
		cmd := r.command(t, "bash", "-e", "step.sh") // as GitHub does by default
		cmd.Env = append(cmd.Env, "GITHUB_REPOSITORY=you/shop", "GITHUB_RUN_ID=77", "LOCKCTL_URL="+job.Env["LOCKCTL_URL"])
		return begin(t, cmd)
	}
	r.guarded(t, "deploy.sh", "echo began >>log; enough enough; echo ended >>log")
	ciJob(t, r, "you/shop, run 77", run)

	must(t, os.Remove(filepath.Join(r.folder, "log")))
	r.guarded(t, "deploy.sh", "trap 'echo interrupted >>log; exit 3' INT; echo began >>log; enough never")
	canceled := run()
	r.eventually(t, "log", "began\n")
	must(t, canceled.Process.Signal(syscall.SIGINT)) // to the first process of the step alone
	canceled.wantEnd(t, 3)
	r.eventually(t, "log", "began\ninterrupted\n")
	r.wantFree(t, "deploy/web")
}

func gitLabCI(t *testing.T, r *recipe) {
	var jobs map[string]struct {
		Stage         string
		Timeout       string
		Interruptible bool
		Variables     map[string]string
		Script        []string
	}
	parse(t, r.text(t, ".gitlab-ci.yml"), &jobs)
	job := jobs["deploy"]
	if len(jobs) != 1 || job.Variables["LOCKCTL_URL"] == "" || len(job.Script) == 0 {
		t.Fatalf("the jobs are %+v", jobs)
	}
	r.guarded(t, "build.sh", "echo built >>built")
	r.guarded(t, "deploy.sh", "echo began >>log; enough enough; echo ended >>log")
	ciJob(t, r, "https://gitlab.example/jobs/77", func() *started {
		cmd := r.command(t, "bash")
		cmd.Stdin = strings.NewReader("set -eo pipefail\n" + strings.Join(job.Script, "\n") + "\n")
		cmd.Env = append(cmd.Env, "CI_JOB_URL=https://gitlab.example/jobs/77", "LOCKCTL_URL="+job.Variables["LOCKCTL_URL"])
		return begin(t, cmd)
	})
	if built := r.read("built"); built != "built\n" {
		t.Errorf("it built %q", built)
	}
}

// Replicas that start at once migrate in turn. One whose migration fails does not serve.
func migration(t *testing.T, r *recipe) {
	r.guarded(t, "migrate", `echo "begin $*" >>log; enough enough; echo end >>log`)
	r.guarded(t, "serve", "echo serving >>served")
	var replicas []*started
	for range 3 {
		replicas = append(replicas, begin(t, r.command(t, "bash", "entrypoint.sh")))
	}
	apptest.Eventually(t, "the others wait", func() bool { return len(r.queue(t, "migrate/shop")) == 2 })
	r.eventually(t, "log", "begin up\n")
	if served := r.read("served"); served != "" {
		t.Errorf("before the migration: %q", served)
	}
	r.write(t, "enough", "")
	for _, replica := range replicas {
		replica.wantQuiet(t)
	}
	if log, served := r.read("log"), r.read("served"); log != strings.Repeat("begin up\nend\n", 3) || served != strings.Repeat("serving\n", 3) {
		t.Errorf("the log is %q, and %q", log, served)
	}

	must(t, os.Remove(filepath.Join(r.folder, "served")))
	r.guarded(t, "migrate", "exit 3")
	begin(t, r.command(t, "bash", "entrypoint.sh")).wantEnd(t, 3)
	if served := r.read("served"); served != "" {
		t.Errorf("after a migration that failed: %q", served)
	}
}

// An instance leads until it is killed. Another one follows, until its lock is broken, and again until it is told to stop.
func leaderElection(t *testing.T, r *recipe) {
	program := goProgram(t, r.text(t, "main.go"))
	instance := func() (*started, <-chan string) {
		cmd := r.command(t, program)
		s := &started{Cmd: cmd, ended: make(chan struct{})}
		stderr, err := cmd.StderrPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := make(chan string, 10)
		go func() {
			defer close(s.ended)
			for scanner := bufio.NewScanner(io.TeeReader(stderr, &s.output)); scanner.Scan(); {
				lines <- scanner.Text()
			}
			_ = cmd.Wait()
		}()
		return s, lines
	}
	says := func(lines <-chan string, what string) (more string) {
		t.Helper()
		select {
		case line := <-lines:
			_, more, is := strings.Cut(line, what)
			if !is {
				t.Fatalf("an instance printed %q, want %q", line, what)
			}
			return more
		case <-time.After(patience):
			t.Fatalf("no instance prints %q", what)
		}
		panic("unreachable")
	}
	leads := func(lines <-chan string) (token int64) {
		t.Helper()
		_, err := fmt.Sscan(says(lines, "leading with the fencing token "), &token)
		must(t, err)
		return token
	}
	first, firstSays := instance()
	earlier := leads(firstSays)
	second, secondSays := instance()
	apptest.Eventually(t, "the second one waits", func() bool { return len(r.queue(t, "scheduler/leader")) == 1 })
	must(t, first.Process.Kill())
	first.wantEnd(t, -1)
	later := leads(secondSays)
	if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=scheduler/leader&reason=test", nil); answer.Status != http.StatusOK {
		t.Fatalf("%+v", answer)
	}
	for range 2 { // the cause of its context, and the result of Unlock
		says(secondSays, "the lock is lost: force-released")
	}
	if last := leads(secondSays); later <= earlier || last <= later {
		t.Errorf("the tokens are %d, %d and %d", earlier, later, last)
	}
	must(t, second.Process.Signal(syscall.SIGTERM))
	second.wantEnd(t, 0)
	if cause := says(secondSays, "not leading any more: "); strings.Contains(cause, "lost") {
		t.Errorf("it stopped to lead for %s", cause)
	}
	r.wantFree(t, "scheduler/leader")
}

// The scripts pass the token on, and release the lock. The one that goes in steps notices between them that it is lost.
func shellScripts(t *testing.T, r *recipe) {
	for _, script := range []string{"report.sh", "report-in-steps.sh"} {
		r.guarded(t, "collect", "echo collected >>log")
		r.guarded(t, "publish", `curl -sS "$LOCKCTL_URL/locks/validate?resource_name=report&fencing_token=$1" >published`)
		begin(t, r.command(t, "bash", script)).wantQuiet(t)
		if log, published := r.read("log"), r.read("published"); log != "collected\n" || !strings.Contains(published, `"valid":true`) {
			t.Errorf("%s: the log is %q, the token %s", script, log, published)
		}
		r.wantFree(t, "report")
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		must(t, os.Remove(filepath.Join(r.folder, "published")))
	}

	r.guarded(t, "collect", "echo began >>log; enough enough; echo ended >>log")
	broken := begin(t, r.command(t, "bash", "report-in-steps.sh"))
	r.eventually(t, "log", "began\n")
	if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=report&reason=test", nil); answer.Status != http.StatusOK {
		t.Fatalf("%+v", answer)
	}
	r.write(t, "enough", "")
	broken.wantEnd(t, 76)
	if published := r.read("published"); published != "" {
		t.Errorf("it published %s without the lock", published)
	}

	must(t, os.Remove(filepath.Join(r.folder, "enough")))
	must(t, os.Remove(filepath.Join(r.folder, "log")))
	stopped := begin(t, r.command(t, "bash", "report-in-steps.sh"))
	r.eventually(t, "log", "began\n")
	must(t, stopped.Process.Signal(syscall.SIGTERM))
	r.write(t, "enough", "")
	stopped.wantEnd(t, 143)
	r.wantFree(t, "report")
	if log, published := r.read("log"), r.read("published"); log != "began\nended\n" || published != "" {
		t.Errorf("the log is %q, it published %s", log, published)
	}
}

// Each rig has one user at a time, and the command's exit code is passed on.
func pool(t *testing.T, r *recipe) {
	r.guarded(t, "test", `mkdir -p "$LOCK_RESOURCE_NAME" || exit 1
mkdir "$LOCK_RESOURCE_NAME/in use" || exit 1
echo "$LOCK_RESOURCE_NAME" >>log; enough enough
rmdir "$LOCK_RESOURCE_NAME/in use"; exit 7`)
	var workers []*started
	for range 3 {
		workers = append(workers, begin(t, r.command(t, "bash", "with-rig.sh", "./test", "an argument")))
	}
	apptest.Eventually(t, "both rigs are in use", func() bool { return strings.Count(r.read("log"), "\n") == 2 })
	if log := r.read("log"); log != "rig/1\nrig/2\n" && log != "rig/2\nrig/1\n" {
		t.Errorf("the log is %q", log)
	}
	r.write(t, "enough", "")
	for _, worker := range workers {
		worker.wantEnd(t, 7)
		if worker.output.Len() > 0 {
			t.Errorf("a worker printed %s", &worker.output)
		}
	}
	if used := strings.Fields(r.read("log")); len(used) != 3 {
		t.Errorf("the rigs in use were %q", used)
	}
}

// Of several hosts with curl one runs the job, and gives the lock back; soon after that it is not run again.
func TestCronJobWithCurl(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	r.guarded(t, "backup", "echo ran >>ran; enough enough")
	first := begin(t, r.command(t, "bash", "nightly-backup.sh"))
	r.eventually(t, "ran", "ran\n")
	begin(t, r.command(t, "bash", "nightly-backup.sh")).wantQuiet(t) // another host
	r.write(t, "enough", "")
	first.wantQuiet(t)
	if s := r.status(t, "nightly-backup"); s.Data["released_at"] == nil || s.Data["is_locked"] != true {
		t.Errorf("after the job: %+v, want it released and taken until its minimum has passed", s.Data)
	}
	begin(t, r.command(t, "bash", "nightly-backup.sh")).wantQuiet(t) // a host whose clock is behind
	if ran := r.read("ran"); ran != "ran\n" {
		t.Errorf("the job ran: %q", ran)
	}
}

// The deploy with curl waits for its turn and gives the lock back; when its lock is broken, the work is stopped.
func TestDeployWithCurl(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	script := r.text(t, "guarded-deploy.sh")
	short := strings.Replace(script, "ttl=60", "ttl=9", 1)
	if short == script {
		t.Fatal("the script has no ttl=60")
	}
	r.write(t, "guarded-deploy.sh", short)
	deploy := func() *started { return begin(t, r.command(t, "bash", "guarded-deploy.sh")) }
	r.guarded(t, "deploy", "echo began >>log; enough enough; echo ended >>log")

	t.Run("waits, works, gives back", func(t *testing.T) {
		h := r.acquire(t, "deploy/web", "another deploy")
		works := deploy()
		apptest.Eventually(t, "it waits", func() bool { return len(r.queue(t, "deploy/web")) == 1 })
		if r.read("log") != "" {
			t.Error("it did not wait for its turn")
		}
		r.release(t, h)
		r.eventually(t, "log", "began\n")
		until := r.status(t, "deploy/web").Data["expires_at"]
		apptest.Eventually(t, "it renews", func() bool { return r.status(t, "deploy/web").Data["expires_at"] != until })
		r.write(t, "enough", "")
		works.wantEnd(t, 0)
		r.wantFree(t, "deploy/web")
		if log := r.read("log"); log != "began\nended\n" {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("stops when its lock is broken", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(r.folder, "enough")))
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		broken := deploy()
		r.eventually(t, "log", "began\n")
		if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=deploy/web&reason=test", nil); answer.Status != http.StatusOK {
			t.Fatalf("%+v", answer)
		}
		broken.wantEnd(t, 75)
		if log := r.read("log"); log != "began\n" {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("stops with the script, and gives back", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		r.guarded(t, "deploy", "trap 'echo stopped >>log; exit' TERM; echo began >>log; enough never")
		stopped := deploy()
		r.eventually(t, "log", "began\n")
		must(t, stopped.Process.Signal(syscall.SIGTERM))
		stopped.wantEnd(t, 143)
		if log := r.read("log"); log != "began\nstopped\n" {
			t.Errorf("the log is %q", log)
		}
		r.wantFree(t, "deploy/web")
	})
}

// The worker holds the lock while it works and gives it back.
func TestWorkerInPython(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	worker := begin(t, r.command(t, "python3", "worker.py"))
	worker.wantEnd(t, 0)
	if strings.Count(worker.output.String(), "with the token") != 3 {
		t.Errorf("it printed %s", &worker.output)
	}
	r.wantFree(t, "invoices")
}
