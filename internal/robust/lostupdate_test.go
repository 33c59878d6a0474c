package robust_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// register is a number that several processes add to. Each reads it, pauses, and writes
// it back under a lock. The TTL of the lock often ends before the write.
type register struct {
	name  string
	loses bool // it loses acknowledged updates
	read  func(token int64) (value int, granted bool, err error)
	write func(value int, token int64) (acknowledged bool, err error)

	acknowledged, refused atomic.Int64 // updates
}

// registersInMemory are registers in the test's memory. One checks no token. One checks
// the token of writes only, which does not protect a value that was read before an older
// holder's last write. One checks the tokens of reads and writes.
func registersInMemory() []*register {
	return []*register{
		inMemory("memory, no check", false, false),
		inMemory("memory, token of writes checked", false, true),
		inMemory("memory, token of reads and writes checked", true, true),
	}
}

func inMemory(name string, checkReads, checkWrites bool) *register {
	var (
		mu      sync.Mutex
		value   int
		highest int64
	)
	return &register{
		name:  name,
		loses: !checkReads,
		read: func(token int64) (int, bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if checkReads && token < highest {
				return 0, false, nil
			}
			if checkReads {
				highest = token
			}
			return value, true, nil
		},
		write: func(v int, token int64) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if checkWrites && token < highest {
				return false, nil
			}
			value, highest = v, max(highest, token)
			return true, nil
		},
	}
}

// registersInTables are registers in tables of a user, in the database of the locks. One
// checks no token. One has the condition of docs/FENCING.md in its write. One keeps the
// highest token of reads and writes beside the value.
func registersInTables(t *testing.T, databaseURL string) []*register {
	t.Helper()
	db := open(t, "pgx", databaseURL)
	for _, statement := range []string{
		"CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)",
		"INSERT INTO accounts VALUES (1, 0), (2, 0)",
		"CREATE TABLE documents (id int PRIMARY KEY, body int NOT NULL, fencing_token bigint NOT NULL)",
		"INSERT INTO documents VALUES (1, 0, 0)",
	} {
		_, err := db.Exec(statement)
		must(t, err)
	}
	fenced := testdb.Example(t, "-- write only while the token is current")
	highest := testdb.Example(t, "-- refuse a token lower than the highest one seen")
	shut := testdb.Example(t, "-- read, and shut out every earlier holder")
	read := func(statement string, args ...any) (value int, granted bool, err error) {
		err = db.QueryRow(statement, args...).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, false, nil
		}
		return value, err == nil, err
	}
	balance := func(id int) func(int64) (int, bool, error) {
		return func(int64) (int, bool, error) { return read("SELECT balance FROM accounts WHERE id = $1", id) }
	}
	write := func(statement string, args ...any) (bool, error) {
		result, err := db.Exec(statement, args...)
		if err != nil {
			return false, err
		}
		n, err := result.RowsAffected()
		return n == 1, err
	}
	const current = "table, token checked in the write's transaction"
	return []*register{
		{
			name:  "table, no check",
			loses: true,
			read:  balance(1),
			write: func(v int, _ int64) (bool, error) {
				return write("UPDATE accounts SET balance = $1 WHERE id = 1", v)
			},
		},
		{
			name:  current,
			read:  balance(2),
			write: func(v int, token int64) (bool, error) { return write(fenced, v, 2, current, token) },
		},
		{
			name:  "table, highest token",
			read:  func(token int64) (int, bool, error) { return read(shut, 1, token) },
			write: func(v int, token int64) (bool, error) { return write(highest, v, 1, token) },
		},
	}
}

func lostUpdatesSQLite(t *testing.T, r *robust.Run) {
	lostUpdates(t, r, registersInMemory(), r.Servers(1, sqlite(t))...)
}

func lostUpdatesPostgres(t *testing.T, r *robust.Run) {
	databaseURL := testdb.Postgres(t)
	servers := r.Servers(2, databaseURL)
	lostUpdates(t, r, append(registersInMemory(), registersInTables(t, databaseURL)...), servers...)
}

// lostUpdates shows what a lock with a TTL cannot prevent and the token can: the update
// of a holder that paused for too long. It continues until each register has met one.
func lostUpdates(t *testing.T, r *robust.Run, registers []*register, servers ...*robust.Server) {
	const workers = 5
	r.Work(robust.Workload{Clients: 2}, servers...)
	var adders []*adder
	for _, to := range registers {
		for n := range workers {
			server := n % len(servers)
			adders = append(adders, &adder{
				register: to,
				client:   r.Client(server, servers[server].URL),
				process:  fmt.Sprintf("%s, adder %d", to.name, n),
				rand:     rand.New(rand.NewPCG(r.Rand.Uint64(), 0)),
			})
		}
	}
	for deadline := time.Now().Add(2 * apptest.Timeout); ; {
		addTogether(t, adders, func() {
			r.Pause(time.Second)
			for r.Running() {
				r.Pause(100 * time.Millisecond)
			}
		})
		if !slices.ContainsFunc(registers, func(to *register) bool { return !to.metPauses(t) }) ||
			time.Now().After(deadline) {
			break
		}
	}
	for _, to := range registers {
		lost := to.lost(t)
		fmt.Fprintf(t.Output(), "%s: %d updates acknowledged, %d lost, %d refused\n",
			to.name, to.acknowledged.Load(), lost, to.refused.Load())
		switch {
		case !to.metPauses(t):
			t.Errorf("%s: no late update was lost or refused, so the pauses prove nothing", to.name)
		case !to.loses && lost != 0:
			t.Errorf("%s: %d acknowledged updates are lost", to.name, lost)
		}
	}
	r.Judge()
}

// lost returns the number of acknowledged updates that are lost. No process adds
// meanwhile. If reads check tokens, no process can write afterwards.
func (to *register) lost(t *testing.T) int {
	t.Helper()
	value, _, err := to.read(math.MaxInt64)
	must(t, err)
	return int(to.acknowledged.Load()) - value
}

// metPauses reports whether a late update has come, as its effects show.
func (to *register) metPauses(t *testing.T) bool {
	t.Helper()
	if to.loses {
		return to.lost(t) > 0
	}
	return to.refused.Load() > 0
}

// addTogether runs the adders while a function runs.
func addTogether(t *testing.T, adders []*adder, while func()) {
	t.Helper()
	working, stop := context.WithCancel(context.Background())
	defer stop()
	var all sync.WaitGroup
	for _, a := range adders {
		all.Go(func() {
			if err := a.work(working); err != nil {
				t.Errorf("%s: %v", a.process, err)
			}
		})
	}
	while()
	stop()
	all.Wait()
}

// adder is a process that adds to a register.
type adder struct {
	*register
	client  *robust.Client
	process string
	rand    *rand.Rand
	turns   int
}

// work adds one after the other until the work ends.
func (a *adder) work(working context.Context) error {
	const ttl, longestPause, wait = 100 * time.Millisecond, 200 * time.Millisecond, 5 * time.Second
	for working.Err() == nil {
		a.turns++
		got := a.client.Acquire(working, robust.Operation{
			Resource: a.name, Process: a.process, RequestID: fmt.Sprint(a.turns), TTL: ttl, Wait: wait,
		})
		if got.Outcome != robust.Done {
			continue
		}
		token := got.Holder.Token
		value, acknowledged, err := a.read(token)
		if acknowledged {
			<-time.After(time.Duration(a.rand.Int64N(int64(longestPause))))
			acknowledged, err = a.write(value+1, token)
		}
		switch {
		case err != nil:
			return err
		case acknowledged:
			a.acknowledged.Add(1)
		default:
			a.refused.Add(1)
		}
		a.client.Release(context.Background(), a.name, a.process, token)
	}
	return nil
}
