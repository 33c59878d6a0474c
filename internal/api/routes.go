package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// routes returns the router with all routes.
func (a *API) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(a.observe) // request id, id of the database, log line, panics
	r.Use(anySpelling)
	r.Use(middleware.GetHead)
	r.NotFound(notFound)
	r.MethodNotAllowed(methodNotAllowed)

	r.Post("/locks/request", handle(a.acquire))
	r.Delete("/locks/release", handle(a.release))
	r.Post("/locks/release", handle(a.postRelease))
	r.Post("/locks/renew", handle(a.renew))
	r.Post("/locks/renew-all", handle(a.renewAll))
	r.Delete("/locks/release-all", handle(a.releaseAll))
	r.Post("/locks/release-all", handle(a.postReleaseAll))
	r.Delete("/locks/force-release", handle(a.forceRelease))
	r.Post("/locks/force-release", handle(a.postForceRelease))
	r.Get("/locks/status", handle(a.status))
	r.Get("/locks/queue", handle(a.queue))
	r.Get("/locks/validate", handle(a.validate))
	r.Get("/locks/history", handle(a.history))
	r.Get("/locks/all-locked", handle(a.allLocked))

	r.Get("/health", health)
	r.Get("/livez", livez)
	r.Get("/readyz", handle(a.readyz))

	r.Group(func(r chi.Router) {
		r.Use(contentSecurityPolicy)
		r.Get("/", toDocs)
		r.Get("/docs", toDocs)
		r = r.With(canonicalPath)
		r.Get("/openapi.json", openAPI)
		r.Get("/docs/*", swaggerUI())
		r.Get("/redoc", redoc)
		r.Get("/redoc/redoc.standalone.js", redocScript)
	})
	return r
}

// handle returns the handler of a function that either responds or returns an error.
//
// The function calls the service with a context that does not end with that of the
// request, except for an acquire that waits. The end of a client's stream may only mean
// that the client has nothing more to send, and that it still reads the response. The
// store bounds the time that everything takes.
func handle(serve func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			writeError(w, err)
		}
	}
}
