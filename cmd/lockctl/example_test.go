package main

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

// TestExamplesWork runs the examples of each command's help in a shell. Unless the
// command acquires locks itself, the caller holds deploy/web, and the variable token has
// its token.
func TestExamplesWork(t *testing.T) {
	t.Parallel()
	base := startServer(t)
	c, err := client.New(base, client.Options{})
	must(t, err)
	t.Cleanup(c.CloseIdleConnections)
	environ := []string{
		"LOCKCTL_URL=" + base, "LOCKCTL_CONFIG=" + os.DevNull, "USER=tester", "PATH=" + os.Getenv("PATH"),
	}
	p := &program{out: io.Discard, err: io.Discard, environ: environ}
	for _, cmd := range newRoot(p).Commands() {
		if slices.Contains([]string{"completion", "help"}, cmd.Name()) { // defined by cobra
			continue
		}
		if cmd.Example == "" || cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: want an Example, and a Short without a full stop", cmd.Name())
		}
		var token int64
		if !slices.Contains([]string{"run", "acquire"}, cmd.Name()) {
			hold, err := post(t.Context(), base, `{"resource_name":"deploy/web","ttl_seconds":60,
				"process_id":"`+defaultProcessID(p)+`"}`)
			must(t, err)
			token = hold.FencingToken
		}
		script := exec.CommandContext(t.Context(), "bash", "-euc", cmd.Example)
		script.Dir = t.TempDir()
		script.Env = append(slices.Clone(environ), "token="+strconv.FormatInt(token, 10))
		if out, err := script.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", cmd.Name(), err, cmd.Example, out)
		}
		// The command may have ended the hold.
		_ = c.Release(t.Context(), "deploy/web", defaultProcessID(p), token)
	}
}

// Cobra does not wrap the help texts.
func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	root := newRoot(&program{out: io.Discard, err: io.Discard})
	for _, cmd := range append([]*cobra.Command{root}, root.Commands()...) {
		if cmd.Name() == "completion" {
			continue
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(strings.TrimSuffix(line, "\n")) > 100 {
				t.Errorf("%s: a line of %d characters: %s", cmd.Name(), len(line), line)
			}
		}
	}
}
