package robust_test

import (
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
)

func TestCheckClaims(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	grant := func(token int64, returned time.Duration) robust.Operation {
		return robust.Operation{
			Kind: robust.Acquire, Outcome: robust.Done, Resource: "r", Returned: returned,
			Holder: robust.Hold{Token: token},
		}
	}
	for name, test := range map[string]struct {
		claims     []robust.Claim
		operations []robust.Operation
		want       []string // a part of each violation
	}{
		"one after the other": {
			[]robust.Claim{{"r", 8, 20 * ms, 30 * ms}, {"r", 7, 10 * ms, 20 * ms}, {"other", 1, 10 * ms, 30 * ms}},
			[]robust.Operation{grant(7, 10*ms), grant(8, 20*ms)},
			nil,
		},
		"two at once": {
			[]robust.Claim{{"r", 7, 10 * ms, 21 * ms}, {"r", 8, 20 * ms, 30 * ms}},
			nil,
			[]string{"token 7 said from 10ms to 21ms"},
		},
		"one within another, and one after both": {
			[]robust.Claim{{"r", 7, 10 * ms, 50 * ms}, {"r", 8, 20 * ms, 30 * ms}, {"r", 9, 40 * ms, 60 * ms}},
			nil,
			[]string{"the one with token 8", "the one with token 9"},
		},
		"granted to another meanwhile": {
			[]robust.Claim{{"r", 7, 10 * ms, 30 * ms}},
			[]robust.Operation{grant(7, 10*ms), grant(8, 20*ms)},
			[]string{"but"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := robust.CheckClaims(test.claims, test.operations)
			if len(got) != len(test.want) {
				t.Fatalf("got %v", got)
			}
			for i, want := range test.want {
				if got[i].Guarantee != "G1" || !strings.Contains(got[i].What, want) {
					t.Errorf("got %v, want %s", got[i], want)
				}
			}
		})
	}
}
