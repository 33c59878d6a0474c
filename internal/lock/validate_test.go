package lock_test

import (
	"fmt"
	"strings"
	"testing"

	"resource-lock-manager/internal/lock"
)

// unlimited are limits under which locks may also never expire.
var unlimited = lock.Limits{MaxTTL: lock.LongestTTL}

// violation is a fault without its path.
type violation struct {
	rule  lock.Rule
	limit any
}

// faults returns the faults of one field, nil for no violation.
func faults(field string, violations ...violation) []lock.Fault {
	var all []lock.Fault
	for _, v := range violations {
		all = append(all, lock.Fault{Path: []any{field}, Rule: v.rule, Limit: v.limit})
	}
	return all
}

// wantFaults compares all faults of a request, in their order.
func wantFaults(t *testing.T, want, got []lock.Fault) {
	t.Helper()
	wantEqual(t, "faults", want, got)
}

func TestNameLimits(t *testing.T) {
	empty, tooLong, utf8 := violation{lock.NotEmpty, nil}, violation{lock.MaxLength, 255}, violation{lock.UTF8, nil}
	control := func(r rune) violation { return violation{lock.NoControlCharacter, r} }
	tests := []struct {
		name  string
		value string
		want  []violation
	}{
		{"one character", "x", nil},
		{"any printable text", `deploy/é 世界 🔒 "quoted" ' % _ \ ; --`, nil},
		{"a space", " ", nil},
		{"255 characters", strings.Repeat("x", 255), nil},
		{"255 characters of three bytes", strings.Repeat("世", 255), nil},
		{"255 characters of four bytes", strings.Repeat("🔒", 255), nil},
		{"the replacement character itself", "\uFFFD", nil},
		{"the last before the control characters", "~", nil},
		{"the first after the control characters", "\u00A0", nil},

		{"empty", "", []violation{empty}},
		{"256 characters", strings.Repeat("x", 256), []violation{tooLong}},
		{"256 characters of two bytes", strings.Repeat("é", 256), []violation{tooLong}},
		{"very long", strings.Repeat("x", 1<<20), []violation{tooLong}},
		{"NUL", "a\x00b", []violation{control(0)}},
		{"line feed at the end", "a\n", []violation{control('\n')}},
		{"tab at the start", "\ta", []violation{control('\t')}},
		{"U+001F", "\x1f", []violation{control(0x1f)}},
		{"DEL", "a\x7f", []violation{control(0x7f)}},
		{"U+0080", "a\u0080", []violation{control(0x80)}},
		{"U+0085, next line", "a\u0085b", []violation{control(0x85)}},
		{"U+009F", "a\u009f", []violation{control(0x9f)}},
		{"several control characters are one fault", "\x00\x01\n", []violation{control(0)}},
		{"a lone byte", "a\xff", []violation{utf8}},
		{"a truncated character", "世"[:2], []violation{utf8}},
		{"a surrogate", "\xed\xa0\x80", []violation{utf8}},
		{"an overlong NUL", "\xc0\x80", []violation{utf8}},
		{"invalid and a control character", "\xff\x00", []violation{utf8, control(0)}},
		{"too long and a control character", strings.Repeat("x", 255) + "\n", []violation{tooLong, control('\n')}},
	}
	requests := []struct {
		name, field string
		validate    func(string) []lock.Fault
	}{
		{"acquire, resource", "resource_name", func(value string) []lock.Fault {
			return lock.Request{Resource: value, ProcessID: "p"}.Validate(unlimited)
		}},
		{"acquire, process", "process_id", func(value string) []lock.Fault {
			return lock.Request{Resource: "r", ProcessID: value}.Validate(unlimited)
		}},
		{"release, resource", "resource_name", func(value string) []lock.Fault {
			return lock.Release{Resource: value, ProcessID: "p"}.Validate(unlimited)
		}},
		{"release, process", "process_id", func(value string) []lock.Fault {
			return lock.Release{Resource: "r", ProcessID: value}.Validate(unlimited)
		}},
		{"renew, resource", "resource_name", func(value string) []lock.Fault {
			return lock.Renew{Resource: value, ProcessID: "p", TTL: 1}.Validate(unlimited)
		}},
		{"renew, process", "process_id", func(value string) []lock.Fault {
			return lock.Renew{Resource: "r", ProcessID: value, TTL: 1}.Validate(unlimited)
		}},
		{"force-release, resource", "resource_name", func(value string) []lock.Fault {
			return lock.ForceRelease{Resource: value, Reason: "it hangs"}.Validate(unlimited)
		}},
		{"name of a resource", "resource_name", func(value string) []lock.Fault {
			return lock.ResourceName(value).Validate(unlimited)
		}},
	}
	for _, test := range tests {
		for _, request := range requests {
			t.Run(test.name+"/"+request.name, func(t *testing.T) {
				wantFaults(t, faults(request.field, test.want...), request.validate(test.value))
			})
		}
	}
}

func TestNamesOfListedHolds(t *testing.T) {
	var f lock.Faults
	f.Holds([]lock.HoldRef{{Resource: "\n"}, {Resource: "r", Token: 1}, {}, {Resource: strings.Repeat("x", 256)}})
	path := func(i int) []any { return []any{"holds", i, "resource_name"} }
	wantFaults(t, []lock.Fault{
		{Path: path(0), Rule: lock.NoControlCharacter, Limit: '\n'},
		{Path: path(2), Rule: lock.NotEmpty},
		{Path: path(3), Rule: lock.MaxLength, Limit: 255},
	}, f)
}

// Of several control characters, the limit of the fault is the first one.
func TestFirstControlCharacterIsTheLimit(t *testing.T) {
	for _, char := range []rune{0, '\n', 0x7f, 0x85} {
		t.Run(fmt.Sprintf("%U", char), func(t *testing.T) {
			got := lock.Request{Resource: fmt.Sprintf("a%cb\x01", char), ProcessID: "p"}.Validate(unlimited)
			wantFaults(t, faults("resource_name", violation{lock.NoControlCharacter, char}), got)
		})
	}
}

func TestInvalidErrorListsEveryFault(t *testing.T) {
	err := &lock.InvalidError{Faults: lock.Release{Resource: strings.Repeat("x", 256)}.Validate(unlimited)}
	const want = "[resource_name]: max_length 255; [process_id]: not_empty"
	if got := err.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
