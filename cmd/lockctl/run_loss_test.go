//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/apptest"
)

// breakLock force-releases whatever holds a resource.
func breakLock(tb testing.TB, c *client.Client, resource, reason string) {
	tb.Helper()
	_, err := c.ForceRelease(tb.Context(), resource, client.ForceReleaseOptions{By: "admin", Reason: reason})
	must(tb, err)
}

// TestForceReleased: the command and what it has started get TERM, and lockctl says who
// and why. The grandchild is never awaited, which must not keep lockctl from ending.
func TestForceReleased(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "--ttl", "5s", "forced", "--", probe(t), "-sub")
	pids := j.ready(t, "child", "grandchild")
	breakLock(t, c, "forced", "the runner has died")
	j.line(t, "got TERM")
	j.line(t, "got TERM")
	j.wantCode(t, 76)
	for _, pid := range pids {
		if runs(pid) {
			t.Errorf("process %d runs on", pid)
		}
	}
	if said := j.stderr.String(); !strings.Contains(said, "forced: the lock is lost: force-released by admin: the runner has died; stopping the command") {
		t.Errorf("stderr %q", said)
	}
}

// TestProcessesOfBeforeAreLeftAlone: those that a shell has started before it has become
// lockctl are none of the command's.
func TestProcessesOfBeforeAreLeftAlone(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	cmd := lockctlCommand(base)
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", `
		sleep 1000 & echo sidecar $!
		exec lockctl run --ttl 5s sidecar -c 'trap "echo stopped; exit 0" TERM; echo ready; while :; do sleep 0.01; done' > >(
			trap '' TERM; echo tee $BASHPID; exec cat)`}
	j := startJob(t, cmd)
	var pids []int
	for _, name := range []string{"sidecar", "tee"} {
		pid, err := strconv.Atoi(strings.TrimPrefix(j.line(t, name), name+" "))
		must(t, err)
		pids = append(pids, pid)
	}
	j.line(t, "ready")
	breakLock(t, c, "sidecar", "why")
	j.line(t, "stopped") // passed on by the process that reads the output
	j.wantCode(t, 76)
	if !runs(pids[0]) {
		t.Error("the process of before has ended")
	}
	must(t, syscall.Kill(pids[0], syscall.SIGKILL))
}

// TestWhatIgnoresTermIsKilled: whatever the command has started has ended when lockctl
// has.
func TestWhatIgnoresTermIsKilled(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	program := probe(t)
	for _, test := range []struct {
		name  string
		args  []string
		names []string
	}{
		{"the command", []string{"-ignore", "TERM"}, []string{"child"}},
		{"both", []string{"-ignore", "TERM", "-sub"}, []string{"child", "grandchild"}},
		{"in another session", []string{"-ignore", "TERM", "-sub", "-session"}, []string{"child", "grandchild"}},
		{"an orphan", []string{"-orphan"}, []string{"orphan", "child"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			name := "killed/" + test.name
			j := startRun(t, base, append([]string{"--ttl", "5s", "--grace", "100ms", "-v", name, "--", program}, test.args...)...)
			pids := j.ready(t, test.names...)
			breakLock(t, c, name, "why")
			j.wantCode(t, 76)
			for _, pid := range pids {
				if runs(pid) {
					t.Errorf("process %d runs on", pid)
				}
			}
			if !strings.Contains(j.stderr.String(), "killing the command") {
				t.Errorf("stderr %q", j.stderr)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "1h", "stopped", "-c", "echo ready; kill -STOP $$")
		j.line(t, "ready")
		breakLock(t, c, "stopped", "why")
		j.wantCode(t, 76)
	})
	t.Run("started while it stops", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "1s", "started", "-c", `
			trap '(trap "" TERM; echo late $$; exec sleep 1000) & exit 0' TERM
			echo ready
			while :; do sleep 0.01; done`)
		j.line(t, "ready")
		breakLock(t, c, "started", "why")
		j.line(t, "late")
		j.wantCode(t, 76)
		j.rest(t) // nobody keeps its output open
	})
	t.Run("ever new ones", func(t *testing.T) {
		t.Parallel()
		j := startRun(t, base, "--ttl", "5s", "--grace", "50ms", "bomb", "-c", `
			trap '' TERM
			echo ready
			# Two at any time: each starts one more and ends, a bounded number of times.
			f() { sleep 0.02; [ $1 -gt 500 ] || f $(($1+1)) & }
			f 0 & f 0
			sleep 1000`)
		j.line(t, "ready")
		breakLock(t, c, "bomb", "why")
		j.wantCode(t, 76)
		j.rest(t)
	})
}

// TestOnLostWarn: the command is not touched.
func TestOnLostWarn(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	for _, test := range []struct{ command, lockctl int }{{0, 76}, {3, 3}} {
		t.Run(strconv.Itoa(test.command), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("warn/%d", test.command)
			j := startRun(t, base, "--ttl", "5s", "--on-lost", "warn", name, "--", probe(t), "-stdin", "-code", strconv.Itoa(test.command))
			j.ready(t, "child")
			breakLock(t, c, name, "maintenance")
			j.waitFor(t, "force-released by admin: maintenance; the command runs on")
			must(t, j.in.Close())
			j.wantCode(t, test.lockctl)
			if counts := got(j.rest(t)); len(counts) != 0 {
				t.Errorf("signals: %v", counts)
			}
		})
	}
}

// TestLostAsItEnds: the command has succeeded, but not under the lock.
func TestLostAsItEnds(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "ends", "--", probe(t), "-stdin") // not renewed for 20 seconds
	j.ready(t, "child")
	breakLock(t, c, "ends", "why")
	must(t, j.in.Close())
	j.wantCode(t, 76)
	j.waitFor(t, "ends: the lock is lost: force-released by admin: why")
}

// TestServerAwayForLessThanTheTTL: the command does not notice.
func TestServerAwayForLessThanTheTTL(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	j := startRun(t, s.url, "--ttl", "10s", "--grace", "1s", "--json", "away", "--", probe(t), "-stdin", "-code", "4")
	j.ready(t, "child")
	before := holderNow(t, observed(t, s.url), "away")
	s.Kill(t)
	j.waitFor(t, `"renew_failed"`)
	s.start(t)
	j.waitFor(t, `"renewed"`)
	if after := holderNow(t, observed(t, s.url), "away"); after != before {
		t.Errorf("held by %q, before by %q", after, before)
	}
	must(t, j.in.Close())
	j.wantCode(t, 4)
	if counts := got(j.rest(t)); len(counts) != 0 {
		t.Errorf("signals: %v", counts)
	}
}

// TestServerAwayForLonger: TERM comes at the deadline less the grace, and KILL at the
// deadline: both before the server lets anybody else have the lock.
func TestServerAwayForLonger(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	// The grace that was asked for is longer than there is time.
	const ttl, grace, margin = 6 * time.Second, 2 * time.Second, time.Second
	j := startRun(t, s.url, "--ttl", ttl.String(), "--grace", "1h", "--json", "longer", "--",
		probe(t), "-ignore", "INT", "-keep", "-sub")
	pids := j.ready(t, "child", "grandchild")
	j.waitFor(t, `"renewed"`)
	s.Kill(t)
	var ends [2]int64
	for i := range ends {
		_, err := fmt.Sscan(j.line(t, "got TERM"), &ends[i])
		must(t, err)
	}
	for _, pid := range pids {
		gone(t, pid)
	}
	killed := time.Now()
	j.wantCode(t, 76)
	s.start(t)
	c := observed(t, s.url)
	var expiry time.Time
	apptest.Eventually(t, "the expiry in the history", func() bool {
		for e, err := range c.History(t.Context(), client.HistoryOptions{Resource: "longer", Events: []string{"expired"}}) {
			must(t, err)
			expiry = e.At
		}
		return !expiry.IsZero()
	})
	for _, at := range ends {
		if early := expiry.Sub(time.UnixMilli(at)); early < grace || early > grace+margin+ttl/3 {
			t.Errorf("TERM came %v before the lock expired, want %v or a bit more", early, grace+margin)
		}
	}
	if early := expiry.Sub(killed); early < 0 {
		t.Errorf("the command ended %v after the lock had expired", -early)
	}
	if said := j.stderr.String(); !strings.Contains(said, `"why":"unreachable"`) {
		t.Errorf("stderr %s", said)
	}
}

// TestStoppedForLongerThanTheTTL: a lockctl that was stopped finds its lock lost.
func TestStoppedForLongerThanTheTTL(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "--ttl", "5s", "--json", "paused", "--", probe(t), "-sub")
	pids := j.ready(t, "child", "grandchild")
	j.signal(t, unix.SIGSTOP)
	awaitHolder(t, c, "paused", "")
	next, err := c.TryLock(t.Context(), "paused", client.LockOptions{})
	must(t, err)
	j.signal(t, unix.SIGCONT)
	j.line(t, "got TERM")
	j.wantCode(t, 76)
	for _, pid := range pids {
		gone(t, pid)
	}
	must(t, next.Unlock(t.Context())) // the release of the old hold has not ended the new one
}

// TestStoppedWhileItWaits: the lock is granted to a lockctl that was stopped, and is over
// when that goes on. It waits anew.
func TestStoppedWhileItWaits(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	before := hold(t, c, "waits", "before")
	j := startRun(t, base, "--ttl", "5s", "--process-id", "me", "waits", "--", "echo", "mine")
	awaitWaiter(t, c, "waits", "me")
	j.signal(t, unix.SIGSTOP)
	must(t, before.Unlock(t.Context()))
	awaitHolder(t, c, "waits", "me")
	awaitHolder(t, c, "waits", "")
	after := hold(t, c, "waits", "after")
	j.signal(t, unix.SIGCONT)
	awaitWaiter(t, c, "waits", "me")
	select {
	case line := <-j.lines:
		t.Errorf("it ran beside another holder: %q", line)
	default:
	}
	must(t, after.Unlock(t.Context()))
	j.line(t, "mine")
	j.wantCode(t, 0)
}

// proxy passes requests on to a server. A function may have the answer of a request be
// lost.
func proxy(tb testing.TB, base string, lose func(*http.Request) bool) string {
	tb.Helper()
	target, err := url.Parse(base)
	must(tb, err)
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(r *http.Response) error {
		if lose(r.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	p.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	server := &http.Server{Handler: p}
	go func() { _ = server.Serve(l) }()
	tb.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String()
}

// TestAnswerLost: the request is repeated, and the command runs once under the hold of
// the first.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	var requests atomic.Int32
	through := proxy(t, base, func(r *http.Request) bool { return r.URL.Path == "/locks/request" && requests.Add(1) == 1 })
	j := startRun(t, through, "lost", "-c", "echo ran $LOCK_FENCING_TOKEN")
	j.wantCode(t, 0)
	var acquired []string
	for e, err := range c.History(t.Context(), client.HistoryOptions{Resource: "lost", Events: []string{"acquired"}}) {
		must(t, err)
		acquired = append(acquired, fmt.Sprintf("ran %d", e.FencingToken))
	}
	if got := j.rest(t); len(acquired) != 1 || len(got) != 1 || got[0] != acquired[0] || requests.Load() != 2 {
		t.Errorf("it printed %q, the server has granted %q by %d requests", got, acquired, requests.Load())
	}
	awaitHolder(t, c, "lost", "")
}

// TestReleaseLost: the release whose answer was lost is repeated, and is no loss of the
// lock.
func TestReleaseLost(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	var requests atomic.Int32
	through := proxy(t, base, func(r *http.Request) bool { return r.URL.Path == "/locks/release" && requests.Add(1) == 1 })
	j := startRun(t, through, "release", "--", "true")
	j.wantCode(t, 0)
	if requests.Load() != 2 {
		t.Errorf("%d requests", requests.Load())
	}
}

// TestServerAwayAtTheEnd: the exit code is the command's. Without a signal the release is
// tried until the lock has expired; after a signal, a few seconds more.
func TestServerAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	short := startRun(t, s.url, "--ttl", "6s", "--grace", "0s", "end/short", "--", probe(t), "-stdin", "-code", "3")
	long := startRun(t, s.url, "--ttl", "1h", "end/long", "--", probe(t), "-stdin", "-code", "3")
	short.ready(t, "child")
	long.ready(t, "child")
	s.Kill(t)
	for _, j := range []*job{short, long} {
		must(t, j.in.Close())
		j.waitFor(t, "trying again")
	}
	long.signal(t, unix.SIGTERM)
	long.wantCode(t, 3)
	short.wantCode(t, 3)
	for _, j := range []*job{short, long} {
		if said := j.stderr.String(); !strings.Contains(said, "lockctl: cannot release end/") {
			t.Errorf("stderr %q", said)
		}
	}
}

// TestServerRestartsWhileItWaits: the places in the queue are kept, and so is their
// order.
func TestServerRestartsWhileItWaits(t *testing.T) {
	t.Parallel()
	s := startInstance(t)
	c := observed(t, s.url)
	_, err := post(t.Context(), s.url, `{"resource_name":"restart","process_id":"somebody"}`)
	must(t, err)
	first := startRun(t, s.url, "--process-id", "first", "restart", "-c", "echo mine; cat")
	awaitWaiter(t, c, "restart", "first")
	second := startRun(t, s.url, "--process-id", "second", "restart", "-c", "echo mine")
	awaitWaiter(t, c, "restart", "second")
	s.Kill(t)
	for _, j := range []*job{second, first} { // the later one may well be the first that comes back
		j.waitFor(t, "trying again")
	}
	s.start(t)
	awaitWaiter(t, c, "restart", "first")
	awaitWaiter(t, c, "restart", "second")
	must(t, c.Release(t.Context(), "restart", "somebody", 0))
	first.line(t, "mine")
	if owner := holderNow(t, c, "restart"); owner != "first" {
		t.Errorf("held by %q", owner)
	}
	must(t, first.in.Close())
	first.wantCode(t, 0)
	second.wantCode(t, 0)
}

// TestStderrFails: the command goes on and its exit code counts, whatever becomes of the
// reports.
func TestStderrFails(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	reader, closed, err := os.Pipe()
	must(t, err)
	must(t, reader.Close())
	for name, stderr := range map[string]*os.File{"full": full, "closed pipe": closed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer stderr.Close()
			cmd := lockctlCommand(base, "run", "-v", "--json", "stderr/"+name, "--", probe(t), "-stdin", "-code", "6")
			cmd.Stderr = stderr
			j := startJob(t, cmd)
			j.ready(t, "child")
			must(t, j.in.Close())
			j.wantCode(t, 6)
			awaitHolder(t, observed(t, base), "stderr/"+name, "")
		})
	}
}

// TestNobodyReadsStderr: a pipe that is full does not keep the command from being
// stopped.
func TestNobodyReadsStderr(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	size, err := unix.FcntlInt(writer.Fd(), unix.F_GETPIPE_SZ, 0)
	must(t, err)
	_, err = writer.Write(bytes.Repeat([]byte("x"), size))
	must(t, err)
	cmd := lockctlCommand(base, "run", "-v", "--ttl", "5s", "unread", "--", probe(t))
	cmd.Stderr = writer
	j := startJob(t, cmd)
	must(t, writer.Close())
	pid := j.ready(t, "child")[0]
	renewed := func() bool {
		s, err := c.Status(t.Context(), "unread")
		must(t, err)
		return s.Holder != nil && s.Holder.Renewals > 0
	}
	apptest.Eventually(t, "a renewal", renewed)
	breakLock(t, c, "unread", "why")
	j.line(t, "got TERM")
	gone(t, pid)
	said, err := io.ReadAll(reader) // ends when lockctl does
	must(t, err)
	j.wantCode(t, 76)
	if !bytes.Contains(said, []byte("force-released by admin")) {
		t.Errorf("it said %q", bytes.Trim(said, "x"))
	}
}

// TestEvents: --json gives one object a line, and nothing else.
func TestEvents(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	l := hold(t, c, "events", "somebody")
	j := startRun(t, base, "--json", "--ttl", "5s", "--process-id", "me", "events", "--", probe(t), "-stdin")
	j.waitFor(t, `"waiting"`)
	must(t, l.Unlock(t.Context()))
	j.ready(t, "child")
	j.waitFor(t, `"renewed"`)
	must(t, j.in.Close())
	j.wantCode(t, 0)
	events := j.events(t)
	var names []string
	for _, e := range events {
		if e.ResourceName != "events" || time.Since(e.At).Abs() > apptest.Patience {
			t.Errorf("%+v", e)
		}
		if len(names) == 0 || names[len(names)-1] != e.Event {
			names = append(names, e.Event)
		}
	}
	if got, want := strings.Join(names, " "), "waiting acquired renewed released"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if h := events[0].Holder; h == nil || h.ProcessID != "somebody" || events[0].Position != 1 || events[0].Waiters != 1 {
		t.Errorf("%+v", events[0])
	}

	for _, test := range []struct {
		args  []string
		event string
		code  int
	}{
		{[]string{"events/lost", "--", probe(t)}, "lost", 76},
		{[]string{"-n", "taken", "--", "echo", "no"}, "not_acquired", 75},
		{[]string{"events/none", "--", "no-such-program"}, "failed", 127},
		{[]string{"bad\tname", "--", "true"}, "failed", 64},
		{[]string{"--url", nobody, "--server-timeout", "1ms", "x", "--", "true"}, "not_acquired", 69},
	} {
		hold(t, c, "taken", "somebody")
		j := startRun(t, base, append([]string{"--json", "--ttl", "5s"}, test.args...)...)
		if test.event == "lost" {
			j.ready(t, "child")
			breakLock(t, c, "events/lost", "why")
		}
		j.wantCode(t, test.code)
		events := j.events(t)
		found := false
		for _, e := range events {
			found = found || e.Event == test.event && (e.ExitCode == test.code || e.By == "admin" && e.Reason == "why")
		}
		if !found {
			t.Errorf("%q: %+v", test.args, events)
		}
		must(t, c.Release(t.Context(), "taken", "somebody", 0))
	}
}

// TestQuietAndVerbose is what there is to read for those who want more, or nothing.
func TestQuietAndVerbose(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "-v", "verbose", "--", "true")
	j.wantCode(t, 0)
	if said := j.stderr.String(); !strings.HasPrefix(said, "lockctl: acquired verbose, fencing token ") ||
		!strings.Contains(said, "\nlockctl: released verbose after ") {
		t.Errorf("stderr %q", said)
	}
	hold(t, c, "taken", "somebody")
	quiet := startRun(t, base, "-q", "-w", "500ms", "taken", "--", "true")
	lost := startRun(t, base, "-q", "lost", "--", probe(t), "-stdin")
	lost.ready(t, "child")
	breakLock(t, c, "lost", "why")
	must(t, lost.in.Close())
	lost.wantCode(t, 76)
	quiet.wantCode(t, 75)
	if said := quiet.stderr.String() + lost.stderr.String(); said != "" {
		t.Errorf("stderr %q", said)
	}
}

// TestOtherPeoplesText: what a server or a proxy answers cannot control the terminal.
func TestOtherPeoplesText(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b]0;b\a\u202ec\u009bd\r\ne"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := json.Marshal(evil)
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/locks/request":
			w.WriteHeader(http.StatusConflict)
			fmt.Fprintf(w, `{"detail":%[1]s,"code":"already_locked","holder":{"locked_by":%[1]s,"reason":%[1]s,"process_id":%[1]s}}`, text)
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, evil)
		}
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	for _, args := range [][]string{{"-n", "x", "--", "true"}, {"--json", "-n", "x", "--", "true"}, {"-v", "-n", "x" + "\u202e", "--", "true"}} {
		j := startRun(t, "http://"+l.Addr().String(), args...)
		j.wantCode(t, 75)
		said := strings.ReplaceAll(j.stderr.String(), "\n", "")
		if escape(said) != said || !strings.Contains(said, `\u202e`) {
			t.Errorf("%q: stderr %q", args, said)
		}
	}
}

// TestSameProcessID: two runs with one process id exclude each other like any two.
func TestSameProcessID(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	first := startRun(t, base, "--process-id", "both", "same", "--", probe(t), "-stdin")
	first.ready(t, "child")
	second := startRun(t, base, "--process-id", "both", "same", "--", probe(t), "-stdin")
	awaitWaiter(t, c, "same", "both")
	third := startRun(t, base, "-n", "--process-id", "both", "same", "--", "true")
	third.wantCode(t, 75)
	must(t, first.in.Close())
	first.wantCode(t, 0)
	second.ready(t, "child")
	awaitHolder(t, c, "same", "both")
	must(t, second.in.Close())
	second.wantCode(t, 0)
	awaitHolder(t, c, "same", "")
}

// TestStreams: all three are the command's.
func TestStreams(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "-v", "streams", "-c", "echo to stderr >&2; cat")
	text := strings.Repeat("0123456789abcde\n", 1<<16) // a megabyte, more than any pipe holds
	go func(in *os.File) {
		_, _ = io.WriteString(in, text)
		_ = in.Close()
	}(j.in)
	var got strings.Builder
	for line := range j.lines {
		got.WriteString(line + "\n")
	}
	j.wantCode(t, 0)
	if got.String() != text {
		t.Errorf("%d bytes came out of %d", got.Len(), len(text))
	}
	j.waitFor(t, "to stderr\n")

	j = startRun(t, base, "--process-id", "me", "variables", "--", probe(t), "-env", "-stdin")
	j.line(t, "child ready")
	s, err := c.Status(t.Context(), "variables")
	must(t, err)
	for _, want := range []string{
		"env LOCKCTL_URL=" + base, "env LOCK_RESOURCE_NAME=variables", "env LOCK_PROCESS_ID=me",
		fmt.Sprintf("env LOCK_FENCING_TOKEN=%d", s.Holder.FencingToken),
	} {
		if !strings.Contains(strings.Join(j.seen, "\n")+"\n", want+"\n") {
			t.Errorf("no %q in %q", want, j.seen)
		}
	}
	must(t, j.in.Close())
	j.wantCode(t, 0)
}

// TestPipeline: the reader of the output ends first.
func TestPipeline(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	cmd := lockctlCommand(base)
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", `lockctl run pipeline -- yes | head -1; echo "${PIPESTATUS[@]}"`}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if got := strings.Join(j.rest(t), "|"); got != fmt.Sprintf("y|%d 0", 128+int(syscall.SIGPIPE)) {
		t.Errorf("it printed %q", got)
	}
	awaitHolder(t, observed(t, base), "pipeline", "")
}

// TestClosedStreams: a caller may have closed all of them.
func TestClosedStreams(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	file := t.TempDir() + "/ran"
	cmd := lockctlCommand(base)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `exec lockctl run closed -- sh -c 'cat; echo x; echo y >&2; echo ran >"$0"' "$0" <&- >&- 2>&-`, file}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if content, err := os.ReadFile(file); err != nil || string(content) != "ran\n" {
		t.Errorf("%q, %v", content, err)
	}
}

// TestEmptyEnvironment: without a home there is no file of settings.
func TestEmptyEnvironment(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	cmd := lockctlCommand(base, "run", "--url", base, "empty", "--", "/bin/sh", "-c", "echo $LOCK_RESOURCE_NAME")
	cmd.Env = []string{}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if got := strings.Join(j.rest(t), "|"); got != "empty" {
		t.Errorf("it printed %q", got)
	}
}

// TestBackgroundProcesses: what the command leaves in the background lives on without the
// lock.
func TestBackgroundProcesses(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	j := startRun(t, base, "background", "-c", "sleep 1000 & echo started $!")
	var pid int
	_, err := fmt.Sscan(j.line(t, "started"), &pid)
	must(t, err)
	j.wantCode(t, 0)
	if !runs(pid) {
		t.Error("the process in the background has ended")
	}
	if owner := holderNow(t, c, "background"); owner != "" {
		t.Errorf("held by %q", owner)
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	gone(t, pid)
}

// TestManyRuns: each is alone, and none leaves anything behind.
func TestManyRuns(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := observed(t, base)
	folder := t.TempDir()
	const runs = 40
	var jobs []*job
	for range runs {
		jobs = append(jobs, startRun(t, base, "many", "--", "sh", "-c", `mkdir "$0/alone" && rmdir "$0/alone"`, folder))
	}
	for _, j := range jobs {
		j.wantCode(t, 0)
	}
	awaitHolder(t, c, "many", "")
	for w, err := range c.Queue(t.Context(), "many", 0) {
		must(t, err)
		t.Errorf("%+v still waits", w)
	}
}
