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

// redocJS is bundles/redoc.standalone.js of the npm package redoc 2.5.4. The logo that it
// would load from https://cdn.redoc.ly/redoc/logo-mini.svg is replaced by "data:,".
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
  <redoc spec-url="openapi.json"></redoc>
  <script src="redoc/redoc.standalone.js"></script>
</body>
</html>
`

func openAPI(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "openapi.json", docs.OpenAPI)
}

func toDocs(w http.ResponseWriter, r *http.Request) {
	redirect(w, r, "docs/index.html")
}

// swaggerUI serves the files of the viewer. The handler of the library only gets requests
// that it answers correctly: a GET of an existing file without a query.
func swaggerUI() http.HandlerFunc {
	viewer := httpswagger.Handler(httpswagger.URL("../openapi.json"))
	return func(w http.ResponseWriter, r *http.Request) {
		file := chi.URLParam(r, "*")
		if _, err := fs.Stat(swaggerfiles.FS, file); err != nil {
			notFound(w, r)
			return
		}
		get := r.Clone(r.Context())
		get.Method, get.RequestURI = http.MethodGet, "/docs/"+file
		viewer(w, get)
	}
}

func redoc(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "redoc.html", redocPage)
}

func redocScript(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "redoc.standalone.js", redocJS)
}

func serve(w http.ResponseWriter, r *http.Request, name, content string) {
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(content))
}
