package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// routes is the whole URL surface.
func (a *API) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(a.observe) // request id, log line, panics
	r.Use(middleware.GetHead)
	r.NotFound(a.notFound)
	r.MethodNotAllowed(a.methodNotAllowed)

	r.Post("/locks/request", a.acquire)
	r.Delete("/locks/release", a.release)
	r.Get("/locks/status", a.status)
	r.Get("/locks/all-locked", a.allLocked)

	r.Get("/health", a.health)
	r.Get("/livez", a.livez)
	r.Get("/readyz", a.readyz)

	r.Group(func(r chi.Router) {
		r.Use(onlyOwnResources)
		r.Get("/openapi.json", a.openAPI)
		r.Get("/docs", a.docs)
		r.Get("/docs/", a.docs)
		r.Get("/docs/*", a.swaggerUI())
		r.Get("/redoc", a.redoc)
		r.Get("/redoc/redoc.standalone.js", a.redocScript)
	})
	return r
}
