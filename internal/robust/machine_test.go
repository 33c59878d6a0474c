package robust_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
	"resource-lock-manager/internal/wire"
)

func serverKilled(t *testing.T, r *robust.Run) {
	servers := r.Servers(1, sqlite(t))
	r.Work(robust.Workload{}, servers...)
	for r.Running() {
		r.Pause(between(r, 0, 600*time.Millisecond))
		r.Fault("killed", 0, restart(t, servers[0], func() { r.Pause(between(r, 0, 100*time.Millisecond)) }))
	}
	r.Judge()
}

// serversKilled kills a random one of three servers, and sometimes all at once.
func serversKilled(t *testing.T, r *robust.Run) {
	servers := r.Servers(3, testdb.Postgres(t))
	r.Work(robust.Workload{}, servers...)
	for r.Running() {
		r.Pause(between(r, 0, 600*time.Millisecond))
		if r.Rand.IntN(5) == 0 {
			r.Fault("all killed", robust.AllServers, func() {
				for _, s := range servers {
					s.Kill(t)
				}
				for _, s := range servers {
					s.Start(t)
				}
			})
			continue
		}
		i := r.Rand.IntN(len(servers))
		r.Fault("killed", i, restart(t, servers[i], func() { r.Pause(between(r, 0, time.Second)) }))
	}
	r.Judge()
}

func serverPausedSQLite(t *testing.T, r *robust.Run)   { serverPaused(t, r, 1, sqlite(t)) }
func serverPausedPostgres(t *testing.T, r *robust.Run) { serverPaused(t, r, 3, testdb.Postgres(t)) }

// serverPaused pauses a server for longer than any hold with a TTL, and on Postgres for
// longer than its lease.
func serverPaused(t *testing.T, r *robust.Run, n int, databaseURL string) {
	servers := r.Servers(n, databaseURL)
	r.Work(robust.Workload{}, servers...)
	for r.Running() {
		r.Pause(between(r, 0, time.Second))
		i := r.Rand.IntN(n)
		r.Fault("paused", i, func() {
			servers[i].Pause(t)
			r.Pause(between(r, 1800*time.Millisecond, 2500*time.Millisecond))
			servers[i].Resume(t)
		})
	}
	r.Judge()
}

func badNetworkSQLite(t *testing.T, r *robust.Run)   { badNetwork(t, r, 1, sqlite(t)) }
func badNetworkPostgres(t *testing.T, r *robust.Run) { badNetwork(t, r, 3, testdb.Postgres(t)) }

// badNetwork gives the clients of one server at a time a bad network.
func badNetwork(t *testing.T, r *robust.Run, n int, databaseURL string) {
	servers := r.Servers(n, databaseURL)
	r.Work(robust.Workload{}, servers...)
	for round := 0; r.Running(); round++ {
		r.Pause(between(r, 0, 200*time.Millisecond))
		i := r.Rand.IntN(n)
		front := servers[i].Front
		lasting := func(conditions robust.NetworkConditions, longest time.Duration) func() {
			return func() {
				front.SetConditions(conditions)
				r.Pause(between(r, 0, longest))
				front.SetConditions(robust.NetworkConditions{})
			}
		}
		switch round % 5 {
		case 0:
			r.Fault("clients cut off", i, front.Cut)
		case 1:
			r.Fault("answers lost", i, lasting(robust.NetworkConditions{LoseAnswers: true}, 300*time.Millisecond))
		case 2:
			r.Fault("clients delayed", i,
				lasting(robust.NetworkConditions{Delay: between(r, 0, 200*time.Millisecond)}, time.Second))
		case 3:
			r.Fault("clients in a black hole", i, lasting(robust.NetworkConditions{BlackHole: true}, time.Second))
		case 4:
			r.Fault("clients refused", i, lasting(robust.NetworkConditions{Refuse: true}, 300*time.Millisecond))
		}
	}
	r.Judge()
}

// powerLost cuts the power again and again. Every second time a random part of what was
// not synced is on the disk too.
func powerLost(t *testing.T, r *robust.Run) {
	disk := robust.NewDisk(t)
	s := robust.StartServer(t, r.Program(), disk.DatabaseURL(), disk.Settings()...)
	r.Work(robust.Workload{}, s)
	for torn := false; r.Running(); torn = !torn {
		r.Pause(between(r, 0, 800*time.Millisecond))
		if torn {
			r.Fault("power lost, torn", 0, restart(t, s, func() { disk.Crash(t, r.Rand) }))
		} else {
			r.Fault("power lost", 0, restart(t, s, func() { disk.Crash(t, nil) }))
		}
	}
	r.Judge()
}

// TestPowerLossTakesWhatIsNotSynced checks that the disk keeps what lockd has synced and
// nothing else. If SQLite is configured to sync less, acknowledged holds are lost, and
// both checkers report it.
func TestPowerLossTakesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"FULL", "NORMAL", "OFF"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			program := robust.Build(t, robust.Patch{
				File: "internal/store/sqlite.go", Old: "_synchronous=FULL", New: "_synchronous=" + mode,
			})
			disk := robust.NewDisk(t)
			s := robust.StartServer(t, program, disk.DatabaseURL(), disk.Settings()...)
			history := robust.NewHistory()
			client := robust.NewClient(history, 0, 0, s.URL)
			defer client.Close()
			resources := make([]string, 50)
			for i := range resources {
				resources[i] = fmt.Sprint("resource ", i)
				o := client.Acquire(t.Context(), robust.Operation{Resource: resources[i], Process: "p"})
				if o.Outcome != robust.Done {
					t.Fatalf("%+v", o)
				}
			}
			s.Kill(t)
			disk.Crash(t, nil)
			s.Start(t)
			lost := 0
			for _, resource := range resources {
				o := client.Status(t.Context(), resource)
				if o.Outcome != robust.Done {
					t.Fatalf("%+v", o)
				}
				if o.Holder == (robust.Hold{}) {
					lost++
				}
			}
			model := robust.CheckModel(history.Operations(), apptest.Timeout)
			invariants := robust.CheckInvariants(history.Operations(), history.Faults())
			if synced := mode == "FULL"; (lost == 0) != synced || (len(model) == 0) != synced ||
				(len(invariants) == 0) != synced {
				t.Errorf("%d of %d holds lost; the model found %v, the invariants %v", lost, len(resources),
					model, invariants)
			}
		})
	}
}

// diskFull fills the disk of SQLite again and again. Sometimes the server crashes
// meanwhile.
func diskFull(t *testing.T, r *robust.Run) {
	disk := robust.NewSmallDisk(t, 128<<20) // enough for the history of many minutes
	s := robust.StartServer(t, disk.Program(t, r.Program()), disk.DatabaseURL())
	held := r.Client(0, s.URL).Acquire(t.Context(), robust.Operation{Resource: "before", Process: "p"})
	if held.Outcome != robust.Done {
		t.Fatalf("%+v", held)
	}
	r.Work(robust.Workload{Think: 50 * time.Millisecond}, s)
	for r.Running() {
		r.Pause(between(r, 0, 500*time.Millisecond))
		r.Fault("disk full", 0, func() {
			disk.Fill(t, r.Rand.Int64N(100<<10)) // so that the disk becomes full at a random write
			wantFull(t, r, s, held)
			r.Pause(between(r, 0, 500*time.Millisecond))
			if r.Rand.IntN(3) > 0 {
				disk.Free(t)
				return
			}
			restart(t, s, func() { disk.Free(t) })()
		})
		wantWritable(t, r, s)
	}
	r.Judge()
}

// wantFull acquires large holds until one is refused because the disk is full. A hold
// that was acknowledged before stays.
func wantFull(t *testing.T, r *robust.Run, s *robust.Server, held robust.Operation) {
	t.Helper()
	client := r.Client(0, s.URL)
	defer client.Close()
	deadline := time.Now().Add(apptest.Timeout)
	for n := 0; ; n++ {
		large := fmt.Sprintf("%v %d %s", r.History.Elapsed(), n, strings.Repeat("\U0001f512", 220)) // four bytes each
		o := client.Acquire(t.Context(), robust.Operation{Resource: large, Process: large, RequestID: large})
		if o.Outcome != robust.Done {
			if o.Code != wire.CodeUnavailable && o.Code != wire.CodeOutcomeUnknown {
				t.Errorf("on a full disk: %+v", o)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d large holds were granted on a full disk", n)
		}
	}
	if o := client.Status(t.Context(), held.Resource); o.Outcome != robust.Done || o.Holder != held.Holder {
		t.Errorf("on a full disk: %+v, want %+v", o, held.Holder)
	}
}

// wantWritable waits until the server accepts changes again.
func wantWritable(t *testing.T, r *robust.Run, s *robust.Server) {
	t.Helper()
	client := r.Client(0, s.URL)
	defer client.Close()
	resource := fmt.Sprintf("free %v", r.History.Elapsed())
	apptest.Eventually(t, "the server accepts changes again", func() bool {
		o := client.Acquire(t.Context(), robust.Operation{Resource: resource, Process: "p", RequestID: "r"})
		return o.Outcome == robust.Done
	})
}

// withWrongClock builds a lockd whose wall clock is ahead by CLOCK_AHEAD everywhere.
// CLOCK_AHEAD may be negative. Its steady clock is right.
func withWrongClock(t *testing.T) string {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	project, err := filepath.Abs("../..")
	must(t, err)
	file, err := filepath.Rel(project, filepath.Join(strings.TrimSpace(string(goroot)), "src/time/time.go"))
	must(t, err)
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	return robust.Build(t,
		robust.Patch{File: file, Old: "import (\n", New: "import (\n\t\"syscall\"\n"},
		robust.Patch{File: file, Old: now, New: now + "\tsec += clockAhead\n"},
		robust.Patch{File: file, Old: "\nfunc unixTime(", New: `
var clockAhead = func() int64 {
	text, _ := syscall.Getenv("CLOCK_AHEAD")
	ahead, err := ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return int64(ahead / Second)
}()

func unixTime(`})
}

func clockAhead(d time.Duration) string { return "CLOCK_AHEAD=" + d.String() }

// clocksWrong runs three servers: one has the right time, one is an hour ahead, one is in
// the year 2000. They are also killed, so that they start with such clocks.
func clocksWrong(t *testing.T, r *robust.Run) {
	program, databaseURL := withWrongClock(t), testdb.Postgres(t)
	var servers []*robust.Server
	for i, ahead := range []time.Duration{0, time.Hour, time.Until(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))} {
		r.Fault("clock wrong", i, func() {
			servers = append(servers, robust.StartServer(t, program, databaseURL, clockAhead(ahead)))
		})
	}
	if log := servers[2].Output.String(); !strings.Contains(log, `"time":"2000-01-01T`) {
		t.Fatal("the server's clock is not in the year 2000: ", log)
	}
	r.Work(robust.Workload{}, servers...)
	for r.Running() {
		r.Pause(between(r, 500*time.Millisecond, time.Second))
		i := r.Rand.IntN(len(servers))
		r.Fault("killed", i, restart(t, servers[i], func() {}))
	}
	r.Judge()
}

// clockSetBack runs a SQLite server whose machine was an hour ahead and is set back
// before each start. The clock of the service continues: no hold lives longer, and no
// hold gets a lower token.
func clockSetBack(t *testing.T, r *robust.Run) {
	s := robust.StartServer(t, withWrongClock(t), sqlite(t), clockAhead(time.Hour))
	client := r.Client(0, s.URL)
	r.Work(robust.Workload{}, s)
	for r.Running() {
		r.Pause(between(r, 0, 500*time.Millisecond))
		held := client.Acquire(t.Context(), robust.Operation{
			Resource: fmt.Sprintf("held at %v", r.History.Elapsed()), Process: "p", TTL: 300 * time.Millisecond,
		})
		if ahead := time.Until(held.Holder.LockedAt); ahead < 50*time.Minute {
			t.Errorf("the clock is ahead by %v: %+v", ahead, held)
		}
		r.Fault("clock set back", 0,
			restart(t, s, func() { s.Set(clockAhead(between(r, -time.Hour, 30*time.Minute))) }))
		apptest.Eventually(t, "a hold of less than a second ends", func() bool {
			o := client.Status(t.Context(), held.Resource)
			return o.Outcome == robust.Done && o.Holder == (robust.Hold{})
		})
	}
	r.Judge()
}

// TestClockSetRight starts a SQLite server while its machine's clock is a day off, and
// restarts it with the right time. Only the clock by which locks expire is wrong, because
// that builds faster than a patched package time.
func TestClockSetRight(t *testing.T) {
	t.Parallel()
	const wall = "wall, steady, boot := time.Now, sinceBoot, cfg.BootID\n"
	program := robust.Build(t,
		robust.Patch{File: "internal/store/clock.go", Old: "import (\n", New: "import (\n\t\"os\"\n"},
		robust.Patch{File: "internal/store/clock.go", Old: wall, New: wall + `
	wall = func() time.Time {
		ahead, err := time.ParseDuration(os.Getenv("CLOCK_AHEAD"))
		if err != nil {
			panic(err)
		}
		return time.Now().Add(ahead)
	}
`})
	for _, wrong := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(wrong.String(), func(t *testing.T) {
			t.Parallel()
			s := robust.StartServer(t, program, sqlite(t), clockAhead(wrong))
			client := robust.NewRun(t, robust.Config{}).Client(0, s.URL)
			granted := client.Acquire(t.Context(), robust.Operation{Resource: "r", Process: "p", TTL: time.Hour})
			if ahead := time.Until(granted.Holder.LockedAt); (ahead - wrong).Abs() > time.Hour {
				t.Fatalf("the clock is ahead by %v, want %v", ahead, wrong)
			}
			restart(t, s, func() { s.Set(clockAhead(0)) })()
			if now := client.Status(t.Context(), "r"); now.Holder != granted.Holder {
				t.Errorf("held by %+v, want %+v", now.Holder, granted.Holder)
			}
			if log := s.Output.String(); !strings.Contains(log, `"ahead_by":"`) {
				t.Errorf("the log does not say that the clocks differ: %s", log)
			}
		})
	}
}
