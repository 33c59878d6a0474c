package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"resource-lock-manager/internal/groupcommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("refused")

type result = groupcommit.Result[string]

// fakeTx is a transaction whose commit waits for the test. So the test controls which
// commands are queued meanwhile. The committer runs one transaction at a time, and the
// test reads the fields only after synctest.Wait.
type fakeTx struct {
	gate      chan struct{}
	fault     func(batch []int) error // fails a batch before it is committed; it may panic
	refuse    map[int]error           // the commands that are refused
	answer    func([]result) []result // changes the results of a committed batch
	committed []int

	mu   sync.Mutex // guards runs: a batch that a timer starts is not ordered after the test's reads
	runs [][]int    // every batch, committed or not
}

func (x *fakeTx) commit(batch []int) ([]result, error) {
	x.mu.Lock()
	x.runs = append(x.runs, slices.Clone(batch))
	x.mu.Unlock()
	<-x.gate
	if x.fault != nil {
		if err := x.fault(batch); err != nil {
			return nil, err
		}
	}
	results := make([]result, len(batch))
	for i, cmd := range batch {
		if err := x.refuse[cmd]; err != nil {
			results[i].Err = err
			continue
		}
		results[i].Value = fmt.Sprint("done ", cmd)
		x.committed = append(x.committed, cmd)
	}
	if x.answer != nil {
		results = x.answer(results)
	}
	return results, nil
}

// errUnavailable is a failure that concerns the whole batch.
var errUnavailable = errors.New("the database is not available")

func isUnavailable(err error) bool { return errors.Is(err, errUnavailable) }

// fixture is a running committer inside a synctest bubble.
type fixture struct {
	t *testing.T
	*fakeTx
	committer *groupcommit.Committer[int, string]
	opened    bool
}

func start(t *testing.T, maxBatch, maxQueue int) *fixture {
	f := &fixture{t: t, fakeTx: &fakeTx{gate: make(chan struct{})}}
	f.committer = groupcommit.New(f.commit, groupcommit.Config{MaxBatch: maxBatch, MaxQueue: maxQueue, Fatal: isUnavailable})
	f.committer.Start()
	t.Cleanup(func() {
		f.open()
		f.committer.Stop()
	})
	return f
}

// step lets the running transaction commit, and returns when all goroutines are blocked
// again.
func (f *fixture) step() {
	f.t.Helper()
	select {
	case f.gate <- struct{}{}:
	default:
		f.t.Fatal("no transaction is running")
	}
	synctest.Wait()
}

// open lets all current and future transactions commit.
func (f *fixture) open() {
	if !f.opened {
		close(f.gate)
		f.opened = true
	}
	synctest.Wait()
}

// reply is the result of a call of Do, valid once done is true.
type reply struct {
	done  bool
	value string
	err   error
}

// do calls Do in a goroutine. It returns when all goroutines are blocked, so commands are
// accepted in the order of the calls.
func (f *fixture) do(ctx context.Context, cmd int) *reply {
	r := &reply{}
	go func() {
		r.value, r.err = f.committer.Do(ctx, cmd)
		r.done = true
	}()
	synctest.Wait()
	return r
}

// queue starts a transaction with command 0 and queues commands 1 to n behind it. It
// returns the replies of all commands in their order.
func (f *fixture) queue(n int) []*reply {
	replies := make([]*reply, n+1)
	for cmd := range replies {
		replies[cmd] = f.do(f.t.Context(), cmd)
	}
	return replies
}

func (f *fixture) wantRuns(want ...[]int) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, f.runs); diff != "" {
		f.t.Errorf("transactions (-want +got):\n%s", diff)
	}
}

func (f *fixture) wantCommitted(want ...int) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.committed); diff != "" {
		f.t.Errorf("committed commands (-want +got):\n%s", diff)
	}
}

func wantDone(t *testing.T, r *reply, cmd int) {
	t.Helper()
	if want := (reply{done: true, value: fmt.Sprint("done ", cmd)}); *r != want {
		t.Errorf("command %d: got %+v, want %+v", cmd, *r, want)
	}
}

// wantErr also checks that a failed call returns no value.
func wantErr(t *testing.T, r *reply, cmd int, want error) {
	t.Helper()
	if !r.done || r.value != "" || !errors.Is(r.err, want) {
		t.Errorf("command %d: got %+v, want the error %q", cmd, *r, want)
	}
}

func wantWaiting(t *testing.T, r *reply, cmd int) {
	t.Helper()
	if r.done {
		t.Errorf("command %d: got %+v before its commit", cmd, *r)
	}
}

func TestResultComesAfterItsCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.refuse = map[int]error{1: errRefused}
		replies := f.queue(2)
		wantWaiting(t, replies[0], 0)

		f.step()
		wantDone(t, replies[0], 0)
		wantWaiting(t, replies[1], 1) // a refusal may depend on other commands of its batch
		wantWaiting(t, replies[2], 2)

		f.step()
		wantErr(t, replies[1], 1, errRefused)
		wantDone(t, replies[2], 2)
	})
}

func TestSingleCommandIsCommittedWithoutDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.open()
		began := time.Now()
		for cmd := range 3 {
			wantDone(t, f.do(t.Context(), cmd), cmd)
		}
		// The bubble's clock advances only while all goroutines are blocked.
		if waited := time.Since(began); waited != 0 {
			t.Errorf("committed after %v, want no delay", waited)
		}
		f.wantRuns([]int{0}, []int{1}, []int{2})
	})
}

func TestQueuedCommandsBecomeTheNextBatch(t *testing.T) {
	tests := []struct {
		name     string
		maxBatch int
		queued   int
		want     [][]int
	}{
		{"all fit", 10, 4, [][]int{{0}, {1, 2, 3, 4}}},
		{"exactly one batch", 4, 4, [][]int{{0}, {1, 2, 3, 4}}},
		{"one too many", 3, 4, [][]int{{0}, {1, 2, 3}, {4}}},
		{"several batches", 3, 8, [][]int{{0}, {1, 2, 3}, {4, 5, 6}, {7, 8}}},
		{"one by one", 1, 3, [][]int{{0}, {1}, {2}, {3}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, test.maxBatch, 100)
				replies := f.queue(test.queued)
				f.open()
				for cmd, r := range replies {
					wantDone(t, r, cmd)
				}
				f.wantRuns(test.want...)
			})
		})
	}
}

// Commands that arrive while a batch runs are queued behind the earlier ones.
func TestCommandsRunInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 100)
		f.queue(3)
		f.step()
		f.do(t.Context(), 4)
		f.do(t.Context(), 5)
		f.open()
		f.wantRuns([]int{0}, []int{1, 2}, []int{3, 4}, []int{5})
		f.wantCommitted(0, 1, 2, 3, 4, 5)
	})
}

func TestRefusalDoesNotAffectOtherCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 10)
		f.refuse = map[int]error{2: errRefused}
		replies := f.queue(3)
		f.open()
		wantDone(t, replies[1], 1)
		wantErr(t, replies[2], 2, errRefused)
		wantDone(t, replies[3], 3)
		f.wantRuns([]int{0}, []int{1, 2, 3})
	})
}

func TestFullQueueIsAnErrorAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 10, 2)
		replies := f.queue(2) // command 0 is being committed and does not count
		for cmd := 3; cmd < 5; cmd++ {
			wantErr(t, f.do(t.Context(), cmd), cmd, groupcommit.ErrFull)
		}
		f.step()
		replies = append(replies, f.do(t.Context(), 3)) // there is room again
		f.open()
		for cmd, r := range replies {
			wantDone(t, r, cmd)
		}
		f.wantCommitted(0, 1, 2, 3)
	})
}

func TestBeforeStartNothingRuns(t *testing.T) {
	x := &fakeTx{}
	c := groupcommit.New(x.commit, groupcommit.Config{MaxBatch: 10, MaxQueue: 10, Fatal: isUnavailable})
	if _, err := c.Do(t.Context(), 1); !errors.Is(err, groupcommit.ErrStopped) {
		t.Errorf("got %v, want ErrStopped", err)
	}
	if x.runs != nil {
		t.Errorf("ran %v", x.runs)
	}
}

func TestStopFinishesAcceptedCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		replies := f.queue(4)
		stopped := 0
		stop := func() {
			f.committer.Stop()
			stopped++
		}
		go stop()
		synctest.Wait()

		wantErr(t, f.do(t.Context(), 5), 5, groupcommit.ErrStopped)
		f.step()
		f.step()
		if stopped != 0 {
			t.Error("Stop returned before the last commit")
		}
		f.step()
		if stopped != 1 {
			t.Error("Stop did not return after the last commit")
		}
		for cmd, r := range replies {
			wantDone(t, r, cmd)
		}
		wantErr(t, f.do(t.Context(), 6), 6, groupcommit.ErrStopped)
		stop()
		f.wantRuns([]int{0}, []int{1, 2}, []int{3, 4})
	})
}

func TestStopOfAnIdleCommitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 2, 10)
		stopped := 0
		for range 2 { // concurrently
			go func() {
				f.committer.Stop()
				stopped++
			}()
			synctest.Wait()
		}
		if stopped != 2 {
			t.Errorf("%d of 2 calls of Stop returned", stopped)
		}
		wantErr(t, f.do(t.Context(), 1), 1, groupcommit.ErrStopped)
		f.wantRuns()
	})
}

func TestStopWithoutStart(t *testing.T) {
	x := &fakeTx{}
	c := groupcommit.New(x.commit, groupcommit.Config{MaxBatch: 10, MaxQueue: 10, Fatal: isUnavailable})
	c.Stop()
	c.Stop()
	if _, err := c.Do(t.Context(), 1); !errors.Is(err, groupcommit.ErrStopped) {
		t.Errorf("got %v, want ErrStopped", err)
	}
}
