package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/store"
)

// reference matches what a page loads or links to.
var reference = regexp.MustCompile(`(?i)\b(?:src|href|spec-url|action|data)\s*=\s*["']?([^"'\s>]+)`)

func TestDocumentationPages(t *testing.T) {
	tests := []struct {
		name, path, contentType string
		contains                []string
	}{
		{
			"Swagger UI", "/docs/index.html", "text/html; charset=utf-8",
			[]string{"SwaggerUIBundle(", `openapi.json",`, `id="swagger-ui"`},
		},
		{"Swagger UI's script", "/docs/swagger-ui-bundle.js", "javascript", []string{"SwaggerUIBundle"}},
		{"Swagger UI's style", "/docs/swagger-ui.css", "text/css; charset=utf-8", []string{".swagger-ui"}},
		{
			"ReDoc", "/redoc", "text/html; charset=utf-8",
			[]string{`<redoc spec-url="openapi.json">`, `"redoc/redoc.standalone.js"`},
		},
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

// wantOwn fails the test unless a reference of a page leads to something that this server
// serves.
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
	if target.Path != base.Path { // not only a fragment of the page
		s.call(t, "GET", target.RequestURI(), "").want(t, 200)
	}
}

// wantPolicy fails the test unless the response forbids the browser to load anything from
// other servers.
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
	if !found["default-src"] || !found["frame-ancestors"] { // the first is no default for the second
		t.Errorf("the policy is incomplete: %s", policies[0])
	}
}

// TestDocsLeadsToSwaggerUI follows redirects as a browser does.
func TestDocsLeadsToSwaggerUI(t *testing.T) {
	s := realServer(t, store.SQLite)
	for path, location := range map[string]string{
		"/":        "docs/index.html",
		"//":       "docs/index.html",
		"/docs":    "docs/index.html",
		"//docs":   "docs/index.html", // of a proxy that strips a prefix without its slash
		"/docs/":   "../docs/index.html",
		"/docs//":  "../../docs/index.html",
		"/./docs/": "../../docs/index.html",
	} {
		t.Run(path, func(t *testing.T) {
			first := s.call(t, "GET", path, "").want(t, http.StatusTemporaryRedirect)
			if got := first.header.Get("Location"); got != location {
				t.Errorf("Location %q, want %q", got, location)
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

// TestPagesHaveOnePath: the links of a page are relative to its path.
func TestPagesHaveOnePath(t *testing.T) {
	s := realServer(t, store.SQLite)
	for path, location := range map[string]string{
		"/redoc/":                     "../redoc",
		"/redoc//":                    "../../redoc",
		"/docs//index.html":           "../../docs/index.html",
		"/docs/./index.html":          "../../docs/index.html",
		"/docs/swagger-ui.css/":       "../../docs/swagger-ui.css",
		"/openapi.json/":              "../openapi.json",
		"/redoc//redoc.standalone.js": "../../redoc/redoc.standalone.js",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if got := s.call(t, method, path, "").want(t,
				http.StatusTemporaryRedirect).header.Get("Location"); got != location {
				t.Errorf("%s %s: Location %q, want %q", method, path, got, location)
			}
		}
	}
	for _, path := range []string{"//redoc", "//docs/index.html", "//openapi.json", "/%64ocs/index.html"} {
		s.call(t, "GET", path, "").want(t, http.StatusOK)
	}
}

// belowAPrefix are two configurations of a proxy that strips a prefix. The second leaves
// a second slash.
var belowAPrefix = map[string]string{
	"/lockd/": "location /lockd/ { proxy_pass %s/; }",
	"/locks/": "location /locks { proxy_pass %s/; }",
}

// proxied returns the URL of a server below a prefix.
func proxied(t *testing.T, s *server, prefix string) string {
	t.Helper()
	return apptest.StartNginx(t, func(address string) string {
		return "server { listen " + address + ";\n" + fmt.Sprintf(belowAPrefix[prefix], s.URL) + " }"
	}) + prefix
}

// TestPagesBelowAPrefix: behind a proxy that strips a prefix, every link and every
// redirect stays below the prefix.
func TestPagesBelowAPrefix(t *testing.T) {
	for prefix := range belowAPrefix {
		t.Run(prefix, func(t *testing.T) {
			s := realServer(t, store.SQLite)
			base := proxied(t, s, prefix)
			for spelling, page := range map[string]string{
				"":             "docs/index.html",
				"docs":         "docs/index.html",
				"docs/":        "docs/index.html",
				"redoc":        "redoc",
				"redoc/":       "redoc",
				"openapi.json": "openapi.json",
			} {
				body := getBelow(t, s, base+spelling, base+page)
				for _, m := range reference.FindAllStringSubmatch(body, -1) {
					link, err := url.Parse(base + page)
					if err != nil {
						t.Fatal(err)
					}
					if link, err = link.Parse(m[1]); err != nil {
						t.Fatal(err)
					}
					getBelow(t, s, link.String(), link.String())
					if !strings.HasPrefix(link.String(), base) {
						t.Errorf("%s leads to %s", page, link)
					}
				}
			}
		})
	}
	t.Run("without its slash", func(t *testing.T) {
		s := realServer(t, store.SQLite)
		base := proxied(t, s, "/lockd/")
		getBelow(t, s, strings.TrimSuffix(base, "/"), base+"docs/index.html")
	})
}

// getBelow gets a page as a browser does, and fails the test unless the page has the
// expected URL.
func getBelow(t *testing.T, s *server, given, want string) (body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, given, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAll(response)
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ = strings.Cut(want, "#")
	if got := response.Request.URL.String(); a.status != http.StatusOK || got != want {
		t.Errorf("GET %s: %d at %s, want 200 at %s", given, a.status, got, want)
	}
	return a.body
}

// TestOpenAPI reads the document as another program does, over HTTP.
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
		"/locks/request", "/locks/release", "/locks/status", "/locks/all-locked", "/health", "/locks/renew",
		"/locks/renew-all",
		"/locks/release-all", "/locks/force-release", "/locks/validate", "/locks/history",
	} {
		if doc.Paths.Value(path) == nil {
			t.Errorf("%s is not in the document", path)
		}
	}
}
