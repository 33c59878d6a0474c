package lock_test

import (
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

// anHour are limits under which every lock has to expire.
var anHour = lock.Limits{MaxTTL: time.Hour}

func maximum(limit any) violation { return violation{lock.Maximum, limit} }

func TestTTLLimits(t *testing.T) {
	negative := []violation{{lock.Positive, nil}}
	tooLong := []violation{maximum(time.Hour)}
	almost := lock.Limits{MaxTTL: lock.LongestTTL - 1}
	tests := []struct {
		name   string
		limits lock.Limits
		ttl    time.Duration
		want   []violation
	}{
		{"the shortest", anHour, 1, nil},
		{"the longest", anHour, time.Hour, nil},
		{"a nanosecond too long", anHour, time.Hour + 1, tooLong},
		{"the longest that a Duration can be", anHour, 1<<63 - 1, tooLong},
		{"minus a nanosecond", anHour, -1, negative},
		{"as negative as a Duration can be", anHour, -1 << 63, negative},
		{"never expires", unlimited, 0, nil},
		{"the longest of all", unlimited, lock.LongestTTL, nil},
		{"longer than the longest of all", unlimited, lock.LongestTTL + 1, []violation{maximum(lock.LongestTTL)}},
		{"never expires, with a limit", anHour, 0, []violation{{lock.ExpiryRequired, time.Hour}}},
		{"never expires, with the greatest limit", almost, 0, []violation{{lock.ExpiryRequired, lock.LongestTTL - 1}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lock.Request{Resource: "r", ProcessID: "p", TTL: test.ttl}.Validate(test.limits)
			wantFaults(t, faults("ttl_seconds", test.want...), got)
		})
	}
}

func TestRenewalNeedsATTL(t *testing.T) {
	hour := lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}
	none := lock.Limits{MaxTTL: lock.LongestTTL, DefaultTTL: time.Minute}
	tests := []struct {
		name   string
		limits lock.Limits
		ttl    time.Duration
		want   []violation
	}{
		{"the shortest", hour, 1, nil},
		{"the longest", hour, time.Hour, nil},
		{"the longest of all", none, lock.LongestTTL, nil},
		// A renewal has no default: without a TTL the hold never expires.
		{"none", hour, 0, []violation{{lock.ExpiryRequired, time.Hour}}},
		{"none, where locks may never expire", none, 0, nil},
		{"a nanosecond too long", hour, time.Hour + 1, []violation{maximum(time.Hour)}},
		{"minus a nanosecond", hour, -1, []violation{{lock.Positive, nil}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lock.Renew{Resource: "r", ProcessID: "p", TTL: test.ttl}.Validate(test.limits)
			wantFaults(t, faults("ttl_seconds", test.want...), got)
		})
	}
}

func TestDefaultTTLSatisfiesALimit(t *testing.T) {
	limits := lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}
	wantFaults(t, nil, lock.Request{Resource: "r", ProcessID: "p"}.Validate(limits))
	limits.DefaultTTL = 2 * time.Hour
	wantFaults(t, faults("ttl_seconds", maximum(time.Hour)), lock.Request{Resource: "r", ProcessID: "p"}.Validate(limits))
}

func TestMinHoldLimits(t *testing.T) {
	byDefault := lock.Limits{MaxTTL: time.Hour, DefaultTTL: time.Minute}
	minimum := func(v violation) []lock.Fault { return faults("min_hold_seconds", v) }
	negative := minimum(violation{lock.NotNegative, nil})
	aboveTTL, aboveHour := minimum(maximum("ttl_seconds")), minimum(maximum(time.Hour))
	aboveAll := minimum(maximum(lock.LongestTTL))
	tests := []struct {
		name    string
		limits  lock.Limits
		ttl     time.Duration
		minimum time.Duration
		want    []lock.Fault
	}{
		{"none", anHour, time.Minute, 0, nil},
		{"the shortest", anHour, time.Minute, 1, nil},
		{"as long as the TTL", anHour, time.Minute, time.Minute, nil},
		{"a nanosecond longer than the TTL", anHour, time.Minute, time.Minute + 1, aboveTTL},
		{"longer than the default TTL", byDefault, 0, time.Minute + 1, aboveTTL},
		{"minus a nanosecond", anHour, time.Minute, -1, negative},
		{"as negative as a Duration can be", unlimited, 0, -1 << 63, negative},
		{"the longest without expiry", unlimited, 0, lock.LongestTTL, nil},
		{"a nanosecond too long without expiry", unlimited, 0, lock.LongestTTL + 1, aboveAll},
		{"the longest that a Duration can be", unlimited, 0, 1<<63 - 1, aboveAll},
		{
			"too long, and no TTL with a limit", anHour, 0, time.Hour + 1,
			slices.Concat(faults("ttl_seconds", violation{lock.ExpiryRequired, time.Hour}), aboveHour),
		},
		{
			"too long beside a TTL that is too long", anHour, 2 * time.Hour, 2 * time.Hour,
			slices.Concat(faults("ttl_seconds", maximum(time.Hour)), aboveHour),
		},
		{"longer than a negative TTL is one fault", anHour, -1, 1, faults("ttl_seconds", violation{lock.Positive, nil})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lock.Request{Resource: "r", ProcessID: "p", TTL: test.ttl, MinHold: test.minimum}.Validate(test.limits)
			wantFaults(t, test.want, got)
		})
	}
}

func TestWaitLimits(t *testing.T) {
	limits := lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: time.Minute}
	tests := []struct {
		name string
		wait time.Duration
		want []violation
	}{
		{"none", 0, nil},
		{"the shortest", 1, nil},
		{"the longest", time.Minute, nil},
		{"a nanosecond too long", time.Minute + 1, []violation{maximum(time.Minute)}},
		{"minus a nanosecond", -1, []violation{{lock.NotNegative, nil}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lock.Request{Resource: "r", ProcessID: "p", Wait: test.wait}.Validate(limits)
			wantFaults(t, faults("wait_seconds", test.want...), got)
		})
	}
}

// The limit of a fault is the setting of the operator, as a Duration.
func TestLimitOfAFaultIsTheSetting(t *testing.T) {
	for _, limit := range []time.Duration{time.Hour, 1500 * time.Millisecond, lock.LongestTTL} {
		t.Run(limit.String(), func(t *testing.T) {
			limits := lock.Limits{MaxTTL: limit}
			tooLong := faults("ttl_seconds", maximum(limit))
			wantFaults(t, tooLong, lock.Request{Resource: "r", ProcessID: "p", TTL: limit + 1}.Validate(limits))
			wantFaults(t, tooLong, lock.Renew{Resource: "r", ProcessID: "p", TTL: limit + 1}.Validate(limits))

			var noExpiry []lock.Fault
			if limit < lock.LongestTTL {
				noExpiry = faults("ttl_seconds", violation{lock.ExpiryRequired, limit})
			}
			wantFaults(t, noExpiry, lock.Renew{Resource: "r", ProcessID: "p"}.Validate(limits))
			minimum := faults("min_hold_seconds", maximum(limit))
			wantFaults(t, slices.Concat(noExpiry, minimum),
				lock.Request{Resource: "r", ProcessID: "p", MinHold: limit + 1}.Validate(limits))
		})
	}
}
