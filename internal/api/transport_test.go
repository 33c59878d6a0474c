package api_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

const sound = `{"resource_name":"r","process_id":"p"}`

func TestContentType(t *testing.T) {
	const detail = "The body must be JSON, declared by the header Content-Type: application/json"
	tests := []struct {
		name, contentType string
		status            int
	}{
		{"plain", "application/json", 200},
		{"with charset", "application/json; charset=utf-8", 200},
		{"other case", "Application/JSON;Charset=UTF-8", 200},
		{"none", "", 415},
		{"what curl -d sends", "application/x-www-form-urlencoded", 415},
		{"what fetch sends", "text/plain;charset=UTF-8", 415},
		{"longer", "application/jsonp", 415},
		{"shorter", "application", 415},
		{"in a list", "text/html, application/json", 415},
		{"malformed parameter", "application/json; charset", 415},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				req := s.request(t, "POST", "/locks/request", sound)
				req.Header.Del("Content-Type")
				if test.contentType != "" {
					req.Header.Set("Content-Type", test.contentType)
				}
				a := s.do(t, req)
				if test.status == 200 {
					a.want(t, 200)
					s.release(t, "r", "p").want(t, 200)
					return
				}
				a.wantFailure(t, test.status, wire.CodeUnsupportedMedia, detail)
				s.wantNothingLocked(t)
			})
		}
	})
}

func TestBodySize(t *testing.T) {
	const most = 64 << 10
	// Padded before the value: a server that stopped reading at the end of the object would not notice.
	padded := func(size int) string { return strings.Repeat(" ", size-len(sound)) + sound }
	tests := []struct {
		name    string
		size    int
		chunked bool
		status  int
	}{
		{"exactly the most", most, false, 200},
		{"exactly the most, chunked", most, true, 200},
		{"one byte more", most + 1, false, 413},
		{"one byte more, chunked", most + 1, true, 413},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				req := s.request(t, "POST", "/locks/request", padded(test.size))
				if test.chunked {
					req.ContentLength = -1
				}
				a := s.do(t, req)
				if test.status == 200 {
					a.want(t, 200)
					s.release(t, "r", "p").want(t, 200)
					return
				}
				a.wantFailure(t, test.status, wire.CodeBodyTooLarge, "The body is larger than 65536 bytes")
				s.wantNothingLocked(t)
			})
		}
	})
}

// TestTransport sends what an ordinary client library would not.
func TestTransport(t *testing.T) {
	const start = "POST /locks/request HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	const size = 8 << 20
	// Each dialect's server gets readers of its own.
	large := func() io.Reader {
		return io.MultiReader(strings.NewReader(sound), strings.NewReader(strings.Repeat(" ", size)))
	}
	text := func(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(sound)+size)
	tests := []struct {
		name      string
		head      string
		body      func() io.Reader
		halfClose bool
		status    int
	}{
		{"8 MiB", start + length, large, false, 413},
		{"8 MiB in one chunk", start + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n", len(sound)+size), large, false, 413},
		// A client that asks first is refused before it has sent anything.
		{"8 MiB announced", start + "Expect: 100-continue\r\n" + length, text(""), false, 413},
		{"ends too early", start + "Content-Length: 100\r\n\r\n", text(sound), true, 422},
		{"ends too early, chunked", start + "Transfer-Encoding: chunked\r\n\r\n26\r\n", text(sound), true, 422},
		{"malformed chunk", start + "Transfer-Encoding: chunked\r\n\r\n", text("zz\r\n" + sound), false, 422},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				a := s.raw(t, test.head, test.body(), test.halfClose).want(t, test.status)
				if test.status == 422 {
					s.wantFaults(t, a, 0, "body body_incomplete")
					return
				}
				a.wantFailure(t, 413, wire.CodeBodyTooLarge, "The body is larger than 65536 bytes")
				s.wantNothingLocked(t)
			})
		}
	})
}

func TestUnknownPaths(t *testing.T) {
	tests := []struct{ method, path string }{
		{"GET", "/"},
		{"GET", "/locks"},
		{"GET", "/locks/"},
		{"GET", "/locks/status/"},
		{"GET", "/locks/status/r"},
		{"GET", "/Health"},
		{"POST", "/locks/release-everything"},
		{"DELETE", "/"},
		{"PUT", "/locks/unknown"},
		{"GET", "/locks/..%2fhealth"},
		{"GET", "/%ff"},
		{"GET", "/docs/unknown.js"},
		{"GET", "/docs/doc.json"}, // http-swagger's own path for a document that is not there
		{"GET", "/docs/:x"},       // not a URL by itself
		{"GET", "/redoc/"},
	}
	s := realServer(t, store.SQLite)
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			a := s.call(t, test.method, test.path, "")
			a.wantFailure(t, 404, wire.CodeNotFound, "Not Found")
			if want := `{"detail":"Not Found","code":"not_found"}`; compact(t, a.body) != want {
				t.Errorf("got %s, want %s", a.body, want)
			}
		})
	}
}

func TestWrongMethods(t *testing.T) {
	tests := []struct{ method, path, allow string }{
		{"GET", "/locks/request", "POST"},
		{"HEAD", "/locks/request", "POST"},
		{"PUT", "/locks/request", "POST"},
		{"DELETE", "/locks/request", "POST"},
		{"PUT", "/locks/release?resource_name=kept&process_id=p", "POST DELETE"},
		{"GET", "/locks/release?resource_name=kept&process_id=p", "POST DELETE"},
		{"POST", "/locks/status", "GET"},
		{"DELETE", "/locks/all-locked", "GET"},
		{"PUT", "/locks/renew", "POST"},
		{"GET", "/locks/renew-all", "POST"},
		{"PATCH", "/locks/release-all?process_id=p", "POST DELETE"},
		{"GET", "/locks/force-release?resource_name=kept&reason=x", "POST DELETE"},
		{"POST", "/locks/validate", "GET"},
		{"DELETE", "/locks/history", "GET"},
		{"POST", "/locks/queue", "GET"},
		{"PATCH", "/health", "GET"},
		{"POST", "/docs/index.html", "GET"},
		{"OPTIONS", "/locks/request", "POST"},
		{"BREW", "/locks/request", "POST"},
	}
	s := realServer(t, store.SQLite)
	s.acquire(t, "kept", "p", nil).want(t, 200)
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			a := s.call(t, test.method, test.path, "").want(t, http.StatusMethodNotAllowed)
			if got := strings.Join(a.header.Values("Allow"), " "); got != test.allow {
				t.Errorf("Allow %q, want %q", got, test.allow)
			}
			if want := `{"detail":"Method Not Allowed","code":"method_not_allowed"}`; test.method != "HEAD" && compact(t, a.body) != want {
				t.Errorf("got %s, want %s", a.body, want)
			}
			if !s.status(t, "kept").IsLocked {
				t.Error("the lock is gone")
			}
		})
	}
}

// TestHeaderSize: the server that production uses bounds what it reads before a handler runs.
func TestHeaderSize(t *testing.T) {
	s := realServer(t, store.SQLite)
	req := s.request(t, "GET", "/health", "")
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	response, err := s.Client().Do(req) // not held against the document: no operation saw the request
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s, want 431", response.Status)
	}
}
