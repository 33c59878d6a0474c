package robust_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

var (
	long   = flag.Bool("robust.long", false, "run every scenario, one after the other, with large sizes")
	length = flag.Duration("robust.length", 2*time.Second, "how long each scenario makes faults")
	seed   = flag.Uint64("robust.seed", 0, "the seed of all random choices; 0: a new one each time")
)

func TestMain(m *testing.M) {
	if isCommand, code := runCommand(); isCommand {
		os.Exit(code)
	}
	apptest.CatchIgnored()
	os.Exit(testdb.Main(m))
}

// selection states when a scenario is run.
type selection int

const (
	onlyLong   selection = iota
	brief                // by make test too, in parallel with others
	briefAlone           // by make test too, but not in parallel: on a busy machine its results would mean nothing
)

var scenarios = []struct {
	name string
	when selection
	run  func(t *testing.T, r *robust.Run)
}{
	{"calm, on SQLite", onlyLong, calmSQLite},
	{"calm, three servers on Postgres", brief, calmPostgres},

	{"server killed, SQLite", brief, serverKilled},
	{"servers killed, Postgres", brief, serversKilled},
	{"server paused, SQLite", onlyLong, serverPausedSQLite},
	{"servers paused, Postgres", brief, serverPausedPostgres},
	{"network of the clients, SQLite", onlyLong, badNetworkSQLite},
	{"network of the clients, Postgres", brief, badNetworkPostgres},
	{"power lost, SQLite", brief, powerLost},
	{"disk full, SQLite", brief, diskFull},
	{"clocks wrong, Postgres", onlyLong, clocksWrong},
	{"clock set back, SQLite", onlyLong, clockSetBack},

	{"database killed", brief, databaseKilled},
	{"standby promoted", brief, standbyPromoted},
	{"connections to the database cut", onlyLong, databaseConnectionsCut},
	{"connections to the database delayed", onlyLong, databaseDelayed},
	{"connections to the database in a black hole", onlyLong, databaseBlackHoled},
	{"answers of COMMIT lost", brief, commitAnswersLost},
	{"notifications cut", brief, listenCut},
	{"connections to the database exhausted", onlyLong, poolExhausted},

	{"rolling restart behind nginx", brief, rollingRestart},
	{"servers killed behind nginx", onlyLong, killedBehindBalancer},
	{"lost updates, SQLite", onlyLong, lostUpdatesSQLite},
	{"lost updates, Postgres", brief, lostUpdatesPostgres},

	{"commands under locks", brief, commandsUnderLocks},

	{"absent clients, SQLite", brief, absentSQLite},
	{"absent clients, Postgres", brief, absentPostgres},

	{"overload, SQLite, short queue", briefAlone, overloadShortQueue},
	{"overload, Postgres", onlyLong, overloadPostgres},
	{"slow clients", brief, slowClients},
	{"stopped with slow clients", onlyLong, stopWithSlowClients},
	{"idle connections", onlyLong, idleConnections},
	{"many held locks, SQLite", onlyLong, manyHoldsSQLite},
	{"many held locks, Postgres", onlyLong, manyHoldsPostgres},
	{"many expire at once, SQLite", onlyLong, expiringSQLite},
	{"many expire at once, Postgres", onlyLong, expiringPostgres},
	{"no room for waiters", brief, waitersFull},
}

// TestRobust makes faults while clients work, and has the checkers judge what they
// recorded.
func TestRobust(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	program := robust.Build(t)
	fmt.Fprintf(t.Output(), "to repeat it: -robust.seed=%d\n", *seed)
	var (
		mu    sync.Mutex
		all   robust.Summary
		found []string
	)
	t.Cleanup(func() {
		fmt.Fprintf(t.Output(), "all scenarios: %v", all)
		if len(found) > 0 { // in one line, because some logs keep only that line
			fmt.Fprintf(t.Output(), " (-robust.seed=%d): %s", *seed, strings.Join(found, "; "))
		}
		fmt.Fprintln(t.Output())
	})
	for _, s := range scenarios {
		if s.when == onlyLong && !*long {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			if s.when == brief && !*long {
				t.Parallel()
			}
			r := robust.NewRun(t, robust.Config{Program: program, Seed: *seed, Length: *length, Long: *long})
			s.run(t, r)
			fmt.Fprintf(t.Output(), "%s: %v\n", s.name, r.Summary)
			mu.Lock()
			defer mu.Unlock()
			all.Add(r.Summary)
			for _, v := range r.Summary.Violations[:min(10, len(r.Summary.Violations))] {
				found = append(found, fmt.Sprintf("%s: %v", s.name, v))
			}
		})
	}
}

// calmSQLite makes no fault. What the checkers find in it is a false alarm.
func calmSQLite(t *testing.T, r *robust.Run) {
	r.Work(robust.Workload{}, r.Servers(1, sqlite(t))...)
	for r.Running() {
		r.Pause(100 * time.Millisecond)
	}
	r.Judge()
}

func calmPostgres(t *testing.T, r *robust.Run) {
	r.Work(robust.Workload{}, r.Servers(3, testdb.Postgres(t))...)
	for r.Running() {
		r.Pause(100 * time.Millisecond)
	}
	r.Judge()
}
