package robust_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// plants are bugs of one program. The environment variable PLANTED selects one. Bugs that
// take effect only sometimes depend on the microsecond of the decision.
var plants = []robust.Patch{
	{
		File: "internal/lock/acquire.go",
		Old:  `import "time"`,
		New:  "import (\n\t\"os\"\n\t\"time\"\n)",
	},
	{
		File: "internal/lock/acquire.go",
		Old:  "holder, held := r.Holder(now)",
		New: `if os.Getenv("PLANTED") == "exclusion" && now.UnixMicro()%8 == 0 {
			r.Holds = nil
		}
		holder, held := r.Holder(now)`,
	},
	{
		File: "internal/lock/resource.go",
		Old:  `"slices"`,
		New:  "\"os\"\n\t\"slices\"",
	},
	{
		File: "internal/lock/resource.go",
		Old:  "return max(r.Token+1, now.UnixMicro())",
		New: `if os.Getenv("PLANTED") == "tokens" && now.UnixMicro()%8 == 0 {
			return max(r.Token-1, 1)
		}
		return max(r.Token+1, now.UnixMicro())`,
	},
	{
		File: "internal/lock/waiter.go",
		Old:  `"cmp"`,
		New:  "\"cmp\"\n\t\"os\"",
	},
	{
		File: "internal/lock/waiter.go",
		Old:  "func (r Resource) First(now time.Time) *Waiter {",
		New: `func (r Resource) First(now time.Time) *Waiter {
			if os.Getenv("PLANTED") == "order" {
				for _, w := range slices.Backward(r.Queue) {
					if w.Connected(now) {
						return w
					}
				}
			}`,
	},
	{
		File: "internal/store/batch.go",
		Old:  `"math/rand/v2"`,
		New:  "\"math/rand/v2\"\n\t\"os\"",
	},
	{
		File: "internal/store/batch.go",
		Old:  "committed = states\n\t\treturn nil",
		New: `committed = states
		if os.Getenv("PLANTED") == "durability" && now.UnixMicro()%4 == 0 {
			return os.ErrInvalid
		}
		return nil`,
	},
	{
		File: "internal/store/batch.go",
		Old:  "if err == nil {\n\t\ts.backend.committed(committed)",
		New: `if err == os.ErrInvalid {
			err = nil
		}
		if err == nil {
			s.backend.committed(committed)`,
	},
	{
		File: "internal/lock/release.go",
		Old:  `import "time"`,
		New:  "import (\n\t\"os\"\n\t\"time\"\n)",
	},
	{
		File: "internal/lock/release.go",
		Old:  "if now.Before(h.MinHoldUntil) {",
		New: `if os.Getenv("PLANTED") == "return" && now.UnixMicro()%8 == 0 {
			return out
		}
		if now.Before(h.MinHoldUntil) {`,
	},
	{
		File: "internal/service/waiters.go",
		Old:  `"log/slog"`,
		New:  "\"log/slog\"\n\t\"os\"",
	},
	{
		File: "internal/service/waiters.go",
		Old:  "commands := context.WithoutCancel(ctx)",
		New: `commands := context.WithoutCancel(ctx)
		if os.Getenv("PLANTED") == "gone" {
			ctx = commands
		}`,
	},
	{
		File: "internal/service/commits.go",
		Old:  "import (",
		New:  "import (\n\t\"os\"",
	},
	{
		File: "internal/service/commits.go",
		Old:  "send(request.superseded, struct{}{})",
		New: `if os.Getenv("PLANTED") != "superseded" {
			send(request.superseded, struct{}{})
		}`,
	},
	{
		File: "internal/lock/acquire.go",
		Old:  "case c.Requeued && !mine && c.Named:",
		New:  `case c.Requeued && !mine && c.Named && os.Getenv("PLANTED") != "superseded":`,
	},
	{
		File: "internal/api/disconnect.go",
		Old:  "import (\n\t\"context\"",
		New:  "import (\n\t\"os\"\n\t\"context\"",
	},
	{
		File: "internal/api/disconnect.go",
		Old:  "return !found || !resetWithin(conn, resetTimeout)",
		New:  `return !found || os.Getenv("PLANTED") == "abandoned" || !resetWithin(conn, resetTimeout)`,
	},
	{
		File: "internal/api/acquire.go",
		Old:  "import (\n\t\"errors\"",
		New:  "import (\n\t\"os\"\n\t\"errors\"",
	},
	{
		File: "internal/api/acquire.go",
		Old:  "grant, err := a.locks.Acquire(r.Context(), request)",
		New: `grant, err := a.locks.Acquire(r.Context(), request)
		if os.Getenv("PLANTED") == "half-closed" && r.Context().Err() != nil {
			w.WriteHeader(499)
			return nil
		}`,
	},
}

// TestPlantedBugsAreFound checks the checkers. A checker that has never found a bug may
// not be able to.
func TestPlantedBugsAreFound(t *testing.T) {
	program := robust.Build(t, plants...)
	for _, test := range []struct {
		planted   string
		guarantee string // the one that the bug breaks
		model     bool   // CheckModel can find the bug too
		provoke   func(t *testing.T, r *robust.Run, server *robust.Server, path string)
	}{
		{"exclusion", "G1", true, workAWhile},
		{"durability", "G2", true, killAndRead},
		{"tokens", "G3", true, workAWhile},
		{"order", "G4", false, workAWhile},
		{"return", "G5", true, workAWhile},
		{"gone", "G7", false, leaveTheQueue},
		{"abandoned", "G7", false, disconnectWhileLocked},
		{"superseded", "G7", false, repeatOfAFrozenRequest},
		{"half-closed", "G9", false, halfCloseWhileLocked},
		{"nothing, at work", "", false, workAWhile},
		{"nothing, killed", "", false, killAndRead},
		{"nothing, disconnected", "", false, leaveTheQueue},
		{"nothing, abandoned", "", false, disconnectWhileLocked},
		{"nothing, frozen", "", false, repeatOfAFrozenRequest},
		{"nothing, half-closed", "", false, halfCloseWhileLocked},
	} {
		t.Run(test.planted, func(t *testing.T) {
			t.Parallel()
			r := robust.NewRun(t, robust.Config{Program: program, Length: 1500 * time.Millisecond})
			path := testdb.SQLite(t)
			test.provoke(t, r, r.Servers(1, "sqlite:///"+path, "PLANTED="+test.planted, fastRecheck)[0], path)
			r.End()
			operations, faults := r.History.Operations(), r.History.Faults()
			byModel := robust.CheckModel(operations, time.Minute)
			byRules := robust.CheckInvariants(operations, faults)
			t.Logf("%d operations; the model: %v", len(operations), shortened(byModel))
			t.Logf("the invariants: %v", shortened(byRules))
			switch {
			case test.guarantee == "" && len(byModel)+len(byRules) > 0:
				t.Errorf("false alarm, the model: %v\nthe invariants: %v", byModel, byRules)
			case test.guarantee == "":
			case test.model && len(byModel) == 0:
				t.Error("the model has not found the bug")
			case !slices.ContainsFunc(byRules, func(v robust.Violation) bool { return v.Guarantee == test.guarantee }):
				t.Errorf("the invariants do not name %s", test.guarantee)
			}
		})
	}
}

// shortened returns the first violation and the number of others.
func shortened(violations []robust.Violation) string {
	if len(violations) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%v (and %d more)", violations[0], len(violations)-1)
}

func workAWhile(_ *testing.T, r *robust.Run, server *robust.Server, _ string) {
	r.Work(robust.Workload{Resources: 4}, server)
	for r.Running() {
		r.Pause(100 * time.Millisecond)
	}
}

// killAndRead acquires locks that never expire, kills the server and reads the locks
// again.
func killAndRead(t *testing.T, r *robust.Run, server *robust.Server, _ string) {
	client := r.Client(0, server.URL)
	ctx := context.Background()
	for n := range 40 {
		client.Acquire(ctx, robust.Operation{Resource: fmt.Sprint(n), Process: "p"})
	}
	r.Fault("kill", 0, func() {
		server.Kill(t)
		server.Start(t)
	})
	for n := range 40 {
		client.Status(ctx, fmt.Sprint(n))
	}
}

// leaveTheQueue has a waiter disconnect long before its turn.
func leaveTheQueue(t *testing.T, r *robust.Run, server *robust.Server, _ string) {
	holder, waiter := r.Client(0, server.URL), r.Client(0, server.URL)
	ctx := context.Background()
	held := holder.Acquire(ctx, robust.Operation{Resource: "r", Process: "holder", TTL: time.Minute}).Holder
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if o := waiter.Acquire(short,
		robust.Operation{Resource: "r", Process: "waiter", Wait: time.Minute}); !o.Disconnected {
		t.Fatal(o)
	}
	r.Pause(300 * time.Millisecond)
	holder.Renew(ctx, "r", "holder", held.Token, time.Minute)
	holder.Release(ctx, "r", "holder", held.Token)
	r.Pause(3 * time.Second)
	holder.Status(ctx, "r")
}

// disconnectWhileLocked has a client disconnect while nothing can be committed.
func disconnectWhileLocked(t *testing.T, r *robust.Run, server *robust.Server, path string) {
	client := r.DirectClient(0, server)
	stall(t, r, open(t, "sqlite3", sqliteSource(path)), "BEGIN IMMEDIATE", func() {
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if o := client.Acquire(short, robust.Operation{Resource: "r", Process: "p"}); !o.Disconnected {
			t.Fatal(o)
		}
		r.Pause(400 * time.Millisecond)
	})
	r.Pause(3500 * time.Millisecond)
	client.Status(context.Background(), "r")
}

// halfCloseWhileLocked has a client finish sending while nothing can be committed, and
// read the answer.
func halfCloseWhileLocked(t *testing.T, r *robust.Run, server *robust.Server, path string) {
	client := r.DirectClient(0, server)
	var asked sync.WaitGroup
	stall(t, r, open(t, "sqlite3", sqliteSource(path)), "BEGIN IMMEDIATE", func() {
		asked.Go(func() {
			client.Acquire(context.Background(), robust.Operation{Resource: "r", Process: "p", HalfClosed: true})
		})
		r.Pause(200 * time.Millisecond)
	})
	asked.Wait()
	client.Status(context.Background(), "r")
}

// repeatOfAFrozenRequest is granted the lock and releases it, while the first request's
// client reads nothing.
func repeatOfAFrozenRequest(t *testing.T, r *robust.Run, server *robust.Server, _ string) {
	holder, client := r.DirectClient(0, server), r.DirectClient(0, server)
	ctx := context.Background()
	held := holder.Acquire(ctx, robust.Operation{Resource: "r", Process: "holder"}).Holder
	request := robust.Operation{Resource: "r", Process: "p", RequestID: "run-7", Wait: 30 * time.Second}
	thaw, err := client.AcquireFrozen(request)
	if err != nil {
		t.Fatal(err)
	}
	defer thaw()
	for len(holder.Queue(ctx, "r").Queue) == 0 {
		r.Pause(time.Millisecond)
	}
	var repeat sync.WaitGroup
	repeat.Go(func() {
		o := client.Acquire(ctx, request)
		client.Release(ctx, "r", "p", o.Holder.Token)
	})
	r.Pause(200 * time.Millisecond)
	holder.Release(ctx, "r", "holder", held.Token)
	repeat.Wait()
	r.Pause(2 * time.Second)
	holder.Status(ctx, "r")
}
