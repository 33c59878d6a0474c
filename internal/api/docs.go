package api

import (
	_ "embed"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	swaggerfiles "github.com/swaggo/files/v2"
	httpswagger "github.com/swaggo/http-swagger/v2"

	"resource-lock-manager/docs"
)

// redocJS is bundles/redoc.standalone.js of the npm package redoc 2.5.4.
//
//go:embed redoc/redoc.standalone.js
var redocJS string

const redocPage = `<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Resource Lock Manager - ReDoc</title>
</head>
<body style="margin: 0">
  <redoc spec-url="/openapi.json"></redoc>
  <script src="/redoc/redoc.standalone.js"></script>
</body>
</html>
`

// onlyOwnResources keeps the documentation pages from loading anything from elsewhere. Both viewers style their pages
// inline; Swagger UI also starts by an inline script, ReDoc searches in a worker made from a blob.
func onlyOwnResources(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'unsafe-inline'; "+
			"style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

func (a *API) openAPI(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "openapi.json", docs.OpenAPI)
}

func (a *API) docs(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/docs/index.html", http.StatusTemporaryRedirect)
}

// swaggerUI serves the viewer's files. The handler of the library answers oddly to anything but a GET of one of them
// without a query, so it sees nothing else.
func (a *API) swaggerUI() http.HandlerFunc {
	viewer := httpswagger.Handler(httpswagger.URL("/openapi.json"))
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := fs.Stat(swaggerfiles.FS, chi.URLParam(r, "*")); err != nil {
			a.notFound(w, r)
			return
		}
		get := r.Clone(r.Context())
		get.Method, get.RequestURI = http.MethodGet, r.URL.Path
		viewer(w, get)
	}
}

func (a *API) redoc(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "redoc.html", redocPage)
}

func (a *API) redocScript(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "redoc.standalone.js", redocJS)
}

func serve(w http.ResponseWriter, r *http.Request, name, content string) {
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(content))
}
