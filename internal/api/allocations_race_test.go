//go:build race

package api_test

// The most allocations of a request with the race detector, under which a sync.Pool forgets at random a part of what it is
// given: what was seen, 28 and 20, and two more.
const (
	mostAcquire = 30
	mostRelease = 22
)
