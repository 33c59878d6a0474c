//go:build !race

package api_test

// The most allocations of a request through the whole handler, the router and the rules included: what was reached.
const (
	mostAcquire = 20
	mostRelease = 18
)
