// Package storetest is the conformance test of service.Store. internal/store passes it on
// SQLite and on Postgres, and internal/memstore passes it too, so that what is tested in memory
// holds for the databases.
package storetest

import (
	"context"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Store is a store with its lifecycle. It executes commands between Start and Close.
type Store interface {
	service.Store
	Start(onCommit func(service.Commit))
	Close() error
}

// Database is a fresh database.
type Database struct {
	// Open returns a new server of the database, not started yet.
	Open func(tb testing.TB) Store
	// Shared reports whether the database can have several servers.
	Shared bool
}

// Run runs every test on a fresh database.
func Run(t *testing.T, fresh func(tb testing.TB) Database) {
	tests := []struct {
		name string
		test func(*testing.T, Database)
	}{
		{"AcquireIsStored", testAcquireIsStored},
		{"TextSurvives", testTextSurvives},
		{"RefusalsChangeNothing", testRefusalsChangeNothing},
		{"ReleaseKeepsRowAndToken", testReleaseKeepsRowAndToken},
		{"ExclusionUnderLoad", testExclusionUnderLoad},
		{"FirstInsertIsDecidedOnce", testFirstInsertIsDecidedOnce},
		{"Sweep", testSweep},
		{"HoldIsStoredWhole", testHoldIsStoredWhole},
		{"HistoryIsStored", testHistoryIsStored},
		{"HistoryFilters", testHistoryFilters},
		{"RefusalsLeaveNoEvent", testRefusalsLeaveNoEvent},
		{"HistoryRetention", testHistoryRetention},
		{"ListFilters", testListFilters},
		{"HeldByPages", testHeldByPages},
		{"ListEndsEarly", testListEndsEarly},
		{"OpenListsLeaveTheRestWorking", testOpenListsLeaveTheRestWorking},
		{"QueueIsServedInOrder", testQueueIsServedInOrder},
		{"WaiterSurvives", testWaiterSurvives},
		{"WaitingOnThisServer", testWaitingOnThisServer},
		{"PlaceIsKept", testPlaceIsKept},
		{"OneQueueForAllServers", testOneQueueForAllServers},
		{"ObserverSeesEveryCommit", testObserverSeesEveryCommit},
		{"ClosedStoreRefuses", testClosedStoreRefuses},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.test(t, fresh(t))
		})
	}
}

// open starts a server that is closed when the test ends.
func (d Database) open(tb testing.TB) Store {
	tb.Helper()
	return d.observed(tb, func(service.Commit) {})
}

// observed is open with an observer.
func (d Database) observed(tb testing.TB, onCommit func(service.Commit)) Store {
	tb.Helper()
	s := d.Open(tb)
	s.Start(onCommit)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// servers returns n servers, or n times the same one if the database can have only one.
func (d Database) servers(tb testing.TB, n int) []Store {
	tb.Helper()
	all := make([]Store, n)
	for i := range all {
		if i > 0 && !d.Shared {
			all[i] = all[0]
		} else {
			all[i] = d.open(tb)
		}
	}
	return all
}

// execute fails the test if the command fails.
func execute(tb testing.TB, s Store, c lock.Command) lock.Outcome {
	tb.Helper()
	out, err := s.Execute(context.Background(), c)
	if err != nil {
		tb.Fatalf("%+v: %v", c, err)
	}
	return out
}

// acquire executes an acquire that does not wait.
func acquire(tb testing.TB, s Store, resource, process string, ttl time.Duration) lock.Outcome {
	tb.Helper()
	return execute(tb, s, lock.Acquire{Request: lock.Request{Resource: resource, ProcessID: process, TTL: ttl}})
}

// held returns every resource that the filter matches.
func held(tb testing.TB, s Store, f service.ListFilter) []lock.Resource {
	tb.Helper()
	var found []lock.Resource
	total := -1
	err := s.Held(context.Background(), f, func(n int, _ time.Time) error {
		total = n
		return nil
	}, func(r lock.Resource) error {
		found = append(found, r)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if total != len(found) {
		tb.Errorf("%d resources announced, %d came", total, len(found))
	}
	return found
}
