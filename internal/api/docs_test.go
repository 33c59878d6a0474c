package api_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"resource-lock-manager/internal/store"
)

// reference finds what a page loads or links to.
var reference = regexp.MustCompile(`(?i)\b(?:src|href|spec-url|action|data)\s*=\s*["']?([^"'\s>]+)`)

func TestDocumentationPages(t *testing.T) {
	tests := []struct {
		name, path, contentType string
		contains                []string
	}{
		{"Swagger UI", "/docs/index.html", "text/html; charset=utf-8", []string{"SwaggerUIBundle(", `openapi.json",`, `id="swagger-ui"`}},
		{"Swagger UI's script", "/docs/swagger-ui-bundle.js", "javascript", []string{"SwaggerUIBundle"}},
		{"Swagger UI's style", "/docs/swagger-ui.css", "text/css; charset=utf-8", []string{".swagger-ui"}},
		{"ReDoc", "/redoc", "text/html; charset=utf-8", []string{`<redoc spec-url="/openapi.json">`, "/redoc/redoc.standalone.js"}},
		{"ReDoc's script", "/redoc/redoc.standalone.js", "javascript", []string{"Redoc"}},
		{"the document", "/openapi.json", "application/json", []string{`"openapi": "3.0`}},
	}
	s := realServer(t, store.SQLite)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := s.call(t, "GET", test.path, "").want(t, 200)
			if got := a.header.Get("Content-Type"); !strings.Contains(got, test.contentType) {
				t.Errorf("Content-Type %q, want %q", got, test.contentType)
			}
			for _, part := range test.contains {
				if !strings.Contains(a.body, part) {
					t.Errorf("the page has no %q", part)
				}
			}
			wantPolicy(t, a)
			if !strings.Contains(test.contentType, "html") {
				return
			}
			references := reference.FindAllStringSubmatch(a.body, -1)
			if len(references) == 0 {
				t.Fatal("no reference found in the page")
			}
			for _, m := range references {
				s.wantOwn(t, test.path, m[1])
			}
		})
	}
}

// wantOwn fails the test unless a page's reference leads to something that this server has.
func (s *server) wantOwn(t *testing.T, page, ref string) {
	t.Helper()
	base, err := url.Parse(s.URL + page)
	if err != nil {
		t.Fatal(err)
	}
	target, err := base.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	if target.Host != base.Host || target.Scheme != base.Scheme {
		t.Errorf("%s refers to %s", page, ref)
		return
	}
	if target.Path != base.Path { // not just a place in the page
		s.call(t, "GET", target.RequestURI(), "").want(t, 200)
	}
}

// wantPolicy fails the test unless the browser is told to load nothing from elsewhere.
func wantPolicy(t *testing.T, a answer) {
	t.Helper()
	policies := a.header.Values("Content-Security-Policy")
	if len(policies) != 1 {
		t.Fatalf("Content-Security-Policy: %q", policies)
	}
	found := map[string]bool{}
	for directive := range strings.SplitSeq(policies[0], ";") {
		words := strings.Fields(directive)
		if len(words) == 0 {
			continue
		}
		found[words[0]] = true
		for _, source := range words[1:] {
			switch source {
			case "'self'", "'none'", "'unsafe-inline'", "data:", "blob:":
			default:
				t.Errorf("%s allows %s", words[0], source)
			}
		}
	}
	if !found["default-src"] || !found["frame-ancestors"] { // the latter is not covered by the former
		t.Errorf("the policy is not complete: %s", policies[0])
	}
}

// TestDocsLeadsToSwaggerUI follows redirects as a browser does.
func TestDocsLeadsToSwaggerUI(t *testing.T) {
	s := realServer(t, store.SQLite)
	for _, path := range []string{"/docs", "/docs/"} {
		t.Run(path, func(t *testing.T) {
			first := s.call(t, "GET", path, "")
			if first.status < 300 || first.status > 399 {
				t.Errorf("got %d, want a redirect", first.status)
			}
			wantPolicy(t, first)
			response, err := s.Client().Do(s.request(t, "GET", path, ""))
			if err != nil {
				t.Fatal(err)
			}
			a := read(t, response.Request, response).want(t, http.StatusOK)
			if !strings.Contains(a.body, "<title>Swagger UI</title>") {
				t.Errorf("%s leads to %s", path, a.body)
			}
		})
	}
}

// TestOpenAPI reads the document as another program would: over HTTP, with nothing else at hand.
func TestOpenAPI(t *testing.T) {
	s := realServer(t, store.SQLite)
	a := s.call(t, "GET", "/openapi.json", "").want(t, 200)
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = false
	doc, err := loader.LoadFromData([]byte(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") || doc.Info.Title != "Resource Lock Manager" {
		t.Errorf("OpenAPI %s of %s", doc.OpenAPI, doc.Info.Title)
	}
	for _, path := range []string{
		"/locks/request", "/locks/release", "/locks/status", "/locks/all-locked", "/health", "/locks/renew", "/locks/renew-all",
		"/locks/release-all", "/locks/force-release", "/locks/validate", "/locks/history",
	} {
		if doc.Paths.Value(path) == nil {
			t.Errorf("%s is not in the document", path)
		}
	}
}
