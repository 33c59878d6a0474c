package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// exactFaults returns the faults of a 422 as "location.field type", sorted, with the
// positions in lists.
func (a answer) exactFaults(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, f := range decode[wire.ValidationFailure](t, a.want(t, 422).body).Detail {
		var loc []string
		for _, part := range f.Loc {
			loc = append(loc, fmt.Sprint(part))
		}
		list = append(list, strings.Join(loc, ".")+" "+f.Type)
	}
	slices.Sort(list)
	return list
}

// nested returns an object with the number of levels.
func nested(levels int) string {
	return strings.Repeat(`{"a":`, levels-1) + `{}` + strings.Repeat(`}`, levels-1)
}

// sized returns an object with the number of bytes.
func sized(bytes int) string { return `{"a":"` + strings.Repeat("x", bytes-len(`{"a":""}`)) + `"}` }

// bodyTest is one field that replaces the valid one of a body, and the faults of that
// body. Positions of syntax errors are not compared.
type bodyTest struct {
	name, field, value string
	faults             []string
}

var invalidTexts = []struct{ name, value, fault string }{
	{"number", `1`, "string_type"},
	{"bool", `false`, "string_type"},
	{"object", `{}`, "string_type"},
	{"array", `["x"]`, "string_type"},
	{"NUL", `"a\u0000"`, "string_control_character"},
	{"escape", `"a\u001bb"`, "string_control_character"},
}

var invalidTokens = []struct{ name, value string }{
	{"zero", `0`},
	{"minus one", `-1`},
	{"fraction", `1.5`},
	{"zero, as a fraction", `0.0`},
	{"zero, with a sign and an exponent", `-0e999999999`},
	{"minus one, as a fraction", `-1.0`},
	{"fraction with an exponent", `15e-1`},
	{"fraction far behind the point", `1.` + strings.Repeat("0", 1000) + `1`},
	{"fraction too small for a float", `1e-999999999999999999999`},
	{"string", `"1"`},
	{"bool", `true`},
	{"object", `{}`},
	{"too large", `9223372036854775808`},
	{"too large, as a fraction", `9223372036854775808.0`},
	{"too large, with an exponent", `0.9223372036854775808e19`},
	{"an endless exponent", `1e999999999999999999999`},
	{"far too large", `1e400`},
}

var invalidTTLs = []struct{ name, value, fault string }{
	{"zero", `0`, "greater_than"},
	{"minus one", `-1`, "greater_than"},
	{"string", `"60"`, "float_type"},
	{"bool", `true`, "float_type"},
	{"out of range", `1e400`, "finite_number"},
	{"above the most", `3155760001`, "less_than_equal"},
}

// wantInvalid sends bodies that are valid except for one field. Each must be refused with
// its faults and change nothing.
func wantInvalid(t *testing.T, path string, valid map[string]string, tests []bodyTest) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "kept", "holder", nil)
		before := s.state(t)
		for _, test := range tests {
			t.Run(test.field+": "+test.name, func(t *testing.T) {
				var list []string
				for name, value := range valid {
					if name != test.field {
						list = append(list, fmt.Sprintf("%q:%s", name, value))
					}
				}
				slices.Sort(list)
				if test.value != "" {
					list = append(list, fmt.Sprintf("%q:%s", test.field, test.value))
				}
				body := "{" + strings.Join(list, ",") + "}"
				a := s.call(t, "POST", path, body)
				if slices.Equal(test.faults, []string{"body.* json_invalid"}) {
					s.wantFaultsOnly(t, a, len(body), test.faults)
				} else {
					want := sorted(slices.Clone(test.faults)) // the tests of both databases share the list
					if diff := cmp.Diff(want, a.exactFaults(t)); diff != "" {
						t.Errorf("faults (-want +got):\n%s%s", diff, a.body)
					}
				}
				if diff := cmp.Diff(before, s.state(t)); diff != "" {
					t.Error("a refused request changed (-before +after):\n" + diff)
				}
			})
		}
	})
}

func (s *server) wantFaultsOnly(t *testing.T, a answer, length int, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, a.faults(t, length)); diff != "" {
		t.Errorf("faults (-want +got):\n%s%s", diff, a.body)
	}
}

func TestInvalidRequestFields(t *testing.T) {
	const syntax = "body.* json_invalid"
	tests := []bodyTest{
		{"empty", "request_id", `""`, []string{"body.request_id string_too_short"}},
		{
			"256 characters", "request_id", `"` + strings.Repeat("x", 256) + `"`,
			[]string{"body.request_id string_too_long"},
		},
		{"501 characters", "reason", `"` + strings.Repeat("🔒", 501) + `"`, []string{"body.reason string_too_long"}},
		{"two faults", "reason", `"\b` + strings.Repeat("x", 501) + `"`, []string{
			"body.reason string_control_character", "body.reason string_too_long",
		}},
		{"lone surrogate", "reason", `"\ud800"`, []string{syntax}},

		{"string", "metadata", `"{}"`, []string{"body.metadata dict_type"}},
		{"number", "metadata", `1`, []string{"body.metadata dict_type"}},
		{"bool", "metadata", `true`, []string{"body.metadata dict_type"}},
		{"array", "metadata", `[{}]`, []string{"body.metadata dict_type"}},
		{"4097 bytes", "metadata", sized(4097), []string{"body.metadata too_long"}},
		{"9 levels", "metadata", nested(9), []string{"body.metadata too_deep"}},
		{"9 levels with arrays", "metadata", `{"a":[[[[[[[[]]]]]]]]}`, []string{"body.metadata too_deep"}},
		{"too much of both", "metadata", `{"b":` + nested(8) + `,"a":"` + strings.Repeat("x", 4096) + `"}`, []string{
			"body.metadata too_deep", "body.metadata too_long",
		}},
		{"duplicate field", "metadata", `{"a":1,"a":2}`, []string{syntax}},
		{"duplicate field inside", "metadata", `{"a":{"b":1,"\u0062":2}}`, []string{syntax}},
		{"invalid UTF-8", "metadata", "{\"a\":\"\xff\"}", []string{syntax}},
		{"lone surrogate", "metadata", `{"a":"\udc00"}`, []string{syntax}},

		{"string", "min_hold_seconds", `"1"`, []string{"body.min_hold_seconds float_type"}},
		{"bool", "min_hold_seconds", `false`, []string{"body.min_hold_seconds float_type"}},
		{"minus one", "min_hold_seconds", `-1`, []string{"body.min_hold_seconds greater_than_equal"}},
		{"less than zero", "min_hold_seconds", `-1e-9`, []string{"body.min_hold_seconds greater_than_equal"}},
		{"out of range", "min_hold_seconds", `1e400`, []string{"body.min_hold_seconds finite_number"}},
		{"1e300", "min_hold_seconds", `1e300`, []string{"body.min_hold_seconds less_than_equal"}},
		{"above the TTL", "min_hold_seconds", `61`, []string{"body.min_hold_seconds less_than_equal"}},

		{"string", "wait_seconds", `"1"`, []string{"body.wait_seconds float_type"}},
		{"bool", "wait_seconds", `true`, []string{"body.wait_seconds float_type"}},
		{"object", "wait_seconds", `{}`, []string{"body.wait_seconds float_type"}},
		{"minus one", "wait_seconds", `-1`, []string{"body.wait_seconds greater_than_equal"}},
		{"less than zero", "wait_seconds", `-1e-9`, []string{"body.wait_seconds greater_than_equal"}},
		{"above the most", "wait_seconds", `300.000001`, []string{"body.wait_seconds less_than_equal"}},
		{"1e300", "wait_seconds", `1e300`, []string{"body.wait_seconds less_than_equal"}},
		{"out of range", "wait_seconds", `1e400`, []string{"body.wait_seconds finite_number"}},
		{"NaN", "wait_seconds", `NaN`, []string{syntax}},
		{"Infinity", "wait_seconds", `Infinity`, []string{syntax}},
		{"with another's", "x", `0,"wait_seconds":-1,"min_hold_seconds":"1"`, []string{
			"body.min_hold_seconds float_type", "body.wait_seconds greater_than_equal",
		}},

		{
			"a fault of each field", "x",
			`0,"request_id":1,"reason":"` + "\\b" + `","metadata":[],"min_hold_seconds":-1`,
			[]string{
				"body.request_id string_type", "body.reason string_control_character", "body.metadata dict_type",
				"body.min_hold_seconds greater_than_equal",
			},
		},
		{
			"two faults of one field beside that of another's type", "x",
			`0,"request_id":1,"reason":"\b` + strings.Repeat("x", 501) + `"`,
			[]string{
				"body.request_id string_type", "body.reason string_control_character", "body.reason string_too_long",
			},
		},
	}
	for _, field := range []string{"request_id", "reason"} {
		for _, v := range invalidTexts {
			tests = append(tests, bodyTest{v.name, field, v.value, []string{"body." + field + " " + v.fault}})
		}
	}
	wantInvalid(t, "/locks/request",
		map[string]string{"resource_name": `"r"`, "process_id": `"p"`, "ttl_seconds": `60`}, tests)
}

func TestInvalidRenewals(t *testing.T) {
	tests := []bodyTest{
		{"missing", "resource_name", ``, []string{"body.resource_name missing"}},
		{"empty", "resource_name", `""`, []string{"body.resource_name string_too_short"}},
		{"null", "process_id", `null`, []string{"body.process_id string_type"}},
		{"missing", "process_id", ``, []string{"body.process_id missing"}},
		{"missing", "ttl_seconds", ``, []string{"body.ttl_seconds missing"}},
		{"all at once", "x", `0,"fencing_token":"1"`, []string{"body.fencing_token int_type"}},
	}
	for _, v := range invalidTTLs {
		tests = append(tests, bodyTest{v.name, "ttl_seconds", v.value, []string{"body.ttl_seconds " + v.fault}})
	}
	for _, v := range invalidTokens {
		tests = append(tests, bodyTest{v.name, "fencing_token", v.value, []string{"body.fencing_token int_type"}})
	}
	for _, field := range []string{"resource_name", "process_id"} {
		for _, v := range invalidTexts {
			tests = append(tests, bodyTest{v.name, field, v.value, []string{"body." + field + " " + v.fault}})
		}
	}
	wantInvalid(t, "/locks/renew",
		map[string]string{"resource_name": `"kept"`, "process_id": `"holder"`, "ttl_seconds": `60`}, tests)
}

func TestInvalidHeartbeats(t *testing.T) {
	const shape = "model_attributes_type"
	good := `{"resource_name":"kept","fencing_token":1}`
	tests := []bodyTest{
		{"missing", "process_id", ``, []string{"body.process_id missing"}},
		{"empty", "process_id", `""`, []string{"body.process_id string_too_short"}},
		{"missing", "ttl_seconds", ``, []string{"body.ttl_seconds missing"}},
		// locks that never expire are left alone
		{"null", "ttl_seconds", `null`, []string{"body.ttl_seconds float_type"}},
		{"object", "holds", `{}`, []string{"body.holds list_type"}},
		{"string", "holds", `"kept"`, []string{"body.holds list_type"}},
		{"number", "holds", `1`, []string{"body.holds list_type"}},
		{"a number in the list", "holds", `[1]`, []string{"body.holds.0 " + shape}},
		{"null in the list", "holds", `[` + good + `,null]`, []string{"body.holds.1 " + shape}},
		{"a list in the list", "holds", `[` + good + `,[` + good + `]]`, []string{"body.holds.1 " + shape}},
		{
			"an empty object", "holds", `[{}]`,
			[]string{"body.holds.0.resource_name missing", "body.holds.0.fencing_token missing"},
		},
		{
			"no token", "holds", `[` + good + `,{"resource_name":"kept"}]`,
			[]string{"body.holds.1.fencing_token missing"},
		},
		{
			"null for a token", "holds", `[{"resource_name":"kept","fencing_token":null}]`,
			[]string{"body.holds.0.fencing_token missing"},
		},
		{"no name", "holds", `[{"fencing_token":1}]`, []string{"body.holds.0.resource_name missing"}},
		{
			"a number for a name", "holds", `[{"resource_name":7,"fencing_token":1}]`,
			[]string{"body.holds.0.resource_name string_type"},
		},
		{"an empty name", "holds", `[` + good + `,{"resource_name":"","fencing_token":1}]`, []string{
			"body.holds.1.resource_name string_too_short",
		}},
		{"a long name", "holds", `[{"resource_name":"` + strings.Repeat("x", 256) + `","fencing_token":1}]`, []string{
			"body.holds.0.resource_name string_too_long",
		}},
		{
			"a control character", "holds", `[` + good + `,` + good + `,{"resource_name":"\u0000","fencing_token":1}]`,
			[]string{
				"body.holds.2.resource_name string_control_character",
			},
		},
		{
			"faults in several, beside another's", "ttl_seconds",
			`"x","holds":[{"resource_name":"","fencing_token":1},` + good + `,{"resource_name":"","fencing_token":1}]`,
			[]string{
				"body.holds.0.resource_name string_too_short", "body.holds.2.resource_name string_too_short",
				"body.ttl_seconds float_type",
			},
		},
		{
			"faults in several", "holds",
			`[{"resource_name":"kept"},` + good + `,{"fencing_token":0,"resource_name":[]},5]`,
			[]string{
				"body.holds.0.fencing_token missing", "body.holds.2.fencing_token int_type",
				"body.holds.2.resource_name string_type",
				"body.holds.3 " + shape,
			},
		},
	}
	for _, v := range invalidTTLs {
		tests = append(tests, bodyTest{v.name, "ttl_seconds", v.value, []string{"body.ttl_seconds " + v.fault}})
	}
	for _, v := range invalidTexts {
		tests = append(tests, bodyTest{v.name, "process_id", v.value, []string{"body.process_id " + v.fault}})
	}
	for _, v := range invalidTokens {
		hold := `{"resource_name":"kept","fencing_token":` + v.value + `}`
		tests = append(tests,
			bodyTest{"token: " + v.name, "holds", "[" + hold + "]", []string{"body.holds.0.fencing_token int_type"}})
	}
	wantInvalid(t, "/locks/renew-all", map[string]string{"process_id": `"holder"`, "ttl_seconds": `60`}, tests)
}

// TestMaximaAreAllowed tests the maximum of each field.
func TestMaximaAreAllowed(t *testing.T) {
	tests := []struct{ name, field, value string }{
		{"request_id", "request_id", `"` + strings.Repeat("🔒", 255) + `"`},
		{"reason", "reason", `"` + strings.Repeat("🔒", 500) + `"`},
		{"empty reason", "reason", `""`},
		{"size of metadata", "metadata", sized(4096)},
		{
			"size of metadata, without white space", "metadata",
			strings.Repeat(" \n", 5000) + strings.Replace(sized(4096), ":", " : ", 1),
		},
		{"depth of metadata", "metadata", nested(8)},
		{"brackets in a string have no depth", "metadata", `{"a":"[[[[[[[[[[{{{{{{\"[[[["}`},
		{"many neighbours are not deep", "metadata", `{"a":[` + strings.Repeat(`[],{},`, 100) + `0]}`},
		{"min_hold_seconds", "min_hold_seconds", `3155760000`},
		{"wait_seconds", "wait_seconds", `300`},
		{"min_hold_seconds as the TTL", "ttl_seconds", `60,"min_hold_seconds":60`},
		{
			"null everywhere", "request_id",
			`null,"reason":null,"metadata":null,"min_hold_seconds":null,"ttl_seconds":null,"wait_seconds":null`,
		},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				body := fmt.Sprintf(`{"resource_name":"r%d","process_id":"p",%q:%s}`, i, test.field, test.value)
				s.call(t, "POST", "/locks/request", body).want(t, 200)
			})
		}
	})
}

// TestUnknownFieldsOfHeartbeatsAreIgnored, also in the listed holds.
func TestUnknownFieldsOfHeartbeatsAreIgnored(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		token := s.hold(t, "r", "p", nil).FencingToken
		body := `{"resource_name":"r","process_id":"p","ttl_seconds":60,"wait_seconds":"x","holds":7}`
		s.call(t, "POST", "/locks/renew", body).want(t, 200)
		hold := fmt.Sprintf(`{"resource_name":"r","fencing_token":%d,"x":{"y":null}}`, token)
		body = `{"process_id":"p","ttl_seconds":60,"resource_name":[],"holds":[` + hold + `]}`
		got := dataOf[wire.RenewedAll](t, s.call(t, "POST", "/locks/renew-all", body))
		if got.Renewed != 1 || len(got.Lost) != 0 {
			t.Errorf("got %+v", got)
		}
		for _, more := range []string{"&limit=x", "&reason=%00"} {
			s.call(t, "GET", fmt.Sprintf("/locks/validate?resource_name=r&fencing_token=%d%s", token, more),
				"").want(t, 200)
		}
		s.call(t, "GET", "/locks/all-locked?resource_name=%00&fencing_token=", "").want(t, 200)
		s.call(t, "GET", "/locks/history?prefix=%00", "").want(t, 200)
		s.call(t, "DELETE", "/locks/release-all?process_id=p&resource_name=&limit=0", "").want(t, 200)
	})
}

// TestHeartbeatsAreJSON: the bodies follow the same rules as those of /locks/request.
func TestHeartbeatsAreJSON(t *testing.T) {
	s := realServer(t, store.SQLite)
	for _, path := range []string{"/locks/renew", "/locks/renew-all"} {
		t.Run(path, func(t *testing.T) {
			req := s.request(t, "POST", path, `{}`)
			req.Header.Set("Content-Type", "text/plain")
			s.do(t, req).wantCode(t, 415, wire.CodeUnsupportedMedia)
			s.call(t, "POST", path, strings.Repeat(" ", 64<<10)+`{}`).wantCode(t, 413, wire.CodeBodyTooLarge)
			for _, body := range []string{"null", "[]", `"x"`, "1"} {
				if got := s.call(t, "POST", path, body).exactFaults(t); !slices.Equal(got,
					[]string{"body model_attributes_type"}) {
					t.Errorf("%s: %q", body, got)
				}
			}
			if got := s.call(t, "POST", path, "").exactFaults(t); !slices.Equal(got, []string{"body missing"}) {
				t.Errorf("without a body: %q", got)
			}
		})
	}
}
