package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/wire"
)

// TestNamesNeedNoEncodingInABody: a name in JSON acquires and releases the same resource.
func TestNamesNeedNoEncodingInABody(t *testing.T) {
	names := []string{"c++-build", "a&b=c", "50%", "50%25", "a b", "ü#?/", "%2B", "+"}
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				own := fields{"resource_name": name, "process_id": name}
				token := s.hold(t, name, name, nil).FencingToken
				a := s.post(t, "/locks/release", own)
				if got := dataOf[wire.Released](t, a); got.ResourceName != name || got.ProcessID != name {
					t.Errorf("got %+v", got)
				}
				s.post(t, "/locks/release", own).wantCode(t, 404, wire.CodeAlreadyReleased)
				own["fencing_token"] = token
				s.post(t, "/locks/release", own).wantCode(t, 404, wire.CodeAlreadyReleased)

				own["fencing_token"] = s.hold(t, name, name, nil).FencingToken
				s.post(t, "/locks/release", own).want(t, 200)

				s.hold(t, name, name, nil)
				if got := dataOf[wire.ReleasedAll](t,
					s.post(t, "/locks/release-all", fields{"process_id": name})); got.Released != 1 {
					t.Errorf("got %+v", got)
				}
				s.hold(t, name, name, nil)
				got := dataOf[wire.ForceReleased](t, s.post(t, "/locks/force-release",
					fields{"resource_name": name, "reason": "a+b", "process_id": "c++"}))
				if got.ResourceName != name || got.Reason != "a+b" || got.By != "c++" {
					t.Errorf("got %+v", got)
				}

				// The same works with a percent-encoded query.
				s.hold(t, name, name, nil)
				s.release(t, name, name).want(t, 200)
			})
		}
	})
}

// TestBothFormsAnswerAlike: a body and a query with the same content get the same faults
// and messages.
func TestBothFormsAnswerAlike(t *testing.T) {
	requests := []fields{
		{"resource_name": "r", "process_id": "p", "reason": "x"},
		{"resource_name": "", "process_id": "", "reason": ""},
		{
			"resource_name": strings.Repeat("x", 256), "process_id": strings.Repeat("x", 256),
			"reason": strings.Repeat("x", 501),
		},
		{"process_id": "p"},
		{"resource_name": "r"},
		{},
		{"resource_name": "r", "process_id": "p", "reason": "x", "fencing_token": 1},
		{"resource_name": "a\x00", "process_id": "a\x00", "reason": "a\x00"},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, path := range []string{"/locks/release", "/locks/release-all", "/locks/force-release"} {
			for i, request := range requests {
				t.Run(fmt.Sprint(path, i), func(t *testing.T) {
					values := url.Values{}
					for name, value := range request {
						values.Set(name, fmt.Sprint(value))
					}
					byQuery := s.call(t, http.MethodDelete, path+"?"+values.Encode(), "")
					byBody := s.post(t, path, request)
					want := strings.ReplaceAll(byQuery.body, `["query",`, `["body",`)
					if diff := cmp.Diff(want, byBody.body); diff != "" || byQuery.status != byBody.status {
						t.Errorf("status %d and %d (-DELETE +POST):\n%s", byQuery.status, byBody.status, diff)
					}
				})
			}
		}
	})
}

// TestFieldsInTheWrongPlace: a field in the part of the request that the operation does
// not read is refused. An unknown name is ignored there, too.
func TestFieldsInTheWrongPlace(t *testing.T) {
	const forbidden = " extra_forbidden"
	tests := []struct {
		name, method, target, body string
		faults                     []string
	}{
		{
			"release", "POST", "/locks/release?fencing_token=1", `{"resource_name":"kept","process_id":"holder"}`,
			[]string{"query.fencing_token" + forbidden},
		},
		{
			"release, of another", "POST", "/locks/release?resource_name=x",
			`{"resource_name":"kept","process_id":"holder"}`,
			[]string{"query.resource_name" + forbidden},
		},
		{"release, all in the query", "POST", "/locks/release?resource_name=kept&process_id=holder", ``, []string{
			"body.resource_name missing", "body.process_id missing", "query.resource_name" + forbidden,
			"query.process_id" + forbidden,
		}},
		{
			"release all", "POST", "/locks/release-all?holds=1", `{"process_id":"holder"}`,
			[]string{"query.holds" + forbidden},
		},
		{
			"force-release", "POST", "/locks/force-release?fencing_token=1", `{"resource_name":"kept","reason":"x"}`,
			[]string{"query.fencing_token" + forbidden},
		},
		{
			"request", "POST", "/locks/request?ttl_seconds=60", `{"resource_name":"r","process_id":"p"}`,
			[]string{"query.ttl_seconds" + forbidden},
		},
		{
			"request, twice", "POST", "/locks/request?wait_seconds=60&wait_seconds=&request_id=",
			`{"resource_name":"r","process_id":"p"}`,
			[]string{
				"query.wait_seconds" + forbidden, "query.request_id" + forbidden,
			},
		},
		{
			"renew", "POST", "/locks/renew?fencing_token=1",
			`{"resource_name":"kept","process_id":"holder","ttl_seconds":60}`,
			[]string{"query.fencing_token" + forbidden},
		},
		{
			"renew all", "POST", "/locks/renew-all?holds=", `{"process_id":"holder","ttl_seconds":60}`,
			[]string{"query.holds" + forbidden},
		},
		{
			"beside another fault", "POST", "/locks/renew?fencing_token=1",
			`{"resource_name":"kept","process_id":"","ttl_seconds":60}`,
			[]string{
				"query.fencing_token" + forbidden, "body.process_id string_too_short",
			},
		},

		{
			"release", "DELETE", "/locks/release?resource_name=kept&process_id=holder", `{"fencing_token":1}`,
			[]string{"body" + forbidden},
		},
		{
			"release, an empty object", "DELETE", "/locks/release?resource_name=kept&process_id=holder", `{}`,
			[]string{"body" + forbidden},
		},
		{
			"release, all in the body", "DELETE", "/locks/release", `{"resource_name":"kept","process_id":"holder"}`,
			[]string{
				"body" + forbidden, "query.resource_name missing", "query.process_id missing",
			},
		},
		{"release all", "DELETE", "/locks/release-all?process_id=holder", `{"holds":[]}`, []string{"body" + forbidden}},
		{
			"force-release", "DELETE", "/locks/force-release?resource_name=kept&reason=x", `{"fencing_token":1}`,
			[]string{"body" + forbidden},
		},
		{"status", "GET", "/locks/status?resource_name=kept", `{}`, []string{"body" + forbidden}},
		{"list", "GET", "/locks/all-locked", `{"prefix":"x"}`, []string{"body" + forbidden}},
		{"history", "GET", "/locks/history", `{"limit":1}`, []string{"body" + forbidden}},
		{"queue", "GET", "/locks/queue?resource_name=kept", `x`, []string{"body" + forbidden}},
		{"validate", "GET", "/locks/validate?resource_name=kept&fencing_token=1", ` `, []string{"body" + forbidden}},
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "kept", "holder", nil)
		before := s.state(t)
		for _, test := range tests {
			for _, chunked := range []bool{false, true} {
				if chunked && test.body == "" {
					continue
				}
				t.Run(fmt.Sprint(test.method, " ", test.name, ", chunked ", chunked), func(t *testing.T) {
					req := s.request(t, test.method, test.target, test.body)
					if chunked {
						req.ContentLength = -1
					}
					if diff := cmp.Diff(sorted(test.faults), s.do(t, req).exactFaults(t)); diff != "" {
						t.Error("faults (-want +got):\n" + diff)
					}
					if diff := cmp.Diff(before, s.state(t)); diff != "" {
						t.Error("a refused request changed (-before +after):\n" + diff)
					}
				})
			}
		}
		// An empty body is no body, however its length is declared. A query parameter
		// that is not the name of a field is ignored.
		req := s.request(t, http.MethodGet, "/locks/status?resource_name=kept", "")
		req.Body, req.ContentLength = http.NoBody, -1
		s.do(t, req).want(t, 200)
		s.post(t, "/locks/renew?trace=1&x",
			fields{"resource_name": "kept", "process_id": "holder", "ttl_seconds": 60}).want(t, 200)
		s.post(t, "/locks/release?trace=%zz", fields{"resource_name": "kept", "process_id": "holder"}).want(t, 200)
	})
}
