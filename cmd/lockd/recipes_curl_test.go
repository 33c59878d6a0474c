package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
)

// TestCronJobWithCurl checks that one of several hosts runs the job and releases the
// lock, and that the job does not run again soon after.
func TestCronJobWithCurl(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	r.writeCommand(t, "backup", "echo ran >>ran; wait_for done")
	first := startCommand(t, r.command(t, "bash", "nightly-backup.sh"))
	r.eventually(t, "ran", "ran\n")
	startCommand(t, r.command(t, "bash", "nightly-backup.sh")).wantQuiet(t) // another host
	r.write(t, "done", "")
	first.wantQuiet(t)
	if s := r.status(t, "nightly-backup"); s.Data["released_at"] == nil || s.Data["is_locked"] != true {
		t.Errorf("after the job: %+v, want it released and taken until its minimum has passed", s.Data)
	}
	startCommand(t, r.command(t, "bash", "nightly-backup.sh")).wantQuiet(t) // a host whose clock is late
	if ran := r.read("ran"); ran != "ran\n" {
		t.Errorf("the job ran: %q", ran)
	}
}

// TestDeployWithCurl checks that the deploy waits for its turn and releases the lock, and
// that it stops when the lock is force-released.
func TestDeployWithCurl(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	script := r.text(t, "guarded-deploy.sh")
	short := strings.Replace(script, "ttl=60", "ttl=9", 1)
	if short == script {
		t.Fatal("the script has no ttl=60")
	}
	r.write(t, "guarded-deploy.sh", short)
	deploy := func() *started { return startCommand(t, r.command(t, "bash", "guarded-deploy.sh")) }
	r.writeCommand(t, "deploy", "echo began >>log; wait_for done; echo ended >>log")

	t.Run("waits, works, releases", func(t *testing.T) {
		h := r.acquire(t, "deploy/web", "another deploy")
		works := deploy()
		apptest.Eventually(t, "the job waits", func() bool { return len(r.queue(t, "deploy/web")) == 1 })
		if r.read("log") != "" {
			t.Error("the deploy did not wait for its turn")
		}
		r.release(t, h)
		r.eventually(t, "log", "began\n")
		until := r.status(t, "deploy/web").Data["expires_at"]
		apptest.Eventually(t, "the deploy renews",
			func() bool { return r.status(t, "deploy/web").Data["expires_at"] != until })
		r.write(t, "done", "")
		works.wantEnd(t, 0)
		r.wantFree(t, "deploy/web")
		if log := r.read("log"); log != "began\nended\n" {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("stops when its lock is force-released", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(r.folder, "done")))
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		lost := deploy()
		r.eventually(t, "log", "began\n")
		if answer := r.do(t, "DELETE", "/locks/force-release?resource_name=deploy/web&reason=test",
			nil); answer.Status != http.StatusOK {
			t.Fatalf("%+v", answer)
		}
		lost.wantEnd(t, 75)
		if log := r.read("log"); log != "began\n" {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("stops with the script, and releases", func(t *testing.T) {
		must(t, os.Remove(filepath.Join(r.folder, "log")))
		r.writeCommand(t, "deploy", "trap 'echo stopped >>log; exit' TERM; echo began >>log; wait_for never")
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

// TestWorkerInPython checks that the worker holds the lock while it works and releases
// it.
func TestWorkerInPython(t *testing.T) {
	t.Parallel()
	r := newRecipe(t, "")
	worker := startCommand(t, r.command(t, "python3", "worker.py"))
	worker.wantEnd(t, 0)
	if strings.Count(worker.output.String(), "with the token") != 3 {
		t.Errorf("the worker printed %s", &worker.output)
	}
	r.wantFree(t, "invoices")
}
