package api

import "net/http"

// contentSecurityPolicy forbids the documentation pages to load anything from other
// servers. Both viewers have inline styles, Swagger UI also has an inline script, and
// ReDoc searches in a worker that it makes of a blob.
func contentSecurityPolicy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'unsafe-inline'; "+
			"style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}
