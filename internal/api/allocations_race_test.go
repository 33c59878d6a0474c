//go:build race

package api_test

// The maximum numbers of allocations of a request with the race detector, under which a
// sync.Pool drops some of its elements at random: those that were measured, 28 and 20,
// and two more.
const (
	maxAcquire = 30
	maxRelease = 22
)
