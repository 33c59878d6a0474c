package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestMisspelledNames: a client that sends a nearly correct name believes that it has an
// effect.
func TestMisspelledNames(t *testing.T) {
	const acquire, all = "/locks/request", "/locks/renew-all"
	tests := []struct{ method, path, more, right string }{
		{"POST", acquire, `"ttl":30`, "ttl_seconds"},
		{"POST", acquire, `"ttlSeconds":30`, "ttl_seconds"},
		{"POST", acquire, `"ttl_sec":30`, "ttl_seconds"},
		{"POST", acquire, `"ttl_ms":30000`, "ttl_seconds"},
		{"POST", acquire, `"TTL":30`, "ttl_seconds"},
		{"POST", acquire, `"ttl":30,"ttl_seconds":30`, "ttl_seconds"},
		{"POST", acquire, `"\u0074tl":30`, "ttl_seconds"},
		{"POST", acquire, `"wait":30`, "wait_seconds"},
		{"POST", acquire, `"wait-seconds":30`, "wait_seconds"},
		{"POST", acquire, `"min_hold":30`, "min_hold_seconds"},
		{"POST", acquire, `"min_hold_secs":30`, "min_hold_seconds"},
		{"POST", acquire, `"requestId":"x"`, "request_id"},
		{"POST", acquire, `"Reason":"x"`, "reason"},
		{"POST", acquire, `"meta_data":{}`, "metadata"},
		{"POST", acquire, `"ressource_name":null`, "resource_name"},
		{"POST", acquire, `"prosess_id":"p"`, "process_id"},
		{"POST", "/locks/renew", `"ttl_seconds":60,"token":1`, "fencing_token"},
		{"POST", "/locks/renew", `"ttl_seconds":60,"FencingToken":1`, "fencing_token"},
		{"POST", all, `"ttl_seconds":60,"Holds":[]`, "holds"},
		{
			"POST", all,
			`"ttl_seconds":60,"holds":[{"resource_name":"kept","fencing_token":1},{"resource_name":"kept","fencing_token":1,"fencing_tokens":2}]`, "fencing_token",
		},
		{"POST", all, `"ttl_seconds":60,"holds":[{"resource_name":"kept","token":1}]`, "fencing_token"},
		{"POST", "/locks/release", `"token":1`, "fencing_token"},
		{"POST", "/locks/force-release", `"reason":"x","fencing_tok":1`, "fencing_token"},
		{"POST", "/locks/release-all", `"holds":[{"resource_name":"kept","token":1}]`, "fencing_token"},
		{"DELETE", "/locks/release", `token=1`, "fencing_token"},
		{"DELETE", "/locks/release", `fencing%2Dtoken=1`, "fencing_token"},
		{"DELETE", "/locks/release", `fencing_tokne=1&fencing_tokne=2`, "fencing_token"},
		{"DELETE", "/locks/release", `Fencing_Token=1&fencing_token=1`, "fencing_token"},
		{"DELETE", "/locks/force-release", `reason=x&process_i=ops`, "process_id"},
		{"DELETE", "/locks/release-all", `process_ID=q`, "process_id"},
		{"GET", "/locks/all-locked", `Prefix=x`, "prefix"},
		{"GET", "/locks/all-locked", `LIMIT=1`, "limit"},
		{"GET", "/locks/history", `resource=kept`, "resource_name"},
		{"GET", "/locks/queue", `cursors=x`, "cursor"},
	}
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "kept", "holder", nil)
		before := s.state(t)
		for _, test := range tests {
			t.Run(test.path+" "+test.more, func(t *testing.T) {
				var a answer
				if test.method == http.MethodPost {
					a = s.call(t, test.method, test.path,
						`{"resource_name":"kept","process_id":"holder",`+test.more+`}`)
				} else {
					a = s.call(t, test.method, test.path+"?resource_name=kept&process_id=holder&"+test.more, "")
				}
				wantMisspelled(t, a, test.right)
				if after := s.state(t); after != before {
					t.Errorf("a refused request changed %s\nto %s", before, after)
				}
			})
		}
	})
}

// TestMisspelledNamesInTheQueryOfPost: they are refused like the correct names.
func TestMisspelledNamesInTheQueryOfPost(t *testing.T) {
	const body = `{"resource_name":"kept","process_id":"holder"}`
	s := realServer(t, store.SQLite)
	s.hold(t, "kept", "holder", nil)
	wantMisspelled(t, s.call(t, "POST", "/locks/release?token=1", body), "fencing_token")
	wantMisspelled(t, s.call(t, "POST", "/locks/release?resource=kept&process=holder", ""), "resource_name")
	wantMisspelled(t, s.call(t, "POST", "/locks/request?ttl=30", `{"resource_name":"other","process_id":"holder"}`),
		"ttl_seconds")
	s.call(t, "POST", "/locks/release?trace=1", body).want(t, 200)
}

// wantMisspelled fails the test unless a 422 states the correct name.
func wantMisspelled(t *testing.T, a answer, right string) {
	t.Helper()
	for _, f := range decode[wire.ValidationFailure](t, a.want(t, 422).body).Detail {
		if f.Type == "misspelled_name" && strings.Contains(f.Msg, "'"+right+"'") {
			return
		}
	}
	t.Errorf("got %s, want misspelled_name with '%s'", a.body, right)
}

// TestThousandsOfUnknownNames: not all of them are compared for typing errors. A name
// with the words of the correct name is still found among them.
func TestThousandsOfUnknownNames(t *testing.T) {
	var body strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&body, `"ttl_sec%05d":0,`, i)
	}
	s := realServer(t, store.SQLite)
	s.call(t, "POST", "/locks/request", `{`+body.String()+`"resource_name":"r","process_id":"p"}`).want(t, 200)
	a := s.call(t, "POST", "/locks/request", `{`+body.String()+`"resource_name":"s","process_id":"p","TTL":30}`)
	wantMisspelled(t, a, "ttl_seconds")
}

// TestMetadataIsTheCallersOwn: names in metadata are not checked.
func TestMetadataIsTheCallersOwn(t *testing.T) {
	s := realServer(t, store.SQLite)
	metadata := fields{"ttl": 1, "Token": 2, "process": fields{"requestId": "x"}}
	s.acquireWith(t, "r", "p", fields{"metadata": metadata}).want(t, 200)
}

// TestEveryNameHasItsNearMisses: each operation refuses the near misses of every name in
// the document.
func TestEveryNameHasItsNearMisses(t *testing.T) {
	s := realServer(t, store.SQLite)
	answered := answeredNames(t)
	operations(t, func(method, path string, o *openapi3.Operation) {
		known := knownNames(o)
		for _, right := range known {
			for _, given := range nearMisses(right) {
				if slices.Contains(known, given) || answered[given] {
					continue
				}
				wantMisspelled(t, s.sendName(t, method, path, given), right)
			}
		}
	})
}

// TestNamesOfOurAnswersAreNotMisspelled: a client may send a response back.
func TestNamesOfOurAnswersAreNotMisspelled(t *testing.T) {
	s := realServer(t, store.SQLite)
	names := slices.Sorted(maps.Keys(answeredNames(t)))
	operations(t, func(method, path string, _ *openapi3.Operation) {
		for _, name := range names {
			if a := s.sendName(t, method, path, name); strings.Contains(a.body, "misspelled_name") {
				t.Errorf("%s %s refuses %s: %s", method, path, name, a.body)
			}
		}
	})
	var items []string
	for _, name := range names {
		items = append(items, fmt.Sprintf(`{%q:null}`, name))
	}
	a := s.call(t, "POST", "/locks/renew-all",
		`{"process_id":"p","ttl_seconds":60,"holds":[`+strings.Join(items, ",")+`]}`)
	if strings.Contains(a.body, "misspelled_name") {
		t.Errorf("in holds: %s", a.body)
	}
}

// sendName sends a request that has only one name.
func (s *server) sendName(t *testing.T, method, path, name string) answer {
	t.Helper()
	if method == http.MethodPost {
		return s.call(t, method, path, fields{name: map[string]any(nil)}.json(t))
	}
	return s.call(t, method, path+"?"+url.QueryEscape(name)+"=", "")
}

// knownNames returns the names of the fields or parameters of an operation.
func knownNames(o *openapi3.Operation) []string {
	var names []string
	for _, p := range o.Parameters {
		names = append(names, p.Value.Name)
	}
	if o.RequestBody != nil {
		names = slices.AppendSeq(names,
			maps.Keys(o.RequestBody.Value.Content["application/json"].Schema.Value.Properties))
	}
	return names
}

// nearMisses returns some near misses of a name.
func nearMisses(name string) []string {
	words := strings.Split(name, "_")
	camel := words[0]
	for _, word := range words[1:] {
		camel += strings.ToUpper(word[:1]) + word[1:]
	}
	list := []string{
		strings.ToUpper(name), camel, strings.ToUpper(camel[:1]) + camel[1:],
		strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(name, "_", ""), "_" + name,
	}
	for _, ending := range []string{"_seconds", "_name", "_id"} {
		if stem, found := strings.CutSuffix(name, ending); found {
			list = append(list, stem, strings.ToUpper(stem))
		}
	}
	if stem, found := strings.CutPrefix(name, "fencing_"); found {
		list = append(list, stem)
	}
	if len(name) < 6 {
		return list
	}
	for i := 0; i < len(name)-1; i += 3 {
		list = append(list,
			name[:i]+name[i+1:],                           // a character is missing
			name[:i]+name[i:i+1]+name[i:],                 // a character is doubled
			name[:i]+name[i+1:i+2]+name[i:i+1]+name[i+2:], // two characters are swapped
			name[:i]+"x"+name[i+1:],                       // a character is replaced
		)
	}
	return list
}

// answeredNames returns the names of all fields of all responses.
func answeredNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	var collect func(schema *openapi3.SchemaRef)
	collect = func(schema *openapi3.SchemaRef) {
		if schema == nil {
			return
		}
		for name, property := range schema.Value.Properties {
			names[name] = true
			collect(property)
		}
		collect(schema.Value.Items)
	}
	operations(t, func(_, _ string, o *openapi3.Operation) {
		for _, response := range o.Responses.Map() {
			collect(response.Value.Content["application/json"].Schema)
		}
	})
	if !names["waited_seconds"] || !names["expires_in_seconds"] || !names["detail"] {
		t.Fatalf("got %v", names)
	}
	return names
}
