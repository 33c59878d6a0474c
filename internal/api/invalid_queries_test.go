package api_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInvalidParameters: each request is refused with its faults and changes nothing.
func TestInvalidParameters(t *testing.T) {
	type test struct {
		name, method, target string
		faults               []string
	}
	const (
		release  = "/locks/release?resource_name=kept&process_id=holder"
		all      = "/locks/release-all"
		force    = "/locks/force-release"
		validate = "/locks/validate"
		list     = "/locks/all-locked"
		history  = "/locks/history"
		queue    = "/locks/queue?resource_name=kept"
	)
	long := strings.Repeat("x", 256)
	cursor := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	tests := []test{
		{"nothing", "DELETE", all, []string{"query.process_id missing"}},
		{"empty", "DELETE", all + "?process_id=", []string{"query.process_id string_too_short"}},
		{"long", "DELETE", all + "?process_id=" + long, []string{"query.process_id string_too_long"}},
		{
			"control character", "DELETE", all + "?process_id=holder%00",
			[]string{"query.process_id string_control_character"},
		},
		{"twice", "DELETE", all + "?process_id=holder&process_id=holder", []string{"query.process_id duplicate"}},
		{"malformed", "DELETE", all + "?process_id=holder&x=%zz", []string{"query query_invalid"}},

		{"nothing", "DELETE", force, []string{"query.resource_name missing", "query.reason missing"}},
		{"no reason", "DELETE", force + "?resource_name=kept", []string{"query.reason missing"}},
		{"empty reason", "DELETE", force + "?resource_name=kept&reason=", []string{"query.reason string_too_short"}},
		{
			"long reason", "DELETE", force + "?resource_name=kept&reason=" + strings.Repeat("x", 501),
			[]string{"query.reason string_too_long"},
		},
		{
			"control character in the reason", "DELETE", force + "?resource_name=kept&reason=a%1Bb",
			[]string{"query.reason string_control_character"},
		},
		{
			"invalid UTF-8 in the reason", "DELETE", force + "?resource_name=kept&reason=%ff",
			[]string{"query.reason string_unicode"},
		},
		{"reason twice", "DELETE", force + "?resource_name=kept&reason=a&reason=a", []string{"query.reason duplicate"}},
		{"no resource", "DELETE", force + "?reason=x", []string{"query.resource_name missing"}},
		{
			"empty resource", "DELETE", force + "?reason=x&resource_name=",
			[]string{"query.resource_name string_too_short"},
		},
		{
			"resource twice", "DELETE", force + "?reason=x&resource_name=kept&resource_name=kept",
			[]string{"query.resource_name duplicate"},
		},
		{
			"long process", "DELETE", force + "?reason=x&resource_name=kept&process_id=" + long,
			[]string{"query.process_id string_too_long"},
		},
		{
			"process twice", "DELETE", force + "?reason=x&resource_name=kept&process_id=a&process_id=a",
			[]string{"query.process_id duplicate"},
		},
		{"one missing, one wrong", "DELETE", force + "?resource_name=kept%00", []string{
			"query.reason missing", "query.resource_name string_control_character",
		}},

		{"nothing", "GET", validate, []string{"query.resource_name missing", "query.fencing_token missing"}},
		{"no token", "GET", validate + "?resource_name=kept", []string{"query.fencing_token missing"}},
		{"no resource", "GET", validate + "?fencing_token=1", []string{"query.resource_name missing"}},
		{
			"token twice", "GET", validate + "?resource_name=kept&fencing_token=1&fencing_token=1",
			[]string{"query.fencing_token duplicate"},
		},
		{"both wrong", "GET", validate + "?resource_name=&fencing_token=x", []string{
			"query.resource_name string_too_short", "query.fencing_token int_parsing",
		}},

		{"long prefix", "GET", list + "?prefix=" + long, []string{"query.prefix string_too_long"}},
		{
			"control character in the prefix", "GET", list + "?prefix=%1F",
			[]string{"query.prefix string_control_character"},
		},
		{"invalid UTF-8 in the prefix", "GET", list + "?prefix=a%ff", []string{"query.prefix string_unicode"}},
		{"prefix twice", "GET", list + "?prefix=a&prefix=b", []string{"query.prefix duplicate"}},
		{
			"all twice", "GET",
			list + "?prefix=a&prefix=a&process_id=p&process_id=p&limit=1&limit=1&cursor=MQ&cursor=MQ",
			[]string{
				"query.prefix duplicate", "query.process_id duplicate", "query.limit duplicate", "query.cursor duplicate",
			},
		},
		{"all wrong", "GET", list + "?prefix=%00&process_id=%00&limit=0&cursor=", []string{
			"query.prefix string_control_character", "query.process_id string_control_character",
			"query.limit int_parsing",
			"query.cursor cursor_invalid",
		}},
		{"long resource", "GET", history + "?resource_name=" + long, []string{"query.resource_name string_too_long"}},
		{
			"control character in it", "GET", history + "?resource_name=a%00",
			[]string{"query.resource_name string_control_character"},
		},
		{
			"resource twice", "GET", history + "?resource_name=a&resource_name=a",
			[]string{"query.resource_name duplicate"},
		},
		{"all wrong", "GET", history + "?resource_name=%00&process_id=%ff&limit=0&cursor=", []string{
			"query.resource_name string_control_character", "query.process_id string_unicode",
			"query.limit int_parsing",
			"query.cursor cursor_invalid",
		}},
	}
	tests = append(tests, []test{
		{"nothing", "GET", "/locks/queue", []string{"query.resource_name missing"}},
		{"empty", "GET", "/locks/queue?resource_name=", []string{"query.resource_name string_too_short"}},
		{"long", "GET", "/locks/queue?resource_name=" + long, []string{"query.resource_name string_too_long"}},
		{
			"control character", "GET", "/locks/queue?resource_name=kept%00",
			[]string{"query.resource_name string_control_character"},
		},
		{"invalid UTF-8", "GET", "/locks/queue?resource_name=%ff", []string{"query.resource_name string_unicode"}},
		{"twice", "GET", queue + "&resource_name=kept", []string{"query.resource_name duplicate"}},
		{"all wrong", "GET", "/locks/queue?limit=0&cursor=", []string{
			"query.resource_name missing", "query.limit int_parsing", "query.cursor cursor_invalid",
		}},
	}...)
	for _, value := range []string{
		"", "yesterday", "2024-01-15", "2024-01-15T10:30:00", "2024-01-15 10:30:00Z", "2024-01-15T10:30:00+0100",
		"1705314600",
		"2024-01-15T24:30:00Z", "2024-02-30T10:30:00Z", "2024-01-15t10:30:00z", "10000-01-01T00:00:00Z",
		"2024-01-15T10:30:00Z ", "%00",
	} {
		for _, name := range []string{"since", "until"} {
			tests = append(tests, test{
				name + " " + value, "GET", history + "?" + name + "=" + value,
				[]string{"query." + name + " datetime_parsing"},
			})
		}
	}
	for _, value := range []string{
		"", "release", "Released", "released,", ",", "released, expired",
		"released;expired", "renewed", "%00",
	} {
		tests = append(tests, test{"event " + value, "GET", history + "?event=" + value, []string{"query.event enum"}})
	}
	tests = append(tests, []test{
		{"event twice", "GET", history + "?event=released&event=released", []string{"query.event duplicate"}},
		{
			"since twice", "GET", history + "?since=2024-01-15T10:30:00Z&since=2024-01-15T10:30:00Z",
			[]string{"query.since duplicate"},
		},
		{
			"no time", "GET", history + "?since=2024-01-15T10:30:00Z&until=2024-01-15T11:30:00%2B01:00",
			[]string{"query.until greater_than"},
		},
		{
			"times the wrong way round", "GET", history + "?since=2024-01-16T10:30:00Z&until=2024-01-15T11:30:00Z",
			[]string{"query.until greater_than"},
		},
	}...)
	for _, value := range []string{
		"", "abc", "0", "-1", "-0", "1.5", "15e-1", "-1.0", "0.0", "0x10", "1_000", " 1", "1%20", "+1", "1.0+",
		"9223372036854775808", "%00", "١",
		".5", "1.", "1e", "e3", "1e1e1", "1.0.0", "1%2C0", "Inf", "NaN", "9223372036854775808.0", "1e19",
		"1e999999999", "1e-999999999",
	} {
		fault := []string{"query.fencing_token int_parsing"}
		tests = append(tests,
			test{"token " + value, "GET", validate + "?resource_name=kept&fencing_token=" + value, fault},
			test{"token " + value, "DELETE", release + "&fencing_token=" + value, fault})
	}
	for _, path := range []string{list + "?", history + "?", queue + "&"} {
		for _, value := range []string{
			"", "abc", "0", "-1", "1001", "1.5", "1e4", "1e-1", "1001.0",
			"99999999999999999999", " 1", "%00",
		} {
			tests = append(tests,
				test{"limit " + value, "GET", path + "limit=" + value, []string{"query.limit int_parsing"}})
		}
		for _, value := range []string{
			"", "x", "!!!", "MQ==", "%00", "1", "é", long,
			cursor(""), cursor("0"), cursor("-1"), cursor("1.5"), cursor("zzzzzzzzzzzzzz"), cursor(" 1"),
		} {
			tests = append(tests,
				test{"cursor " + value, "GET", path + "cursor=" + value, []string{"query.cursor cursor_invalid"}})
		}
	}
	for _, path := range []string{list, history} {
		tests = append(tests,
			test{"long process", "GET", path + "?process_id=" + long, []string{"query.process_id string_too_long"}},
			test{"process twice", "GET", path + "?process_id=p&process_id=p", []string{"query.process_id duplicate"}},
			test{"malformed", "GET", path + "?limit=1&%zz", []string{"query query_invalid"}})
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "kept", "holder", nil)
		before := s.state(t)
		for _, test := range tests {
			t.Run(test.method+" "+test.target[:min(len(test.target), 30)]+" "+test.name, func(t *testing.T) {
				a := s.call(t, test.method, strings.ReplaceAll(test.target, " ", "%20"), "")
				want := sorted(slices.Clone(test.faults)) // the tests of both databases share the list
				if diff := cmp.Diff(want, a.exactFaults(t)); diff != "" {
					t.Errorf("faults (-want +got):\n%s%s", diff, a.body)
				}
				if diff := cmp.Diff(before, s.state(t)); diff != "" {
					t.Error("a refused request changed (-before +after):\n" + diff)
				}
			})
		}
	})
}
