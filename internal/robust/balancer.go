package robust

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"resource-lock-manager/internal/apptest"
)

// StartBalancer runs nginx before three servers, configured as docs/nginx.conf says, and
// returns its URL. It ends with the test. If repeats is false, nginx does not send a
// request to a second server, and clients see every failure.
func StartBalancer(tb testing.TB, repeats bool, servers ...*Server) string {
	tb.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "nginx.conf"))
	if err != nil {
		tb.Fatal(err)
	}
	text := string(page)
	for i, server := range servers {
		text = replaceOnce(tb, text, fmt.Sprintf("server 10.0.0.%d:8000 ", i+1), "server "+server.Front.Address()+" ")
	}
	if !repeats {
		text = replaceOnce(tb, text, "proxy_next_upstream error timeout http_503 non_idempotent;",
			"proxy_next_upstream off;")
	}
	return apptest.StartNginx(tb, func(address string) string {
		return replaceOnce(tb, text, "listen 80;", "listen "+address+";")
	})
}

func replaceOnce(tb testing.TB, text, old, replacement string) string {
	tb.Helper()
	if n := strings.Count(text, old); n != 1 {
		tb.Fatalf("docs/nginx.conf contains %d times, want once: %q", n, old)
	}
	return strings.Replace(text, old, replacement, 1)
}
