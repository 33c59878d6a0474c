package robust_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
	"resource-lock-manager/internal/wire"
)

// rollingRestart stops and starts the servers one after the other.
func rollingRestart(t *testing.T, r *robust.Run) {
	behindBalancer(t, r, "restart", func(s *robust.Server) { s.Stop(t, syscall.SIGTERM) })
}

// killedBehindBalancer kills and starts the servers one after the other.
func killedBehindBalancer(t *testing.T, r *robust.Run) {
	behindBalancer(t, r, "kill", func(s *robust.Server) { s.Kill(t) })
}

// behindBalancer restarts three servers behind nginx. Clients that retry what they may
// retry see no error that matters, whether nginx retries for them or not. Other clients
// connect to the servers directly meanwhile.
func behindBalancer(t *testing.T, r *robust.Run, kind robust.FaultKind, end func(*robust.Server)) {
	const clients, resources = 12, 4
	databaseURL := testdb.Postgres(t)
	servers := r.Servers(3, databaseURL)
	urls := []string{robust.StartBalancer(t, true, servers...), robust.StartBalancer(t, false, servers...)}
	r.Work(robust.Workload{Clients: 3}, servers...)

	working, stop := context.WithCancel(context.Background())
	defer stop()
	var all sync.WaitGroup
	holders := make([]atomic.Int32, resources)
	balanced := make([]*balancedClient, clients)
	for i := range balanced {
		b := &balancedClient{
			t:       t,
			client:  r.Client(robust.Balancer, urls[i%len(urls)]),
			process: fmt.Sprint("client ", i),
			rand:    rand.New(rand.NewPCG(r.Rand.Uint64(), 0)),
		}
		balanced[i] = b
		all.Go(func() { b.work(working, holders) })
	}
	for n := 0; r.Running() || n < len(servers); n++ {
		server := n % len(servers)
		r.Pause(time.Duration(r.Rand.Int64N(int64(300 * time.Millisecond))))
		r.Fault(kind, server, func() {
			end(servers[server])
			servers[server].Start(t)
		})
	}
	stop()
	all.Wait()
	var turns, repeats [2]int
	for i, b := range balanced {
		turns[i%len(urls)] += b.turns
		repeats[i%len(urls)] += b.repeats
	}
	fmt.Fprintf(t.Output(),
		"%d turns and %d client retries behind an nginx that retries; %d and %d behind one that does not\n",
		turns[0], repeats[0], turns[1], repeats[1])
	if repeats[1] == 0 {
		t.Error("no client has seen a failure, so the test proves nothing")
	}
	r.Judge()
}

// balancedClient is a client behind the balancer. It knows one address only.
type balancedClient struct {
	t       *testing.T
	client  *robust.Client
	process string
	rand    *rand.Rand

	turns, repeats int
}

// work takes turns until the work ends. It counts the processes inside at the same time:
// none of its holds expires.
func (b *balancedClient) work(working context.Context, holders []atomic.Int32) {
	for working.Err() == nil {
		n := b.rand.IntN(len(holders))
		resource := fmt.Sprint("turns ", n)
		b.turns++
		request := robust.Operation{
			Resource: resource, Process: b.process, RequestID: fmt.Sprint("turn ", b.turns), Wait: 20 * time.Second,
		}
		got := b.untilAnswered(func(ctx context.Context) robust.Operation { return b.client.Acquire(ctx, request) })
		if got.Outcome != robust.Done {
			b.t.Errorf("a client behind the balancer did not get the lock that it waited for: %+v", got)
			return
		}
		if others := holders[n].Add(1) - 1; others != 0 {
			b.t.Errorf("G1 on %s: %s is inside with %d others", resource, b.process, others)
		}
		<-time.After(time.Duration(b.rand.Int64N(int64(10 * time.Millisecond))))
		holders[n].Add(-1)
		token := got.Holder.Token
		got = b.untilAnswered(func(ctx context.Context) robust.Operation {
			return b.client.Release(ctx, resource, b.process, token)
		})
		// If the balancer sent the release twice, the client may see the answer to the
		// second one.
		if got.Outcome != robust.Done && got.Code != wire.CodeAlreadyReleased {
			b.t.Errorf("a client behind the balancer could not release what it held: %+v", got)
			return
		}
	}
}

// untilAnswered repeats a call until the service grants or refuses it, or a minute has
// passed.
func (b *balancedClient) untilAnswered(call func(context.Context) robust.Operation) robust.Operation {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		o := call(ctx)
		if o.Outcome == robust.Done || o.Outcome == robust.Refused || ctx.Err() != nil {
			return o
		}
		b.repeats++
		<-time.After(time.Duration(b.rand.Int64N(int64(100 * time.Millisecond))))
	}
}
