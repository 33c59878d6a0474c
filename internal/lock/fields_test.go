package lock_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
)

func TestOptionalTextLimits(t *testing.T) {
	fields := []struct {
		name, field string
		maxLength   int
		required    bool
		validate    func(string) []lock.Fault
	}{
		{"request id", "request_id", 255, false, func(value string) []lock.Fault {
			return lock.Request{Resource: "r", ProcessID: "p", RequestID: value}.Validate(unlimited)
		}},
		{"reason of an acquire", "reason", 500, false, func(value string) []lock.Fault {
			return lock.Request{Resource: "r", ProcessID: "p", Reason: value}.Validate(unlimited)
		}},
		{"reason of a force-release", "reason", 500, true, func(value string) []lock.Fault {
			return lock.ForceRelease{Resource: "r", Reason: value}.Validate(unlimited)
		}},
		{"process that force-releases", "process_id", 255, false, func(value string) []lock.Fault {
			return lock.ForceRelease{Resource: "r", Reason: "it hangs", By: value}.Validate(unlimited)
		}},
	}
	for _, field := range fields {
		tooLong, utf8 := violation{lock.MaxLength, field.maxLength}, violation{lock.UTF8, nil}
		control := func(r rune) []violation { return []violation{{lock.NoControlCharacter, r}} }
		layout := control // of line breaks and tabs, which a reason may have
		if field.field == "reason" {
			layout = func(rune) []violation { return nil }
		}
		var empty []violation
		if field.required {
			empty = []violation{{lock.NotEmpty, nil}}
		}
		tests := []struct {
			name, value string
			want        []violation
		}{
			{"empty", "", empty},
			{"one character", "x", nil},
			{"any printable text", `deploy/é 世界 🔒 "quoted" ' % _ \ ; --`, nil},
			{"the maximum number of characters", strings.Repeat("x", field.maxLength), nil},
			{"the maximum number of characters, of four bytes", strings.Repeat("🔒", field.maxLength), nil},
			{"one character too many", strings.Repeat("x", field.maxLength+1), []violation{tooLong}},
			{"one character of two bytes too many", strings.Repeat("é", field.maxLength+1), []violation{tooLong}},
			{"a line feed", "a\nb", layout('\n')},
			{"a carriage return", "a\r", layout('\r')},
			{"a tab", "\ta", layout('\t')},
			{"an escape", "a\x1bb", control(0x1b)},
			// The fault is about the first character that the field may not have.
			{"a vertical tab after a line feed", "\n\v", slices.Concat(layout('\n'), control('\v'))[:1]},
			{"next line", "a\u0085b", control(0x85)},
			{"NUL", "\x00", control(0)},
			{"not UTF-8", "a\xff", []violation{utf8}},
			{
				"too long and a control character", strings.Repeat("x", field.maxLength) + "\b",
				[]violation{tooLong, control('\b')[0]},
			},
		}
		for _, test := range tests {
			t.Run(field.name+"/"+test.name, func(t *testing.T) {
				wantFaults(t, faults(field.field, test.want...), field.validate(test.value))
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
	size, depth := violation{lock.MaxSize, 4096}, violation{lock.MaxDepth, 8}
	notObject, tooLarge, tooDeep := []violation{{lock.Object, nil}}, []violation{size}, []violation{depth}
	tests := []struct {
		name string
		text string
		want []violation
	}{
		{"none", "", nil},
		{"an empty object", "{}", nil},
		{"an object of all kinds", `{"a":1,"b":[true,null],"c":{"d":"é"},"e":-1.5e3}`, nil},
		{"4096 bytes", sized(4096, "x"), nil},
		{"4096 bytes of characters of four bytes", sized(4096, "🔒"), nil},
		{"8 objects", nested(8), nil},
		{"an object and 7 lists", listed(8), nil},
		{"many levels side by side", `{"a":[[[]]],"b":[[[]]],"c":{"d":{"e":{}}},"f":[{},{},{},{},{},{},{},{},{}]}`, nil},
		{"braces in a string are no levels", `{"a":"{{{{{{{{{[[[[[[[[["}`, nil},
		{"braces behind an escaped quote", `{"a":"\"{{{{{{{{{{{{"}`, nil},
		{"braces behind an escaped backslash and quote", `{"a":"\\\"{{{{{{{{{{{{"}`, nil},
		{"braces in a name", `{"{{{{{{{{{{\"[[[[[[[[":1}`, nil},

		{"a number", "1", notObject},
		{"null", "null", notObject},
		{"a string", `"{}"`, notObject},
		{"a list", "[]", notObject},
		{"a list of an object", "[{}]", notObject},
		{"a truncated object", `{"a":1`, notObject},
		{"an object and more", "{}{}", notObject},
		{"single quotes", "{'a':1}", notObject},
		{"a comma too many", `{"a":1,}`, notObject},
		{"a line feed in a string", "{\"a\":\"\n\"}", notObject},
		{"a string that is not UTF-8", "{\"a\":\"\xff\"}", notObject},
		{"not JSON, and long", "{" + strings.Repeat("x", 5000), notObject},
		{"4097 bytes", sized(4097, "x"), tooLarge},
		{"4098 bytes, 2049 characters", sized(4098, "é"), tooLarge},
		{"9 objects", nested(9), tooDeep},
		{"an object and 8 lists", listed(9), tooDeep},
		{"deep behind a string that ends in a backslash", `{"a":"\\","b":` + nested(8) + `}`, tooDeep},
		{"deep behind strings with braces", `{"a":"}}}}]]]]","b":` + nested(8) + `}`, tooDeep},
		{"deep first, shallow last", `{"a":` + nested(8) + `,"b":{}}`, tooDeep},
		{
			"too large and too deep", `{"a":"` + strings.Repeat("x", 4096) + `","b":` + nested(8) + `}`,
			[]violation{size, depth},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lock.Request{Resource: "r", ProcessID: "p", Metadata: test.text}.Validate(unlimited)
			wantFaults(t, faults("metadata", test.want...), got)
		})
	}
}

func TestTokenLimits(t *testing.T) {
	negative := faults("fencing_token", violation{lock.Positive, nil})
	for token, want := range map[int64][]lock.Fault{
		0: nil, 1: nil, 1<<53 - 1: nil, -1: negative, -1 << 63: negative,
	} {
		t.Run(fmt.Sprint(token), func(t *testing.T) {
			wantFaults(t, want, lock.Release{Resource: "r", ProcessID: "p", Token: token}.Validate(unlimited))
			renew := lock.Renew{Resource: "r", ProcessID: "p", Token: token, TTL: time.Minute}
			wantFaults(t, want, renew.Validate(unlimited))
			wantFaults(t, want, lock.ForceRelease{Resource: "r", Reason: "it hangs", Token: token}.Validate(unlimited))
		})
	}
}

func TestForceReleaseNeedsAReason(t *testing.T) {
	got := lock.ForceRelease{Resource: "r", By: "ops"}.Validate(unlimited)
	wantFaults(t, faults("reason", violation{lock.NotEmpty, nil}), got)
}

func TestAllFaultsAtOnce(t *testing.T) {
	hour := lock.Limits{MaxTTL: time.Hour, MaxWait: time.Minute}
	tooLong := violation{lock.MaxLength, 255}
	notEmpty, utf8 := violation{lock.NotEmpty, nil}, violation{lock.UTF8, nil}
	lineFeed := violation{lock.NoControlCharacter, '\n'}
	positive, notNegative := violation{lock.Positive, nil}, violation{lock.NotNegative, nil}
	wantFaults(t, slices.Concat(
		faults("resource_name", notEmpty),
		faults("process_id", utf8, lineFeed),
		faults("ttl_seconds", positive),
		faults("request_id", lineFeed),
		faults("reason", violation{lock.MaxLength, 500}),
		faults("metadata", violation{lock.Object, nil}),
		faults("min_hold_seconds", notNegative),
		faults("wait_seconds", notNegative),
	), lock.Request{
		Resource: "", ProcessID: "\xff\n", TTL: -1, MinHold: -1, Wait: -1,
		RequestID: "\n", Reason: strings.Repeat("x", 501), Metadata: "[]",
	}.Validate(hour))

	own := slices.Concat(
		faults("resource_name", tooLong), faults("process_id", notEmpty), faults("fencing_token", positive),
	)
	long := strings.Repeat("x", 256)
	wantFaults(t, own, lock.Release{Resource: long, Token: -1}.Validate(hour))
	wantFaults(t, append(own, faults("ttl_seconds", violation{lock.ExpiryRequired, time.Hour})...),
		lock.Renew{Resource: long, Token: -1}.Validate(hour))
	wantFaults(t, slices.Concat(
		faults("resource_name", notEmpty), faults("reason", notEmpty), faults("process_id", lineFeed),
		faults("fencing_token", positive),
	), lock.ForceRelease{By: "\n", Token: -1}.Validate(hour))
}
