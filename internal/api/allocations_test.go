package api_test

import "testing"

// TestAllocations: requests do not become dearer without anyone noticing.
func TestAllocations(t *testing.T) {
	most := map[string]float64{"acquire": mostAcquire, "release": mostRelease}
	for _, f := range frequents {
		bound, bounded := most[f.name]
		if !bounded {
			continue
		}
		send := f.again(t)
		got := testing.AllocsPerRun(1000, func() {
			if !send() {
				t.Fatal(f.name + " is not answered as it should be")
			}
		})
		if got > bound {
			t.Errorf("%s: %v allocations, want at most %v", f.name, got, bound)
		}
	}
}
