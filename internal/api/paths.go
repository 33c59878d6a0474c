package api

import (
	"net/http"
	"path"
	"strings"

	"github.com/go-chi/chi/v5"
)

// anySpelling routes a path by its normal form of RFC 3986: without repeated slashes,
// without dot segments, and without unnecessary percent-encoding. So a base URL may end
// with a slash. An encoded slash is a part of a name, and no route has such a name.
func anySpelling(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(strings.ToLower(r.URL.RawPath), "%2f") {
			notFound(w, r)
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

// canonicalPath redirects from any other spelling of a page's path to the one that the
// links on the page are relative to. Additional slashes before the path are accepted: a
// proxy that strips a prefix may leave them.
func canonicalPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := strings.TrimPrefix(chi.RouteContext(r.Context()).RoutePath, "/")
		if strings.TrimLeft(r.URL.Path, "/") == own {
			next.ServeHTTP(w, r)
			return
		}
		redirect(w, r, own)
	})
}

// redirect redirects to a path of this server. The target is relative to the path of the
// request, because a proxy may serve this server below a prefix. http.Redirect would make
// it absolute.
func redirect(w http.ResponseWriter, r *http.Request, path string) {
	up := strings.Count(strings.TrimLeft(r.URL.Path, "/"), "/")
	w.Header().Set("Location", strings.Repeat("../", up)+path)
	w.WriteHeader(http.StatusTemporaryRedirect)
}
