package api

import (
	"net/http"
	"path"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// routes is the whole URL surface.
func (a *API) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(a.observe) // request id, id of the database, log line, panics
	r.Use(a.anySpelling)
	r.Use(middleware.GetHead)
	r.NotFound(a.notFound)
	r.MethodNotAllowed(a.methodNotAllowed)

	r.Post("/locks/request", a.answer(a.acquire))
	r.Delete("/locks/release", a.answer(a.release))
	r.Post("/locks/release", a.answer(a.postRelease))
	r.Post("/locks/renew", a.answer(a.renew))
	r.Post("/locks/renew-all", a.answer(a.renewAll))
	r.Delete("/locks/release-all", a.answer(a.releaseAll))
	r.Post("/locks/release-all", a.answer(a.postReleaseAll))
	r.Delete("/locks/force-release", a.answer(a.forceRelease))
	r.Post("/locks/force-release", a.answer(a.postForceRelease))
	r.Get("/locks/status", a.answer(a.status))
	r.Get("/locks/queue", a.answer(a.queue))
	r.Get("/locks/validate", a.answer(a.validate))
	r.Get("/locks/history", a.answer(a.history))
	r.Get("/locks/all-locked", a.answer(a.allLocked))

	r.Get("/health", a.health)
	r.Get("/livez", a.livez)
	r.Get("/readyz", a.answer(a.readyz))

	r.Group(func(r chi.Router) {
		r.Use(onlyOwnResources)
		r.Get("/", toDocs)
		r.Get("/docs", toDocs)
		r = r.With(ownSpelling)
		r.Get("/openapi.json", a.openAPI)
		r.Get("/docs/*", a.swaggerUI())
		r.Get("/redoc", a.redoc)
		r.Get("/redoc/redoc.standalone.js", a.redocScript)
	})
	return r
}

// anySpelling routes a path by its normal form, as RFC 3986 describes it: without slashes
// too many, without dot segments, and with nothing encoded that need not be. So a base URL
// may end with a slash. An encoded slash is a part of a name, and no route has such a name.
func (a *API) anySpelling(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(strings.ToLower(r.URL.RawPath), "%2f") {
			a.notFound(w, r)
			return
		}
		given := r.URL.Path
		if !strings.HasPrefix(given, "/") { // OPTIONS *, or a URL without a path
			given = "/" + given
		}
		chi.RouteContext(r.Context()).RoutePath = path.Clean(given)
		next.ServeHTTP(w, r)
	})
}
