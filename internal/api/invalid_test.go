package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// faults returns the faults of a 422 as "location.field type", sorted, with * for a
// position in the body.
func (a answer) faults(t *testing.T, bodyLength int) []string {
	t.Helper()
	failure := decode[struct {
		Detail []struct {
			Loc  []any
			Msg  string
			Type string
		}
		Code wire.Code
	}](t, a.want(t, 422).body)
	if failure.Code != wire.CodeValidation {
		t.Errorf("code %q, want %q", failure.Code, wire.CodeValidation)
	}
	var list []string
	for _, f := range failure.Detail {
		var loc []string
		for _, part := range f.Loc {
			if number, ok := part.(json.Number); ok {
				if n, err := number.Int64(); err != nil || n < 0 || n > int64(bodyLength) {
					t.Errorf("position %v in a body of %d bytes", number, bodyLength)
				}
				part = "*"
			}
			loc = append(loc, fmt.Sprint(part))
		}
		if f.Msg == "" {
			t.Errorf("no msg in %s", a.body)
		}
		list = append(list, strings.Join(loc, ".")+" "+f.Type)
	}
	slices.Sort(list)
	return list
}

// wantFaults compares the faults of a 422 and checks that nothing is locked.
func (s *server) wantFaults(t *testing.T, a answer, bodyLength int, want ...string) {
	t.Helper()
	if diff := cmp.Diff(sorted(slices.Clone(want)), a.faults(t, bodyLength)); diff != "" {
		t.Errorf("faults (-want +got):\n%s%s", diff, a.body)
	}
	s.wantNothingLocked(t)
}

func (s *server) wantNothingLocked(t *testing.T) {
	t.Helper()
	if got := s.lockedNames(t); len(got) > 0 {
		t.Errorf("a refused request locked %q", got)
	}
	if s.status(t, "r").IsLocked {
		t.Error("a refused request locked the resource")
	}
}

func TestInvalidBodies(t *testing.T) {
	const syntax, shape = "body.* json_invalid", "body model_attributes_type"
	with := func(field, value string) string {
		fields := map[string]string{"resource_name": `"r"`, "process_id": `"p"`, field: value}
		var list []string
		for name, value := range fields {
			list = append(list, fmt.Sprintf("%q:%s", name, value))
		}
		slices.Sort(list)
		return "{" + strings.Join(list, ",") + "}"
	}
	type test struct {
		name, body string
		faults     []string
	}
	tests := []test{
		{"empty", ``, []string{"body missing"}},
		{"blank", " \n", []string{syntax}},
		{"not JSON", `resource_name=r&process_id=p`, []string{syntax}},
		{"cut off", `{"resource_name":"r","process_id":"p"`, []string{syntax}},
		{"cut off in a string", `{"resource_name":"r`, []string{syntax}},
		{"trailing comma", `{"resource_name":"r","process_id":"p",}`, []string{syntax}},
		{"comment", `{"resource_name":"r",/**/"process_id":"p"}`, []string{syntax}},
		{"single quotes", `{'resource_name':'r','process_id':'p'}`, []string{syntax}},
		{"two values", `{"resource_name":"r","process_id":"p"}{}`, []string{syntax}},
		{"two byte order marks", "\ufeff\ufeff" + `{"resource_name":"r","process_id":"p"}`, []string{syntax}},
		{"byte order mark at the end", `{"resource_name":"r","process_id":"p"}` + "\ufeff", []string{syntax}},
		{"nothing but a byte order mark", "\ufeff", []string{"body missing"}},
		{"duplicate field", `{"resource_name":"r","resource_name":"r","process_id":"p"}`, []string{syntax}},
		{
			"duplicate field, spelled otherwise", `{"resource_name":"r","\u0072esource_name":"s","process_id":"p"}`,
			[]string{syntax},
		},
		{"duplicate unknown field", with("x", `0,"x":1`), []string{syntax}},
		{"duplicate field inside", with("x", `{"y":0,"y":1}`), []string{syntax}},
		{"endless nesting", with("x", strings.Repeat("[", 60000)), []string{syntax}},
		{"deep nesting", with("x", strings.Repeat("[", 20000)+strings.Repeat("]", 20000)), []string{syntax}},
		{"invalid UTF-8 in a field's name", with("x\xff", `0`), []string{syntax}},
		{"invalid UTF-8 in an unknown field", with("x", "\"\xc3\x28\""), []string{syntax}},

		{"array", `[{"resource_name":"r","process_id":"p"}]`, []string{shape}},
		{"string", `"r"`, []string{shape}},
		{"null", `null`, []string{shape}},
		{"number", `1`, []string{shape}},
		{"bool", `true`, []string{shape}},

		{"no fields", `{}`, []string{"body.resource_name missing", "body.process_id missing"}},
		{"no resource_name", `{"process_id":"p"}`, []string{"body.resource_name missing"}},
		{"no process_id", `{"resource_name":"r"}`, []string{"body.process_id missing"}},
		{
			"other case", `{"Resource_Name":"r","process_id":"p"}`,
			[]string{"body.resource_name missing", "body.Resource_Name misspelled_name"},
		},
		{
			"a fault in each field, of the type", `{"resource_name":1,"process_id":[],"ttl_seconds":"60"}`,
			[]string{"body.resource_name string_type", "body.process_id string_type", "body.ttl_seconds float_type"},
		},
		{
			"a fault in each field, of the value",
			`{"resource_name":"","process_id":"` + "\\n" + `","ttl_seconds":1e10}`,
			[]string{
				"body.resource_name string_too_short", "body.process_id string_control_character",
				"body.ttl_seconds less_than_equal",
			},
		},
		{
			"a fault in each field, of each kind", `{"resource_name":"","ttl_seconds":0}`,
			[]string{"body.resource_name string_too_short", "body.process_id missing", "body.ttl_seconds greater_than"},
		},
		{
			"two faults in one field", with("resource_name", `"\t`+strings.Repeat("x", 255)+`"`),
			[]string{"body.resource_name string_too_long", "body.resource_name string_control_character"},
		},
	}
	for _, field := range []string{"resource_name", "process_id"} {
		for _, v := range []struct{ name, value, fault string }{
			{"number", `1`, "string_type"},
			{"bool", `true`, "string_type"},
			{"null", `null`, "string_type"},
			{"object", `{}`, "string_type"},
			{"array", `["r"]`, "string_type"},
			{"empty", `""`, "string_too_short"},
			{"256 characters", `"` + strings.Repeat("x", 256) + `"`, "string_too_long"},
			{"256 characters of four bytes", `"` + strings.Repeat("🔒", 256) + `"`, "string_too_long"},
			{"NUL", `"a\u0000b"`, "string_control_character"},
			{"line feed", `"a\n"`, "string_control_character"},
			{"unit separator", `"\u001f"`, "string_control_character"},
			{"delete", `"a\u007f"`, "string_control_character"},
			{"next line", `"a\u0085"`, "string_control_character"},
			{"last control character", "\"a\u009f\"", "string_control_character"},
		} {
			tests = append(tests,
				test{field + ": " + v.name, with(field, v.value), []string{"body." + field + " " + v.fault}})
		}
		for _, v := range []struct{ name, value string }{
			{"raw NUL", "\"a\x00\""},
			{"raw line feed", "\"a\n\""},
			{"invalid UTF-8", "\"a\xff\""},
			{"overlong UTF-8", "\"\xc0\x80\""},
			{"surrogate in UTF-8", "\"\xed\xa0\x80\""},
			{"lone high surrogate", `"\ud83d"`},
			{"lone low surrogate", `"\udd12"`},
			{"surrogates in the wrong order", `"\udd12\ud83d"`},
			{"bad escape", `"\x41"`},
			{"no quotes", `r`},
		} {
			tests = append(tests, test{field + ": " + v.name, with(field, v.value), []string{syntax}})
		}
	}
	for _, v := range []struct{ name, value, fault string }{
		{"string", `"60"`, "body.ttl_seconds float_type"},
		{"empty string", `""`, "body.ttl_seconds float_type"},
		{"bool", `true`, "body.ttl_seconds float_type"},
		{"object", `{}`, "body.ttl_seconds float_type"},
		{"array", `[60]`, "body.ttl_seconds float_type"},
		{"zero", `0`, "body.ttl_seconds greater_than"},
		{"zero, as a fraction", `0.0`, "body.ttl_seconds greater_than"},
		{"minus zero", `-0`, "body.ttl_seconds greater_than"},
		{"minus one", `-1`, "body.ttl_seconds greater_than"},
		{"less than zero", `-1e-9`, "body.ttl_seconds greater_than"},
		{"less than zero by less than a float can be", `-1e-999`, "body.ttl_seconds greater_than"},
		{"zero, with an exponent", `0.00e999`, "body.ttl_seconds greater_than"},
		{"an endless exponent", `1e999999999999999999999`, "body.ttl_seconds finite_number"},
		{"1e400", `1e400`, "body.ttl_seconds finite_number"},
		{"-1e400", `-1e400`, "body.ttl_seconds finite_number"},
		{"NaN", `NaN`, syntax},
		{"Infinity", `Infinity`, syntax},
		{"-Infinity", `-Infinity`, syntax},
		{"leading zero", `060`, syntax},
		{"leading plus", `+60`, syntax},
		{"no digit after the point", `60.`, syntax},
		{"hexadecimal", `0x3C`, syntax},
		{"just above the maximum", `3155760000.000001`, "body.ttl_seconds less_than_equal"},
		{"overflows a duration", `9223372036.854775807`, "body.ttl_seconds less_than_equal"},
		{"overflows an integer", `18446744073709551617`, "body.ttl_seconds less_than_equal"},
		{"1e300", `1e300`, "body.ttl_seconds less_than_equal"},
	} {
		tests = append(tests, test{"ttl_seconds: " + v.name, with("ttl_seconds", v.value), []string{v.fault}})
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				s.wantFaults(t, s.call(t, "POST", "/locks/request", test.body), len(test.body), test.faults...)
			})
		}
	})
}

func TestInvalidQueries(t *testing.T) {
	type test struct {
		name, method, target string
		faults               []string
	}
	const status, release, all = "/locks/status", "/locks/release", "/locks/all-locked"
	tests := []test{
		{"nothing", "GET", status, []string{"query.resource_name missing"}},
		{"nothing", "DELETE", release, []string{"query.resource_name missing", "query.process_id missing"}},
		{"no value", "GET", status + "?resource_name", []string{"query.resource_name string_too_short"}},
		{"both empty", "DELETE", release + "?resource_name=&process_id=", []string{
			"query.resource_name string_too_short", "query.process_id string_too_short",
		}},
		{"both wrong", "DELETE", release + "?resource_name=%00&process_id=%ff", []string{
			"query.resource_name string_control_character", "query.process_id string_unicode",
		}},
		{"both twice", "DELETE", release + "?resource_name=r&process_id=p&process_id=p&resource_name=r", []string{
			"query.resource_name duplicate", "query.process_id duplicate",
		}},
		{"no resource_name", "DELETE", release + "?process_id=holder", []string{"query.resource_name missing"}},
		{"no process_id", "DELETE", release + "?resource_name=kept", []string{"query.process_id missing"}},
		{
			"other case", "GET", status + "?Resource_Name=r",
			[]string{"query.resource_name missing", "query.Resource_Name misspelled_name"},
		},
		{"malformed in another parameter", "GET", status + "?resource_name=r&x=%", []string{"query query_invalid"}},
		{"malformed name", "GET", status + "?resource_name=r&%f=1", []string{"query query_invalid"}},
	}
	for _, v := range []struct{ name, value, fault string }{
		{"empty", ``, "string_too_short"},
		{"256 characters", strings.Repeat("x", 256), "string_too_long"},
		{"256 characters of four bytes", strings.Repeat("%F0%9F%94%92", 256), "string_too_long"},
		{"NUL", `a%00`, "string_control_character"},
		{"line feed", `%0A`, "string_control_character"},
		{"delete", `%7f`, "string_control_character"},
		{"next line", `%C2%85`, "string_control_character"},
		{"invalid UTF-8", `%ff`, "string_unicode"},
		{"invalid UTF-8, raw", "a\xff", "string_unicode"},
		{"cut off UTF-8", `%F0%9F%94`, "string_unicode"},
		{"overlong UTF-8", `%c0%80`, "string_unicode"},
		{"surrogate in UTF-8", `%ed%a0%80`, "string_unicode"},
	} {
		tests = append(tests,
			test{
				"resource_name: " + v.name, "GET", status + "?resource_name=" + v.value,
				[]string{"query.resource_name " + v.fault},
			},
			test{
				"resource_name: " + v.name, "DELETE", release + "?process_id=holder&resource_name=" + v.value,
				[]string{"query.resource_name " + v.fault},
			},
			test{
				"process_id: " + v.name, "DELETE", release + "?resource_name=kept&process_id=" + v.value,
				[]string{"query.process_id " + v.fault},
			})
	}
	for _, v := range []string{"%zz", "%", "%f", "a%2"} {
		tests = append(tests,
			test{"malformed " + v, "GET", status + "?resource_name=" + v, []string{"query query_invalid"}},
			test{
				"malformed " + v, "DELETE", release + "?resource_name=kept&process_id=holder&process_id=" + v,
				[]string{"query query_invalid"},
			})
	}
	for _, pair := range []string{
		"resource_name=r&resource_name=r", "resource_name=r&resource_name=",
		"resource_name&resource%5fname=r",
	} {
		tests = append(tests,
			test{"duplicate " + pair, "GET", status + "?" + pair, []string{"query.resource_name duplicate"}})
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.acquire(t, "kept", "holder", nil).want(t, 200)
		before := s.call(t, "GET", all, "").body
		for _, test := range tests {
			t.Run(test.method+" "+test.name, func(t *testing.T) {
				got := s.call(t, test.method, test.target, "").faults(t, 0)
				want := sorted(slices.Clone(test.faults)) // the tests of both databases share the list
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error("faults (-want +got):\n" + diff)
				}
				if after := s.call(t, "GET", all, "").body; after != before {
					t.Errorf("a refused request changed %s\nto %s", before, after)
				}
			})
		}
	})
}

// TestFaultsStateWhatWouldBeRight tests the sentences that state a limit.
func TestFaultsStateWhatWouldBeRight(t *testing.T) {
	tests := []struct{ name, body, message string }{
		{
			"maximum TTL", `{"resource_name":"r","process_id":"p","ttl_seconds":3155760001}`,
			"Input should be less than or equal to 3155760000",
		},
		{
			"length", `{"resource_name":"` + strings.Repeat("x", 256) + `","process_id":"p"}`,
			"String should have at most 255 characters",
		},
		{
			"control character", `{"resource_name":"a\u001bb","process_id":"p"}`,
			"String should have no control characters, found U+001B",
		},
		{"missing", `{"resource_name":"r"}`, "Field required"},
		{"zero", `{"resource_name":"r","process_id":"p","ttl_seconds":0}`, "Input should be greater than 0"},
	}
	s := realServer(t, store.SQLite)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := decode[wire.ValidationFailure](t, s.call(t, "POST", "/locks/request", test.body).want(t, 422).body)
			if len(got.Detail) != 1 || got.Detail[0].Msg != test.message {
				t.Errorf("got %+v, want one fault: %s", got.Detail, test.message)
			}
		})
	}
	if lock.MaxNameLength != 255 {
		t.Errorf("names may have %d characters, the contract says 255", lock.MaxNameLength)
	}
}

// TestPositionOfASyntaxError: loc has the position of the byte, as in FastAPI.
func TestPositionOfASyntaxError(t *testing.T) {
	s := realServer(t, store.SQLite)
	a := s.call(t, "POST", "/locks/request", `{"resource_name": x}`).want(t, 422)
	got := decode[struct{ Detail []struct{ Loc []any } }](t, a.body)
	if want := fmt.Sprintf("[body %d]", len(`{"resource_name": `)); len(got.Detail) != 1 ||
		fmt.Sprint(got.Detail[0].Loc) != want {
		t.Errorf("got %s, want loc %s", a.body, want)
	}
}
