// Package storetest is the conformance test of service.Store. internal/store passes it on
// SQLite and on Postgres, and so does internal/memstore. A test that uses memstore is
// therefore valid for the databases.
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

// Database is an empty database.
type Database struct {
	// Open returns a new server of the database that is not started yet.
	Open func(tb testing.TB) Store
	// Shared is true if the database can have several servers.
	Shared bool
}

// Run runs every test on an empty database, which fresh returns.
func Run(t *testing.T, fresh func(tb testing.TB) Database) {
	tests := []struct {
		name string
		test func(*testing.T, Database)
	}{
		{"AcquireIsStored", TestAcquireIsStored},
		{"TextSurvives", TestTextSurvives},
		{"RefusalsChangeNothing", TestRefusalsChangeNothing},
		{"ReleaseKeepsRowAndToken", TestReleaseKeepsRowAndToken},
		{"ExclusionUnderLoad", TestExclusionUnderLoad},
		{"FirstInsertIsDecidedOnce", TestFirstInsertIsDecidedOnce},
		{"Sweep", TestSweep},
		{"HoldIsStoredWhole", TestHoldIsStoredWhole},
		{"HistoryIsStored", TestHistoryIsStored},
		{"LastEnd", TestLastEnd},
		{"HistoryFilters", TestHistoryFilters},
		{"RefusalsLeaveNoEvent", TestRefusalsLeaveNoEvent},
		{"HistoryRetention", TestHistoryRetention},
		{"ListFilters", TestListFilters},
		{"HeldByPages", TestHeldByPages},
		{"ListEndsEarly", TestListEndsEarly},
		{"OpenListsLeaveTheRestWorking", TestOpenListsLeaveTheRestWorking},
		{"QueueIsServedInOrder", TestQueueIsServedInOrder},
		{"WaiterSurvives", TestWaiterSurvives},
		{"WaitingOnThisServer", TestWaitingOnThisServer},
		{"PlaceIsKept", TestPlaceIsKept},
		{"OneQueueForAllServers", TestOneQueueForAllServers},
		{"ObserverSeesEveryCommit", TestObserverSeesEveryCommit},
		{"ClosedStoreRefuses", TestClosedStoreRefuses},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.test(t, fresh(t))
		})
	}
}

// open returns a started server that is closed when the test ends.
func (d Database) open(tb testing.TB) Store {
	tb.Helper()
	return d.observed(tb, func(service.Commit) {})
}

// observed is like open, with an observer of the commits.
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

// servers returns n servers. If the database can have only one, it returns that one n
// times.
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

// heldNames returns the names of the resources that the filter matches.
func heldNames(tb testing.TB, s Store, f service.ListFilter) []string {
	tb.Helper()
	var names []string
	for _, r := range held(tb, s, f) {
		names = append(names, r.Name)
	}
	return names
}

// held returns the resources that the filter matches.
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
		tb.Errorf("begin got the total %d, each was called %d times", total, len(found))
	}
	return found
}
