package groupcommit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"resource-lock-manager/internal/groupcommit"
)

const (
	manyCallers = 32
	callsEach   = 200
	smallBatch  = 7
	smallQueue  = 28
)

var errFlaky = errors.New("flaky")

// id names one call.
type id struct{ caller, number int }

func (i id) poison() bool  { return i.number%19 == 7 }
func (i id) refused() bool { return i.number%11 == 5 }

// flakyTx fails in every way that a transaction can fail, and cancels the contexts of
// callers at any time.
type flakyTx struct {
	t *testing.T

	mu        sync.Mutex
	pending   map[id]context.CancelFunc
	tried     map[id]int
	committed []id
}

func (x *flakyTx) commit(batch []id) ([]groupcommit.Result[id], error) {
	if len(batch) == 0 || len(batch) > smallBatch {
		x.t.Errorf("got a batch of %d commands", len(batch))
	}
	runtime.Gosched() // as a real transaction waits for its database, so that commands are queued
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, cmd := range batch {
		x.tried[cmd]++
	}
	x.cancelSome(batch)
	for _, cmd := range batch {
		switch {
		case cmd.poison() && cmd.caller%2 == 0:
			panic(errPoison)
		case cmd.poison():
			return nil, errPoison
		}
	}
	switch rand.IntN(20) {
	case 0:
		return nil, errFlaky
	case 1:
		return nil, errUnavailable
	case 2:
		return nil, groupcommit.ErrOutcomeUnknown
	case 3:
		x.save(batch)
		return nil, groupcommit.ErrOutcomeUnknown
	}
	return x.save(batch), nil
}

// cancelSome cancels the contexts of callers of this batch and of callers that may be
// queued.
func (x *flakyTx) cancelSome(batch []id) {
	if cancel := x.pending[batch[rand.IntN(len(batch))]]; cancel != nil && rand.IntN(4) == 0 {
		cancel()
	}
	remaining := rand.IntN(3)
	for _, cancel := range x.pending {
		if remaining == 0 {
			break
		}
		cancel()
		remaining--
	}
}

func (x *flakyTx) save(batch []id) []groupcommit.Result[id] {
	results := make([]groupcommit.Result[id], len(batch))
	for i, cmd := range batch {
		if cmd.refused() {
			results[i].Err = errRefused
			continue
		}
		results[i].Value = cmd
		x.committed = append(x.committed, cmd)
	}
	return results
}

// call makes one call whose context the transaction may cancel.
func (x *flakyTx) call(c *groupcommit.Committer[id, id], cmd id) error {
	ctx, cancel := context.WithCancel(x.t.Context())
	defer cancel()
	x.mu.Lock()
	x.pending[cmd] = cancel
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		delete(x.pending, cmd)
		x.mu.Unlock()
	}()
	value, err := c.Do(ctx, cmd)
	if err == nil && value != cmd {
		x.t.Errorf("%v got the result of %v", cmd, value)
	}
	return err
}

func TestManyCallersUnderFailures(t *testing.T) {
	x := &flakyTx{t: t, pending: map[id]context.CancelFunc{}, tried: map[id]int{}}
	c := groupcommit.New(x.commit, groupcommit.Config{MaxBatch: smallBatch, MaxQueue: smallQueue, Fatal: isUnavailable})
	c.Start()
	var results [manyCallers][callsEach]error
	var wg sync.WaitGroup
	for caller := range results {
		wg.Go(func() {
			for number := range results[caller] {
				results[caller][number] = x.call(c, id{caller, number})
			}
		})
	}
	wg.Wait()
	c.Stop()

	times := map[id]int{}
	var last [manyCallers]int
	for i := range last {
		last[i] = -1
	}
	for _, cmd := range x.committed {
		times[cmd]++
		if cmd.number < last[cmd.caller] {
			t.Errorf("caller %d: %d was committed after %d", cmd.caller, cmd.number, last[cmd.caller])
		}
		last[cmd.caller] = cmd.number
	}
	seen := map[string]int{}
	for caller, numbers := range results {
		for number, err := range numbers {
			cmd := id{caller, number}
			seen[x.check(cmd, err, times[cmd])]++
		}
	}
	for _, kind := range []string{"acknowledged", "refused", "outcome unknown", "unavailable", "canceled", "poison"} {
		if seen[kind] == 0 {
			t.Errorf("no call ended with the result %q: the test proves too little", kind)
		}
	}
	t.Log(seen)
}

// check compares the result of a call with the number of times that its command was
// committed. It returns the kind of the result.
func (x *flakyTx) check(cmd id, err error, committed int) (kind string) {
	minCommits, maxCommits, tried := 0, 0, true
	switch {
	case err == nil:
		kind, minCommits, maxCommits = "acknowledged", 1, 1
	case errors.Is(err, groupcommit.ErrOutcomeUnknown):
		kind, maxCommits = "outcome unknown", 1
	case errors.Is(err, errRefused):
		kind = "refused"
	case errors.Is(err, errUnavailable):
		kind = "unavailable"
	case errors.Is(err, errFlaky):
		kind = "flaky"
	case errors.Is(err, groupcommit.ErrFull):
		kind, tried = "full", false
	case errors.Is(err, context.Canceled):
		kind, tried = "canceled", false
	default:
		kind = "poison"
		if !cmd.poison() {
			x.t.Errorf("%v: %v", cmd, err)
		}
	}
	if committed < minCommits || committed > maxCommits {
		x.t.Errorf("%v got %q (%v), but was committed %d times", cmd, kind, err, committed)
	}
	if got := x.tried[cmd]; (got > 0) != tried {
		x.t.Errorf("%v got %q (%v), but was run %d times", cmd, kind, err, got)
	}
	return kind
}
