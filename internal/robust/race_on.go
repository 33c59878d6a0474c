//go:build race

package robust

// race reports whether the tests use the race detector.
const race = true
