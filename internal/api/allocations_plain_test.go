//go:build !race

package api_test

// The maximum numbers of allocations of a request, from the router to the rules of the
// domain.
const (
	maxAcquire = 20
	maxRelease = 18
)
