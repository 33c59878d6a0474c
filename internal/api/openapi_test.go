package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/docs"
	"resource-lock-manager/internal/wire"
)

// document is docs.OpenAPI, made strict: a response may have no field that is not in the
// document. It has no server URL.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(docs.OpenAPI))
	if err != nil {
		return nil, err
	}
	doc.Servers = nil
	for _, schema := range doc.Components.Schemas {
		if schema.Value.Type.Is("object") {
			schema.Value.AdditionalProperties.Has = new(false)
		}
	}
	return doc, doc.Validate(context.Background())
})

var documentRoutes = sync.OnceValues(func() (routers.Router, error) {
	doc, err := document()
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// checkAgainstDocument returns how a response differs from what the document states for
// the operation.
func checkAgainstDocument(req *http.Request, a answer) error {
	routes, err := documentRoutes()
	if err != nil {
		return err
	}
	normal := req.Clone(req.Context())
	if !strings.Contains(strings.ToLower(req.URL.RawPath), "%2f") { // another spelling is the same operation
		normal.URL.Path, normal.URL.RawPath = path.Clean(req.URL.Path), ""
	}
	route, params, err := routes.FindRoute(normal)
	switch {
	case err == nil:
	case !errors.Is(err, routers.ErrPathNotFound) && !errors.Is(err, routers.ErrMethodNotAllowed):
		return err
	case a.status >= 200 && a.status < 300 && !isPage(normal.URL.Path) && req.Method != http.MethodHead:
		return errors.New("the operation is not documented, but it succeeded")
	default:
		return nil
	}
	return openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 a.status,
		Header:                 a.header,
		Body:                   io.NopCloser(strings.NewReader(a.body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
}

// isPage reports whether a path belongs to the documentation itself.
func isPage(path string) bool {
	return path == "/openapi.json" || path == "/docs" || strings.HasPrefix(path, "/docs/") ||
		path == "/redoc" || strings.HasPrefix(path, "/redoc/")
}

// operations calls f with every documented operation.
func operations(t *testing.T, f func(method, path string, o *openapi3.Operation)) {
	t.Helper()
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			f(method, path, o)
		}
	}
}

func TestDocumentedStatuses(t *testing.T) {
	want := map[string][]string{
		"POST /locks/request":         {"200", "409", "413", "415", "422", "500", "503"},
		"DELETE /locks/release":       {"200", "404", "422", "500", "503"},
		"POST /locks/renew":           {"200", "404", "413", "415", "422", "500", "503"},
		"POST /locks/renew-all":       {"200", "413", "415", "422", "500", "503"},
		"DELETE /locks/release-all":   {"200", "422", "500", "503"},
		"DELETE /locks/force-release": {"200", "404", "422", "500", "503"},
		"POST /locks/release":         {"200", "404", "413", "415", "422", "500", "503"},
		"POST /locks/release-all":     {"200", "413", "415", "422", "500", "503"},
		"POST /locks/force-release":   {"200", "404", "413", "415", "422", "500", "503"},
		"GET /locks/status":           {"200", "422", "500", "503"},
		"GET /locks/queue":            {"200", "422", "500", "503"},
		"GET /locks/validate":         {"200", "422", "500", "503"},
		"GET /locks/all-locked":       {"200", "422", "500", "503"},
		"GET /locks/history":          {"200", "422", "500", "503"},
		"GET /health":                 {"200"},
		"GET /livez":                  {"200"},
		"GET /readyz":                 {"200", "503"},
	}
	got := map[string][]string{}
	operations(t, func(method, path string, o *openapi3.Operation) {
		got[method+" "+path] = slices.Sorted(maps.Keys(o.Responses.Map()))
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("documented statuses (-want +got):\n" + diff)
	}
}

func TestEveryOperationIsExplained(t *testing.T) {
	operations(t, func(method, path string, o *openapi3.Operation) {
		if o.Summary == "" {
			t.Errorf("%s %s has no summary", method, path)
		}
		for _, p := range o.Parameters {
			if p.Value.Description == "" {
				t.Errorf("%s %s: parameter %s has no description", method, path, p.Value.Name)
			}
			// Swagger UI would send the value.
			prefilled := p.Value.Example != nil || p.Value.Schema.Value.Default != nil
			if prefilled != p.Value.Required {
				t.Errorf("%s %s: parameter %s: required %t, prefilled %t", method, path, p.Value.Name,
					p.Value.Required, prefilled)
			}
		}
		if o.RequestBody != nil && o.RequestBody.Value.Content["application/json"].Example == nil {
			t.Errorf("%s %s: the body has no example", method, path)
		}
		for status, response := range o.Responses.Map() {
			content := response.Value.Content["application/json"]
			if content == nil || content.Example == nil {
				t.Errorf("%s %s: status %s has no example", method, path, status)
				continue
			}
			// The document is strict, so that an example cannot have a field that no
			// schema has.
			if err := content.Schema.Value.VisitJSON(content.Example); err != nil {
				t.Errorf("%s %s: the example of status %s: %v", method, path, status, err)
			}
		}
	})
}

// TestDocumentedOperationsExist: every documented operation is served.
func TestDocumentedOperationsExist(t *testing.T) {
	s := realServer(t, "sqlite")
	operations(t, func(method, path string, _ *openapi3.Operation) {
		if a := s.call(t, method, path, ""); a.status == http.StatusNotFound ||
			a.status == http.StatusMethodNotAllowed {
			t.Errorf("%s %s is documented and returns %d", method, path, a.status)
		}
	})
}

// TestDocumentCheckIsStrict proves that the check of every response in this package can
// fail: each documented example passes, and each modification that makes it invalid does
// not.
func TestDocumentCheckIsStrict(t *testing.T) {
	operations(t, func(method, path string, o *openapi3.Operation) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkFrom := func(database string, status int, body any) error {
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{"Content-Type": {"application/json"}}
			if database != "" {
				header.Set(wire.DatabaseHeader, database)
			}
			return checkAgainstDocument(req, answer{status, header, string(text)})
		}
		check := func(status int, body any) error { return checkFrom(databaseID, status, body) }
		for code, response := range o.Responses.Map() {
			var status int
			if _, err := fmt.Sscan(code, &status); err != nil {
				t.Fatal(err)
			}
			example := response.Value.Content["application/json"].Example
			if err := check(status, example); err != nil {
				t.Errorf("%s %s %s: the example is refused: %v", method, path, code, err)
			}
			for _, database := range []string{"", "not an id"} {
				if checkFrom(database, status, example) == nil {
					t.Errorf("%s %s %s: a response from the database %q passes", method, path, code, database)
				}
			}
			forms := invalidCopies(t, example)
			if len(forms) < 3 {
				t.Errorf("%s %s %s: only %d invalid copies", method, path, code, len(forms))
			}
			for what, body := range forms {
				if check(status, body) == nil {
					t.Errorf("%s %s %s: a response with %s passes", method, path, code, what)
				}
			}
			if check(http.StatusTeapot, example) == nil {
				t.Errorf("%s %s: an undocumented status passes", method, path)
			}
		}
	})
}

// optionalFields are the fields that a response may omit.
var optionalFields = []string{"request_id", "retry_after_seconds", "free_at", "next_cursor"}

// invalidCopies returns copies of a JSON object. In each copy, the object or an object
// inside has one additional field, lacks one field, or has one field of another type.
// Objects inside metadata are left alone.
func invalidCopies(t *testing.T, example any) map[string]any {
	t.Helper()
	text, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	// Each round changes one position of a new copy; visit counts the positions in a
	// fixed order.
	for place := 0; ; place++ {
		var root any
		if err := json.NewDecoder(bytes.NewReader(text)).Decode(&root); err != nil {
			t.Fatal(err)
		}
		left, what := place, ""
		visit(root, "", func(object map[string]any, path, key string) bool {
			if strings.Contains(path, "metadata.") {
				return false
			}
			if key == "" {
				if left--; left < 0 {
					object["surplus"] = 1
					what = "a surplus field in " + path
				}
				return what != ""
			}
			if !slices.Contains(optionalFields, key) {
				if left--; left < 0 {
					delete(object, key)
					what = "no " + path + key
					return true
				}
			}
			if left--; left < 0 {
				object[key] = []any{map[string]any{"neither": "text nor number nor object"}}
				what = "another type of " + path + key
			}
			return what != ""
		})
		if what == "" {
			return found
		}
		found[what] = root
	}
}

// visit calls f for each object in v, with an empty key, and for each of its fields,
// until f returns true.
func visit(v any, path string, f func(object map[string]any, path, key string) bool) bool {
	switch v := v.(type) {
	case map[string]any:
		if f(v, path, "") {
			return true
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			child := v[key]
			if f(v, path, key) || visit(child, path+key+".", f) {
				return true
			}
		}
	case []any:
		for i, child := range v {
			if visit(child, fmt.Sprintf("%s%d.", path, i), f) {
				return true
			}
		}
	}
	return false
}
