package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve-floor" { // startFloor runs this program
		main()
		return
	}
	// With its default the race detector makes every process wait for a second before it
	// exits.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// bench runs lockbench against a server without storage and returns its report.
func bench(t *testing.T, args ...string) report {
	t.Helper()
	server, stop, err := startFloor(slog.LevelInfo)
	must(t, err)
	t.Cleanup(stop)
	var out strings.Builder
	if err := run(append([]string{"-json", "-url=" + server.String()}, args...), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return r
}

func TestWorkloads(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			r := bench(t, "-workload="+name, "-connections=3", "-rounds=2", "-duration=20ms", "-held=10")
			s := r.Server
			sorted := s.P50 > 0 && s.P50 <= s.P99 && s.P99 <= s.Max
			if r.Workload != name || s.Operations == 0 || s.PerSecond == 0 || !sorted {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestFloor compares the floor with itself, so the ratio is about 1.
func TestFloor(t *testing.T) {
	r := bench(t, "-floor", "-rounds=3", "-duration=20ms", "-connections=2")
	if r.Floor == nil || r.Floor.Operations == 0 || r.Ratio < 0.01 || r.Ratio > 100 {
		t.Errorf("%+v", r)
	}
}

// TestFloorHasTheServersBallast compares the two constants. With a smaller ballast the
// floor would collect garbage more often, and the ratio would be too high.
func TestFloorHasTheServersBallast(t *testing.T) {
	lockd, err := os.ReadFile("../lockd/main.go")
	must(t, err)
	const line = "\nconst ballast = 32 << 20\n"
	if ballast != 32<<20 || !strings.Contains(string(lockd), line) {
		t.Errorf("the ballast of the floor, %d, is not that of lockd", ballast)
	}
}

// TestOpenLoop checks that the rate alone determines the number of operations.
func TestOpenLoop(t *testing.T) {
	r := bench(t, "-rate=500", "-rounds=1", "-duration=100ms", "-connections=1")
	if r.Server.Operations != 50 {
		t.Errorf("%d operations, want 50", r.Server.Operations)
	}
}

func TestBadOptions(t *testing.T) {
	for _, test := range []struct{ arg, want string }{
		{"-workload=all", "pairs, conflict, handoff, hold, status, mixed"},
		{"-url=localhost:8000", "http://127.0.0.1:8000"},
		{"-connections=0", "must be positive"},
		{"-rate=-1", "must not be negative"},
		{"-workload=handoff -floor", "no floor"},
		{"-url=http://127.0.0.1:1", "refused"},
	} {
		err := run(strings.Fields(test.arg), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.arg, err, test.want)
		}
	}
}

// TestWrongAnswer checks that measure fails if an operation fails.
func TestWrongAnswer(t *testing.T) {
	server, stop, err := startFloor(slog.LevelInfo)
	must(t, err)
	t.Cleanup(stop)
	o := options{url: server, connections: 1, duration: time.Second}
	wrong := workload{name: "wrong", operation: func(c *conn, _ int, _ *round) operation {
		request := c.request("GET", "/nowhere", nil)
		return whole(func() error { return c.must(request, 200) })
	}}
	if _, err := measure(wrong, o, "", io.Discard); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}
