package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"resource-lock-manager/internal/lock"
)

const (
	reconcileBatch  = 500                    // resources reconciled in one transaction
	disconnectBatch = 100                    // requests ended at the same time
	retryInterval   = 200 * time.Millisecond // after a failure of the database
	fullRecheck     = 10                     // every tenth recheck reads all requests that wait
)

// work is what the loop has to do.
type work struct {
	names map[string]struct{} // resources to reconcile
	ends  []lock.Command      // DropOrphan and Disconnect of requests that no client waits for
	free  bool                // read the free resources that requests of this server wait for
	all   bool                // read all requests that wait on this server
}

func newWork() work { return work{names: map[string]struct{}{}} }

// add merges other work.
func (w *work) add(other work) {
	maps.Copy(w.names, other.names)
	w.ends = append(w.ends, other.ends...)
	w.free, w.all = w.free || other.free, w.all || other.all
}

// schedule adds work for the loop and wakes it.
func (q *waiters) schedule(w work) {
	q.mu.Lock()
	q.pending.add(w)
	q.mu.Unlock()
	send(q.wake, struct{}{})
}

// later ends a request in the background.
func (q *waiters) later(c lock.Command) { q.schedule(work{ends: []lock.Command{c}}) }

// scheduleReconcile schedules the reconciliation of a resource.
func (q *waiters) scheduleReconcile(name string) {
	q.schedule(work{names: map[string]struct{}{name: {}}})
}

// scheduleReconcileAll schedules the reconciliation of every resource that requests of
// this server wait for.
func (q *waiters) scheduleReconcileAll() { q.schedule(work{all: true}) }

func (q *waiters) start() { q.loops.Start(q.run) }

// stop ends the loop and the timers. Other servers complete the work that is still
// pending.
func (q *waiters) stop() {
	q.close()
	q.loops.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, timer := range q.timers {
		timer.Stop()
		delete(q.timers, name)
	}
}

func (q *waiters) run(ctx context.Context) {
	recheck := time.NewTicker(q.cfg.Recheck)
	defer recheck.Stop()
	retry := time.NewTimer(retryInterval)
	defer retry.Stop()
	failing := false
	for ticks := 1; ; {
		select {
		case <-ctx.Done():
			_ = q.catchUp()
			return
		case <-retry.C:
		case <-q.wake:
			if failing { // while the database fails, only the retry timer causes attempts
				continue
			}
		case <-recheck.C:
			q.mu.Lock()
			if len(q.requests) > 0 {
				q.pending.add(work{free: true, all: ticks%fullRecheck == 0})
				ticks++
			}
			q.mu.Unlock()
		}
		err := q.catchUp()
		if err != nil {
			if !failing {
				q.log.Warn("waiting requests cannot be served now; retrying", "error", err)
			}
			retry.Reset(retryInterval)
		}
		failing = err != nil
	}
}

// catchUp does the pending work. What fails becomes pending again.
func (q *waiters) catchUp() error {
	q.mu.Lock()
	todo := q.pending
	q.pending = newWork()
	q.mu.Unlock()
	left, err := q.do(context.Background(), todo)
	q.mu.Lock()
	q.pending.add(left)
	q.mu.Unlock()
	return err
}

// do executes the work and returns the part that failed.
func (q *waiters) do(ctx context.Context, todo work) (left work, err error) {
	left = newWork()
	var errs []error
	if todo.free || todo.all {
		found, err := q.compare(ctx, todo.all)
		if err != nil {
			errs = append(errs, err)
			left.free, left.all = true, todo.all
		}
		todo.add(found)
	}
	for names := range slices.Chunk(slices.Collect(maps.Keys(todo.names)), reconcileBatch) {
		if _, err := q.store.Execute(ctx, lock.ExpireAndGrant{Names: names}); err != nil {
			errs = append(errs, err)
			for _, name := range names {
				left.names[name] = struct{}{}
			}
		}
	}
	for ends := range slices.Chunk(todo.ends, disconnectBatch) {
		results := make([]error, len(ends))
		var all sync.WaitGroup
		for i, c := range ends {
			all.Go(func() { _, results[i] = q.store.Execute(ctx, c) })
		}
		all.Wait()
		for i, err := range results {
			if failed(err) {
				errs = append(errs, err)
				left.ends = append(left.ends, ends[i])
			}
		}
	}
	return left, errors.Join(errs...)
}

// compare finds in the database what no hint has reported: free resources that requests
// of this server wait for, and if it reads all requests, also places that have no
// request, and requests that have lost their places. It makes the latter retry.
func (q *waiters) compare(ctx context.Context, all bool) (found work, err error) {
	lost := map[int64]*waitingRequest{}
	if all {
		q.mu.Lock()
		for connection, request := range q.requests {
			if request.queued {
				lost[connection] = request
			}
		}
		q.mu.Unlock()
	}
	found = newWork()
	stored, err := q.store.Waiting(ctx, !all)
	if err != nil {
		return found, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range stored {
		if _, registered := q.requests[w.Connection]; !registered {
			found.ends = append(found.ends, lock.DropOrphan{Place: w.Place, Connection: w.Connection})
		}
		delete(lost, w.Connection)
		if w.Free {
			found.names[w.Place.Resource] = struct{}{}
		}
	}
	for _, request := range lost { // a request that was granted since retries as well, which is harmless
		send(request.retry, struct{}{})
	}
	return found, nil
}
