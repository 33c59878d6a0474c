package robust_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

var (
	long   = flag.Bool("robust.long", false, "every scenario, one after the other, with large sizes")
	length = flag.Duration("robust.length", 2*time.Second, "how long each scenario breaks things")
	seed   = flag.Uint64("robust.seed", 0, "repeats what is left to chance; 0: another one each time")
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// scenarios by name. Those in brief are the selection of make test.
var scenarios = []struct {
	name  string
	brief bool
	run   func(t *testing.T, r *robust.Run)
}{
	{"calm, on SQLite", false, calmSQLite},
	{"calm, three servers on Postgres", true, calmPostgres},

	{"server killed, SQLite", true, serverKilled},
	{"servers killed, Postgres", true, serversKilled},
	{"server paused, SQLite", false, serverPausedSQLite},
	{"servers paused, Postgres", true, serverPausedPostgres},
	{"network of the clients, SQLite", false, badWeatherSQLite},
	{"network of the clients, Postgres", true, badWeatherPostgres},
	{"power lost, SQLite", true, powerLost},
	{"disk full, SQLite", true, diskFull},
	{"clocks wrong, Postgres", false, clocksWrong},
	{"clock set back, SQLite", false, clockSetBack},

	{"database killed", true, databaseKilled},
	{"standby promoted", true, standbyPromoted},
	{"connections to the database cut", false, databaseConnectionsCut},
	{"connections to the database delayed", false, databaseDelayed},
	{"connections to the database in a black hole", false, databaseBlackHoled},
	{"answers of COMMIT lost", true, commitAnswersLost},
	{"notifications cut", true, listenCut},
	{"connections to the database exhausted", false, poolExhausted},

	{"rolling restart behind nginx", true, rollingRestart},
	{"servers killed behind nginx", false, killedBehindBalancer},
	{"lost updates, SQLite", false, lostUpdatesSQLite},
	{"lost updates, Postgres", true, lostUpdatesPostgres},

	{"overload, SQLite, short queue", true, overloadShortQueue},
	{"overload, Postgres", false, overloadPostgres},
	{"slow clients", true, slowClients},
	{"stopped with slow clients", false, stopWithSlowClients},
	{"idle connections", false, idleConnections},
	{"many held locks, SQLite", false, manyHoldsSQLite},
	{"many held locks, Postgres", false, manyHoldsPostgres},
	{"many expire at once, SQLite", false, expiringSQLite},
	{"many expire at once, Postgres", false, expiringPostgres},
	{"no room for waiters", true, waitersFull},
}

// TestRobust breaks things while clients are at work, and has what they saw judged.
func TestRobust(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	program := robust.Build(t)
	fmt.Fprintf(t.Output(), "to repeat it: -robust.seed=%d\n", *seed)
	var (
		mu  sync.Mutex
		all robust.Summary
	)
	t.Cleanup(func() { fmt.Fprintf(t.Output(), "all scenarios: %v\n", all) })
	for _, s := range scenarios {
		if !s.brief && !*long {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			r := robust.NewRun(t, robust.Config{Program: program, Seed: *seed, Length: *length, Long: *long})
			s.run(t, r)
			fmt.Fprintf(t.Output(), "%s: %v\n", s.name, r.Summary)
			mu.Lock()
			defer mu.Unlock()
			all.Add(r.Summary)
		})
	}
}

func sqlite(t *testing.T) string { return "sqlite:///" + testdb.SQLite(t) }

// Nothing is broken: what the checkers say then, they would say of everything.
func calmSQLite(t *testing.T, r *robust.Run) {
	r.Work(robust.Workload{}, r.Servers(1, sqlite(t))...)
	for r.Lasts() {
		r.Pause(100 * time.Millisecond)
	}
	r.Judge()
}

func calmPostgres(t *testing.T, r *robust.Run) {
	r.Work(robust.Workload{}, r.Servers(3, testdb.Postgres(t))...)
	for r.Lasts() {
		r.Pause(100 * time.Millisecond)
	}
	r.Judge()
}
