package main

import (
	"bufio"
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
)

const module = "resource-lock-manager"

// TestRecipes runs the recipes of docs/RECIPES.md that use lockctl or package client.
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

// cronJob checks that one of several hosts runs the job, and that a host with a late
// clock does not run it again.
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
			// cron replaces % by a new line.
			m := regexp.MustCompile(`^(?:[\d*/,-]+ +){5}([^%]+)$`).FindStringSubmatch(line)
			if m == nil || job != "" {
				t.Fatalf("the crontab has the line %q", line)
			}
			job = m[1]
		}
	}
	host := func() *started {
		cmd := r.command(t, "/bin/sh", "-c", job)
		cmd.Env = append([]string{"HOME=" + r.folder, "LOGNAME=root", "SHELL=/bin/sh"}, variables...)
		return startCommand(t, cmd)
	}
	r.writeCommand(t, "bin/backup", `echo "began $*" >>log; wait_for done; echo ended >>log`)
	hosts := []*started{host(), host()}
	r.eventually(t, "log", "began --all\n")
	skipped, works := hosts[0], hosts[1]
	select {
	case <-skipped.ended:
	case <-works.ended:
		skipped, works = works, skipped
	case <-time.After(apptest.Timeout):
		t.Fatal("both hosts run the job, or one of them waits")
	}
	skipped.wantQuiet(t)
	r.write(t, "done", "")
	works.wantQuiet(t)
	if s := r.status(t, "nightly-backup"); s.Data["released_at"] == nil || s.Data["is_locked"] != true {
		t.Errorf("after the job: %+v, want it released and taken until its minimum has passed", s.Data)
	}
	host().wantQuiet(t) // a host whose clock is late
	if log := r.read("log"); log != "began --all\nended\n" {
		t.Errorf("the log is %q", log)
	}
}

// unit returns the sections of a systemd unit, with their values by name.
func unit(t *testing.T, text string) map[string]map[string]string {
	t.Helper()
	sections := map[string]map[string]string{}
	var section map[string]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, value, found := strings.Cut(line, "=")
		switch {
		case line == "":
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = map[string]string{}
			sections[strings.Trim(line, "[]")] = section
		case found && section != nil && section[name] == "":
			section[name] = value
		default:
			t.Fatalf("the unit has the line %q", line)
		}
	}
	return sections
}

// systemdTimer checks that one host runs the report and another one ends with success.
// Stopping the unit stops the report.
func systemdTimer(t *testing.T, r *recipe) {
	service := unit(t, r.text(t, "report.service"))["Service"]
	if timer := unit(t, r.text(t, "report.timer")); timer["Timer"]["OnCalendar"] == "" ||
		timer["Install"]["WantedBy"] != "timers.target" {
		t.Errorf("the timer is %v", timer)
	}
	command := strings.Fields(service["ExecStart"]) // it has no quotes, or the program would not be found
	grace, err := time.ParseDuration(command[slices.Index(command, "--grace")+1])
	must(t, err)
	if stop, err := time.ParseDuration(service["TimeoutStopSec"] + "s"); err != nil || stop <= grace ||
		service["KillMode"] != "mixed" {
		t.Errorf("the service is stopped %v after a TERM, which is less than %v: %v", stop, grace, service)
	}
	host := func() *started {
		cmd := r.command(t, command...)
		cmd.Env = []string{service["Environment"], "PATH=/usr/bin:/bin"}
		return startCommand(t, cmd)
	}
	r.writeCommand(t, "bin/report", `trap 'echo stopped >>log; exit 3' TERM; echo "began $*" >>log; wait_for done`)
	works := host()
	r.eventually(t, "log", "began --monthly\n")
	other := host()
	other.wantEnd(t, 75)
	if service["SuccessExitStatus"] != "75" ||
		!strings.Contains(other.output.String(), "not acquired: report: locked by ") {
		t.Errorf("%q is a success, and the other host printed %s", service["SuccessExitStatus"], &other.output)
	}
	must(t, works.Process.Signal(syscall.SIGTERM)) // only to lockctl
	works.wantEnd(t, 3)
	if log := r.read("log"); log != "began --monthly\nstopped\n" {
		t.Errorf("the log is %q", log)
	}
}

// ciJob runs a CI job. It waits for its turn, shows its reason in the queue, works, and
// releases the lock.
func ciJob(t *testing.T, r *recipe, reason string, job func() *started) {
	t.Helper()
	h := r.acquire(t, "deploy/web", "another job")
	works := job()
	apptest.Eventually(t, "the job waits", func() bool { return len(r.queue(t, "deploy/web")) == 1 })
	waiting := r.get(t, "/locks/queue?resource_name=deploy/web")
	if first := fmt.Sprint(waiting.Data["waiters"]); !strings.Contains(first, "reason:"+reason) {
		t.Errorf("the waiters are %s, want the reason %s", first, reason)
	}
	if log := r.read("log"); log != "" {
		t.Errorf("the job did not wait for its turn: %q", log)
	}
	r.release(t, h)
	r.eventually(t, "log", "began\n")
	r.write(t, "done", "")
	works.wantEnd(t, 0)
	r.wantFree(t, "deploy/web")
	if log := r.read("log"); log != "began\nended\n" {
		t.Errorf("the log is %q", log)
	}
}

// parse decodes YAML. It fails the test if value lacks one of the fields.
func parse(t *testing.T, text string, value any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	must(t, decoder.Decode(value))
}

// gitHubActions checks that the deploys of a workflow run one after the other, and that
// canceling a deploy stops it.
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
	if len(workflow.On.Push.Branches) == 0 || len(job.Steps) != 2 || job.Steps[0].Uses == "" ||
		job.Env["LOCKCTL_URL"] == "" {
		t.Fatalf("the workflow is %+v", workflow)
	}
	r.write(t, "step.sh", job.Steps[1].Run)
	run := func() *started {
		cmd := r.command(t, "bash", "-e", "step.sh") // the default of GitHub
		cmd.Env = append(cmd.Env, "GITHUB_REPOSITORY=you/shop", "GITHUB_RUN_ID=77",
			"LOCKCTL_URL="+job.Env["LOCKCTL_URL"])
		return startCommand(t, cmd)
	}
	r.writeCommand(t, "deploy.sh", "echo began >>log; wait_for done; echo ended >>log")
	ciJob(t, r, "you/shop, run 77", run)

	must(t, os.Remove(filepath.Join(r.folder, "log")))
	r.writeCommand(t, "deploy.sh", "trap 'echo interrupted >>log; exit 3' INT; echo began >>log; wait_for never")
	canceled := run()
	r.eventually(t, "log", "began\n")
	must(t, canceled.Process.Signal(syscall.SIGINT)) // only to the first process of the step
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
	r.writeCommand(t, "build.sh", "echo built >>built")
	r.writeCommand(t, "deploy.sh", "echo began >>log; wait_for done; echo ended >>log")
	ciJob(t, r, "https://gitlab.example/jobs/77", func() *started {
		cmd := r.command(t, "bash")
		cmd.Stdin = strings.NewReader("set -eo pipefail\n" + strings.Join(job.Script, "\n") + "\n")
		cmd.Env = append(cmd.Env, "CI_JOB_URL=https://gitlab.example/jobs/77",
			"LOCKCTL_URL="+job.Variables["LOCKCTL_URL"])
		return startCommand(t, cmd)
	})
	if built := r.read("built"); built != "built\n" {
		t.Errorf("the job built %q", built)
	}
}

// migration checks that replicas that start at once migrate one after the other, and that
// a replica does not serve after a failed migration.
func migration(t *testing.T, r *recipe) {
	r.writeCommand(t, "migrate", `echo "begin $*" >>log; wait_for done; echo end >>log`)
	r.writeCommand(t, "serve", "echo serving >>served")
	var replicas []*started
	for range 3 {
		replicas = append(replicas, startCommand(t, r.command(t, "bash", "entrypoint.sh")))
	}
	apptest.Eventually(t, "the others wait", func() bool { return len(r.queue(t, "migrate/shop")) == 2 })
	r.eventually(t, "log", "begin up\n")
	if served := r.read("served"); served != "" {
		t.Errorf("before the migration: %q", served)
	}
	r.write(t, "done", "")
	for _, replica := range replicas {
		replica.wantQuiet(t)
	}
	if log, served := r.read("log"), r.read("served"); log != strings.Repeat("begin up\nend\n", 3) ||
		served != strings.Repeat("serving\n", 3) {
		t.Errorf("the log is %q, and %q", log, served)
	}

	must(t, os.Remove(filepath.Join(r.folder, "served")))
	r.writeCommand(t, "migrate", "exit 3")
	startCommand(t, r.command(t, "bash", "entrypoint.sh")).wantEnd(t, 3)
	if served := r.read("served"); served != "" {
		t.Errorf("after a migration that failed: %q", served)
	}
}

// leaderElection checks that another instance leads when the leader is killed, and again
// when its lock is force-released, until it is stopped.
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
	wantLine := func(lines <-chan string, what string) (more string) {
		t.Helper()
		select {
		case line := <-lines:
			_, more, found := strings.Cut(line, what)
			if !found {
				t.Fatalf("an instance printed %q, want %q", line, what)
			}
			return more
		case <-time.After(apptest.Timeout):
			t.Fatalf("no instance printed %q", what)
		}
		panic("unreachable")
	}
	wantLeader := func(lines <-chan string) (token int64) {
		t.Helper()
		_, err := fmt.Sscan(wantLine(lines, "leading with the fencing token "), &token)
		must(t, err)
		return token
	}
	first, firstLines := instance()
	earlier := wantLeader(firstLines)
	second, secondLines := instance()
	apptest.Eventually(t, "the second one waits", func() bool { return len(r.queue(t, "scheduler/leader")) == 1 })
	must(t, first.Process.Kill())
	first.wantEnd(t, -1)
	later := wantLeader(secondLines)
	if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=scheduler/leader&reason=test",
		nil); answer.Status != http.StatusOK {
		t.Fatalf("%+v", answer)
	}
	for range 2 { // the cause of its context, and the error of Unlock
		wantLine(secondLines, "the lock is lost: force-released")
	}
	if last := wantLeader(secondLines); later <= earlier || last <= later {
		t.Errorf("the tokens are %d, %d and %d", earlier, later, last)
	}
	must(t, second.Process.Signal(syscall.SIGTERM))
	second.wantEnd(t, 0)
	if cause := wantLine(secondLines, "not leading any more: "); strings.Contains(cause, "lost") {
		t.Errorf("the leader stopped because of %s", cause)
	}
	r.wantFree(t, "scheduler/leader")
}

// shellScripts checks that the scripts pass the token on and release the lock. The script
// with steps notices between them that its lock is lost.
func shellScripts(t *testing.T, r *recipe) {
	for _, script := range []string{"report.sh", "report-in-steps.sh"} {
		r.writeCommand(t, "collect", "echo collected >>log")
		r.writeCommand(t, "publish",
			`curl -sS "$LOCKCTL_URL/locks/validate?resource_name=report&fencing_token=$1" >published`)
		startCommand(t, r.command(t, "bash", script)).wantQuiet(t)
		if log, published := r.read("log"), r.read("published"); log != "collected\n" ||
			!strings.Contains(published, `"valid":true`) {
			t.Errorf("%s: the log is %q, the token %s", script, log, published)
		}
		r.wantFree(t, "report")
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		must(t, os.Remove(filepath.Join(r.folder, "published")))
	}

	r.writeCommand(t, "collect", "echo began >>log; wait_for done; echo ended >>log")
	lost := startCommand(t, r.command(t, "bash", "report-in-steps.sh"))
	r.eventually(t, "log", "began\n")
	if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=report&reason=test",
		nil); answer.Status != http.StatusOK {
		t.Fatalf("%+v", answer)
	}
	r.write(t, "done", "")
	lost.wantEnd(t, 76)
	if published := r.read("published"); published != "" {
		t.Errorf("the script published %s without the lock", published)
	}

	must(t, os.Remove(filepath.Join(r.folder, "done")))
	must(t, os.Remove(filepath.Join(r.folder, "log")))
	stopped := startCommand(t, r.command(t, "bash", "report-in-steps.sh"))
	r.eventually(t, "log", "began\n")
	must(t, stopped.Process.Signal(syscall.SIGTERM))
	r.write(t, "done", "")
	stopped.wantEnd(t, 143)
	r.wantFree(t, "report")
	if log, published := r.read("log"), r.read("published"); log != "began\nended\n" || published != "" {
		t.Errorf("the log is %q, published is %s", log, published)
	}
}

// pool checks that each rig has one user at a time, and that the exit code of the command
// is passed on.
func pool(t *testing.T, r *recipe) {
	r.writeCommand(t, "test", `mkdir -p "$LOCK_RESOURCE_NAME" || exit 1
mkdir "$LOCK_RESOURCE_NAME/in use" || exit 1
echo "$LOCK_RESOURCE_NAME" >>log; wait_for done
rmdir "$LOCK_RESOURCE_NAME/in use"; exit 7`)
	var workers []*started
	for range 3 {
		workers = append(workers, startCommand(t, r.command(t, "bash", "with-rig.sh", "./test", "an argument")))
	}
	apptest.Eventually(t, "both rigs are in use", func() bool { return strings.Count(r.read("log"), "\n") == 2 })
	if log := r.read("log"); log != "rig/1\nrig/2\n" && log != "rig/2\nrig/1\n" {
		t.Errorf("the log is %q", log)
	}
	r.write(t, "done", "")
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
