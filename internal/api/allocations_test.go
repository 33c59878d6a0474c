package api_test

import "testing"

// TestAllocations notices when requests become more expensive.
func TestAllocations(t *testing.T) {
	limits := map[string]float64{"acquire": maxAcquire, "release": maxRelease}
	for _, f := range frequents {
		bound, bounded := limits[f.name]
		if !bounded {
			continue
		}
		send := f.sender(t)
		got := testing.AllocsPerRun(1000, func() {
			if !send() {
				t.Fatal(f.name + " got another status than expected")
			}
		})
		if got > bound {
			t.Errorf("%s: %v allocations, want at most %v", f.name, got, bound)
		}
	}
}
