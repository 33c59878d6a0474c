//go:build !race

package robust

// race tells whether the tests have the race detector.
const race = false
