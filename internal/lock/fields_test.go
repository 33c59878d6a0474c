package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Texts that may be empty, for each field that has one.
func TestOptionalTextLimits(t *testing.T) {
	fields := []struct {
		name, field string
		most        int
		required    bool
		check       func(context.Context, *service.Service, string) error
	}{
		{"request id", "request_id", 255, false, func(_ context.Context, s *service.Service, value string) error {
			return s.CheckAcquire(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", RequestID: value}})
		}},
		{"reason of an acquire", "reason", 500, false, func(_ context.Context, s *service.Service, value string) error {
			return s.CheckAcquire(lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", Reason: value}})
		}},
		{"reason of a force-release", "reason", 500, true, func(_ context.Context, s *service.Service, value string) error {
			return s.CheckForceRelease(lock.ForceRelease{Resource: "r", Reason: value})
		}},
		{"who force-releases", "process_id", 255, false, func(_ context.Context, s *service.Service, value string) error {
			return s.CheckForceRelease(lock.ForceRelease{Resource: "r", Reason: "it hangs", By: value})
		}},
		{"prefix of a list", "prefix", 255, false, func(ctx context.Context, s *service.Service, value string) error {
			return s.List(ctx, service.ListFilter{Prefix: value}, nil, nil)
		}},
		{"process of a list", "process_id", 255, false, func(ctx context.Context, s *service.Service, value string) error {
			return s.List(ctx, service.ListFilter{ProcessID: value}, nil, nil)
		}},
		{"resource of a history", "resource_name", 255, false, func(ctx context.Context, s *service.Service, value string) error {
			_, err := s.History(ctx, service.HistoryFilter{Resource: value})
			return err
		}},
		{"process of a history", "process_id", 255, false, func(ctx context.Context, s *service.Service, value string) error {
			_, err := s.History(ctx, service.HistoryFilter{ProcessID: value})
			return err
		}},
	}
	for _, field := range fields {
		var empty []string
		if field.required {
			empty = []string{"string_too_short"}
		}
		layout := []string{"string_control_character"} // of line breaks and tabs
		if field.field == "reason" {
			layout = nil
		}
		tests := []struct {
			name, value string
			want        []string
		}{
			{"empty", "", empty},
			{"one character", "x", nil},
			{"any printable text", `deploy/é 世界 🔒 "quoted" ' % _ \ ; --`, nil},
			{"the most characters", strings.Repeat("x", field.most), nil},
			{"the most characters, of four bytes", strings.Repeat("🔒", field.most), nil},
			{"a character too many", strings.Repeat("x", field.most+1), []string{"string_too_long"}},
			{"a character of two bytes too many", strings.Repeat("é", field.most+1), []string{"string_too_long"}},
			{"a line feed", "a\nb", layout},
			{"a carriage return", "a\r", layout},
			{"a tab", "\ta", layout},
			{"an escape", "a\x1bb", []string{"string_control_character"}},
			{"a vertical tab after a line feed", "\n\v", []string{"string_control_character"}},
			{"next line", "a\u0085b", []string{"string_control_character"}},
			{"NUL", "\x00", []string{"string_control_character"}},
			{"not UTF-8", "a\xff", []string{"string_unicode"}},
			{"too long and a control character", strings.Repeat("x", field.most) + "\b", []string{"string_too_long", "string_control_character"}},
		}
		for _, test := range tests {
			t.Run(field.name+"/"+test.name, func(t *testing.T) {
				m := newMemory()
				if test.want == nil {
					// The store's own error shows that the request came through.
					m.broken = errBroken
				}
				err := field.check(t.Context(), service(m), test.value)
				if m.looks > 0 {
					if !errors.Is(err, errBroken) {
						t.Fatalf("got %v, want %v", err, errBroken)
					}
					err = nil
				}
				var want []string
				for _, rule := range test.want {
					want = append(want, field.field+" "+rule)
				}
				wantEqual(t, "broken rules", want, broken(t, err))
				if test.want != nil {
					wantUntouched(t, m)
				}
			})
		}
	}
}

func TestMetadataLimits(t *testing.T) {
	nested := func(levels int) string {
		return strings.Repeat(`{"a":`, levels-1) + "{}" + strings.Repeat("}", levels-1)
	}
	listed := func(levels int) string { // an object with lists in it
		return `{"a":` + strings.Repeat("[", levels-1) + strings.Repeat("]", levels-1) + "}"
	}
	sized := func(bytes int, char string) string {
		const around = len(`{"a":""}`)
		return `{"a":"` + strings.Repeat(char, (bytes-around)/len(char)) + `"}`
	}
	notObject, tooLong, tooDeep := []string{"metadata dict_type"}, []string{"metadata too_long"}, []string{"metadata too_deep"}
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"none", "", nil},
		{"an empty object", "{}", nil},
		{"an object of all kinds", `{"a":1,"b":[true,null],"c":{"d":"é"},"e":-1.5e3}`, nil},
		{"4096 bytes", sized(4096, "x"), nil},
		{"4096 bytes of characters of four bytes", sized(4096, "🔒"), nil},
		{"8 objects", nested(8), nil},
		{"an object and 7 lists", listed(8), nil},
		{"many levels beside one another", `{"a":[[[]]],"b":[[[]]],"c":{"d":{"e":{}}},"f":[{},{},{},{},{},{},{},{},{}]}`, nil},
		{"braces in a string are no levels", `{"a":"{{{{{{{{{[[[[[[[[["}`, nil},
		{"braces behind an escaped quote", `{"a":"\"{{{{{{{{{{{{"}`, nil},
		{"braces behind an escaped backslash and quote", `{"a":"\\\"{{{{{{{{{{{{"}`, nil},
		{"braces in a name", `{"{{{{{{{{{{\"[[[[[[[[":1}`, nil},

		{"a number", "1", notObject},
		{"null", "null", notObject},
		{"a string", `"{}"`, notObject},
		{"a list", "[]", notObject},
		{"a list of an object", "[{}]", notObject},
		{"an object cut off", `{"a":1`, notObject},
		{"an object and more", "{}{}", notObject},
		{"single quotes", "{'a':1}", notObject},
		{"a comma too many", `{"a":1,}`, notObject},
		{"a line feed in a string", "{\"a\":\"\n\"}", notObject},
		{"not JSON, and long", "{" + strings.Repeat("x", 5000), notObject},
		{"4097 bytes", sized(4097, "x"), tooLong},
		{"4098 bytes, 2049 characters", sized(4098, "é"), tooLong},
		{"9 objects", nested(9), tooDeep},
		{"an object and 8 lists", listed(9), tooDeep},
		{"deep behind a string that ends in a backslash", `{"a":"\\","b":` + nested(8) + `}`, tooDeep},
		{"deep behind strings with braces", `{"a":"}}}}]]]]","b":` + nested(8) + `}`, tooDeep},
		{"deep first, shallow last", `{"a":` + nested(8) + `,"b":{}}`, tooDeep},
		{"too long and too deep", `{"a":"` + strings.Repeat("x", 4096) + `","b":` + nested(8) + `}`, []string{"metadata too_long", "metadata too_deep"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory()
			wantFaults(t, test.want, service(m), m, lock.Acquire{Request: lock.Request{Resource: "r", ProcessID: "p", Metadata: test.text}})
		})
	}
}

func TestTokenLimits(t *testing.T) {
	for token, want := range map[int64][]string{
		0: nil, 1: nil, 1<<53 - 1: nil, -1: {"fencing_token greater_than"}, -1 << 63: {"fencing_token greater_than"},
	} {
		t.Run(fmt.Sprint(token), func(t *testing.T) {
			m := newMemory()
			s := service(m)
			release := lock.Release{Resource: "r", ProcessID: "p", Token: token}
			renew := lock.Renew{Resource: "r", ProcessID: "p", Token: token, TTL: time.Minute}
			force := lock.ForceRelease{Resource: "r", Reason: "it hangs", Token: token}
			wantEqual(t, "check of release", want, broken(t, s.CheckRelease(release)))
			wantEqual(t, "check of renew", want, broken(t, s.CheckRenew(renew)))
			wantEqual(t, "check of force-release", want, broken(t, s.CheckForceRelease(force)))
			wantUntouched(t, m)
			wantEqual(t, "release", want, broken(t, refusedOrInvalid(s.Release(t.Context(), release))))
			wantEqual(t, "renew", want, broken(t, refusedOrInvalid(s.Renew(t.Context(), renew))))
			wantEqual(t, "force-release", want, broken(t, refusedOrInvalid(s.ForceRelease(t.Context(), force))))
			if want != nil {
				wantUntouched(t, m)
			}
		})
	}
}

func TestForceReleaseNeedsAReason(t *testing.T) {
	m := newMemory(heldBy("p", time.Time{}))
	_, err := service(m).ForceRelease(t.Context(), lock.ForceRelease{Resource: "r", By: "ops"})
	wantEqual(t, "faults", []lock.Fault{
		{Field: "reason", Rule: "string_too_short", Message: "String should have at least 1 character"},
	}, faultsOf(t, err))
	wantUntouched(t, m)
}

func TestAllFaultsAtOnce(t *testing.T) {
	m := newMemory()
	s := limited(m)
	_, err := s.Acquire(t.Context(), lock.Request{
		Resource: "", ProcessID: "\xff\n", TTL: -1, MinHold: -1, RequestID: "\n", Reason: strings.Repeat("x", 501), Metadata: "[]",
	})
	wantEqual(t, "acquire", []string{
		"resource_name string_too_short", "process_id string_unicode", "process_id string_control_character",
		"ttl_seconds greater_than", "request_id string_control_character", "reason string_too_long", "metadata dict_type",
		"min_hold_seconds greater_than_equal",
	}, broken(t, err))
	_, err = s.Release(t.Context(), lock.Release{Resource: strings.Repeat("x", 256), ProcessID: "", Token: -1})
	own := []string{"resource_name string_too_long", "process_id string_too_short", "fencing_token greater_than"}
	wantEqual(t, "release", own, broken(t, err))
	_, err = s.Renew(t.Context(), lock.Renew{Resource: strings.Repeat("x", 256), ProcessID: "", Token: -1})
	wantEqual(t, "renew", append(own, "ttl_seconds missing"), broken(t, err))
	_, err = s.ForceRelease(t.Context(), lock.ForceRelease{By: "\n"})
	wantEqual(t, "force-release", []string{
		"resource_name string_too_short", "reason string_too_short", "process_id string_control_character",
	}, broken(t, err))
	_, err = s.RenewAll(t.Context(), "", time.Hour+1, []lock.HoldRef{{Resource: "\n"}, {Resource: "r"}, {}})
	wantEqual(t, "renew all", []string{
		"process_id string_too_short", "ttl_seconds less_than_equal", "holds.0.resource_name string_control_character",
		"holds.2.resource_name string_too_short",
	}, broken(t, err))
	_, _, err = s.ReleaseAll(t.Context(), "", []lock.HoldRef{{Resource: "r"}, {Resource: strings.Repeat("x", 256)}})
	wantEqual(t, "release all", []string{"process_id string_too_short", "holds.1.resource_name string_too_long"}, broken(t, err))
	err = s.List(t.Context(), service.ListFilter{Prefix: "\n", ProcessID: "\t"}, nil, nil)
	wantEqual(t, "list", []string{"prefix string_control_character", "process_id string_control_character"}, broken(t, err))
	_, err = s.History(t.Context(), service.HistoryFilter{Resource: "\n", ProcessID: "\t", Since: t0, Until: t0})
	wantEqual(t, "history", []string{
		"resource_name string_control_character", "process_id string_control_character", "until greater_than",
	}, broken(t, err))
	wantUntouched(t, m)
}
