//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"resource-lock-manager/internal/apptest"
)

// The command gets stdin, stdout and stderr of lockctl.
func TestStreams(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "-v", "streams", "-c", "echo to stderr >&2; cat")
	text := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB, more than a pipe holds
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
		t.Errorf("stdout has %d bytes, want the %d bytes of stdin", got.Len(), len(text))
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

// The reader of the output ends before the command.
func TestPipeline(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	cmd := lockctlCommand(base)
	script := `lockctl run pipeline -- yes | head -1; echo "${PIPESTATUS[@]}"`
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if got := strings.Join(j.rest(t), "|"); got != fmt.Sprintf("y|%d 0", 128+int(syscall.SIGPIPE)) {
		t.Errorf("stdout %q", got)
	}
	awaitHolder(t, newClient(t, base), "pipeline", "")
}

// The caller has closed stdin, stdout and stderr.
func TestClosedStreams(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	file := t.TempDir() + "/ran"
	cmd := lockctlCommand(base)
	script := `exec lockctl run closed -- sh -c 'cat; echo x; echo y >&2; echo ran >"$0"' "$0" <&- >&- 2>&-`
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script, file}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if content, err := os.ReadFile(file); err != nil || string(content) != "ran\n" {
		t.Errorf("%q, %v", content, err)
	}
}

// Without a home directory there is no settings file.
func TestEmptyEnvironment(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	cmd := lockctlCommand(base, "run", "--url", base, "empty", "--", "/bin/sh", "-c", "echo $LOCK_RESOURCE_NAME")
	cmd.Env = []string{}
	j := startJob(t, cmd)
	j.wantCode(t, 0)
	if got := strings.Join(j.rest(t), "|"); got != "empty" {
		t.Errorf("stdout %q", got)
	}
}

// With --json, stderr has one object per line, and nothing else.
func TestEvents(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	l := hold(t, c, "events", "other")
	j := startRun(t, base, "--json", "--ttl", "5s", "--process-id", "me", "events", "--",
		probe(t), "-stdin")
	j.waitFor(t, `"waiting"`)
	must(t, l.Unlock(t.Context()))
	j.ready(t, "child")
	j.waitFor(t, `"renewed"`)
	must(t, j.in.Close())
	j.wantCode(t, 0)
	events := j.events(t)
	var names []string
	for _, e := range events {
		if e.ResourceName != "events" || time.Since(e.At).Abs() > apptest.Timeout {
			t.Errorf("%+v", e)
		}
		if len(names) == 0 || names[len(names)-1] != e.Event {
			names = append(names, e.Event)
		}
	}
	if got, want := strings.Join(names, " "), "waiting acquired renewed released"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	h := events[0].Holder
	if h == nil || h.ProcessID != "other" || events[0].Position != 1 || events[0].Waiters != 1 {
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
		{[]string{"--url", closedPort, "--server-timeout", "1ms", "x", "--", "true"}, "not_acquired", 69},
	} {
		hold(t, c, "taken", "other")
		j := startRun(t, base, append([]string{"--json", "--ttl", "5s"}, test.args...)...)
		if test.event == "lost" {
			j.ready(t, "child")
			forceRelease(t, c, "events/lost", "why")
		}
		j.wantCode(t, test.code)
		events := j.events(t)
		found := false
		for _, e := range events {
			found = found || e.Event == test.event &&
				(e.ExitCode == test.code || e.By == "admin" && e.Reason == "why")
		}
		if !found {
			t.Errorf("%q: %+v", test.args, events)
		}
		must(t, c.Release(t.Context(), "taken", "other", 0))
	}
}

func TestQuietAndVerbose(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
	j := startRun(t, base, "-v", "verbose", "--", "true")
	j.wantCode(t, 0)
	if stderr := j.stderr.String(); !strings.HasPrefix(stderr, "lockctl: acquired verbose, fencing token ") ||
		!strings.Contains(stderr, "\nlockctl: released verbose after ") {
		t.Errorf("stderr %q", stderr)
	}
	hold(t, c, "taken", "other")
	quiet := startRun(t, base, "-q", "-w", "500ms", "taken", "--", "true")
	lost := startRun(t, base, "-q", "lost", "--", probe(t), "-stdin")
	lost.ready(t, "child")
	forceRelease(t, c, "lost", "why")
	must(t, lost.in.Close())
	lost.wantCode(t, 76)
	quiet.wantCode(t, 75)
	if stderr := quiet.stderr.String() + lost.stderr.String(); stderr != "" {
		t.Errorf("stderr %q", stderr)
	}
}

// The answers of a server or a proxy cannot control the terminal.
func TestTextOfTheServerIsEscaped(t *testing.T) {
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
			fmt.Fprintf(w, `{"detail":%[1]s,"code":"already_locked",
				"holder":{"locked_by":%[1]s,"reason":%[1]s,"process_id":%[1]s}}`, text)
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, evil)
		}
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	for _, args := range [][]string{
		{"-n", "x", "--", "true"},
		{"--json", "-n", "x", "--", "true"},
		{"-v", "-n", "x" + "\u202e", "--", "true"},
	} {
		j := startRun(t, "http://"+l.Addr().String(), args...)
		j.wantCode(t, 75)
		stderr := strings.ReplaceAll(j.stderr.String(), "\n", "")
		if escape(stderr) != stderr || !strings.Contains(stderr, `\u202e`) {
			t.Errorf("%q: stderr %q", args, stderr)
		}
	}
}

// Failed writes to stderr do not affect the command and its exit code.
func TestFailedWritesToStderr(t *testing.T) {
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
			cmd := lockctlCommand(base, "run", "-v", "--json", "stderr/"+name, "--",
				probe(t), "-stdin", "-code", "6")
			cmd.Stderr = stderr
			j := startJob(t, cmd)
			j.ready(t, "child")
			must(t, j.in.Close())
			j.wantCode(t, 6)
			awaitHolder(t, newClient(t, base), "stderr/"+name, "")
		})
	}
}

// lockctl stops the command although stderr is a full pipe.
func TestFullStderrPipe(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c := newClient(t, base)
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
	forceRelease(t, c, "unread", "why")
	j.line(t, "got TERM")
	awaitExit(t, pid)
	stderr, err := io.ReadAll(reader) // returns when lockctl has ended
	must(t, err)
	j.wantCode(t, 76)
	if !bytes.Contains(stderr, []byte("force-released by admin")) {
		t.Errorf("stderr %q", bytes.Trim(stderr, "x"))
	}
}
