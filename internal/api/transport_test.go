package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

const validRequest = `{"resource_name":"r","process_id":"p"}`

func TestContentType(t *testing.T) {
	const detail = "The body must be JSON, declared by the header Content-Type: application/json"
	tests := []struct {
		name, contentType string
		status            int
	}{
		{"plain", "application/json", 200},
		{"with charset", "application/json; charset=utf-8", 200},
		{"other case", "Application/JSON;Charset=UTF-8", 200},
		{"with quotes", `application/json; charset="utf-8"`, 200},
		{"a part of UTF-8", "application/json; charset=us-ascii", 200},
		{"as MySQL spells it", "application/json; charset=utf8", 200},
		{"another parameter", "application/json; profile=x", 200},
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
				req := s.request(t, "POST", "/locks/request", validRequest)
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
	const maxSize = 64 << 10
	// Padded before the value: a server that stops reading at the end of the object would
	// not notice.
	padded := func(size int) string { return strings.Repeat(" ", size-len(validRequest)) + validRequest }
	tests := []struct {
		name    string
		size    int
		chunked bool
		status  int
	}{
		{"exactly the maximum", maxSize, false, 200},
		{"exactly the maximum, chunked", maxSize, true, 200},
		{"one byte more", maxSize + 1, false, 413},
		{"one byte more, chunked", maxSize + 1, true, 413},
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

// TestCharset: JSON is UTF-8, and a body in another charset would be misread.
func TestCharset(t *testing.T) {
	s := realServer(t, store.SQLite)
	for _, charset := range []string{"utf-16", "UTF-16LE", "iso-8859-1", `"latin1"`, "windows-1252", "utf-7", "x"} {
		req := s.request(t, "POST", "/locks/request", validRequest)
		req.Header.Set("Content-Type", "application/json; charset="+charset)
		s.do(t, req).wantFailure(t, 415, wire.CodeUnsupportedMedia,
			"The body must be JSON in UTF-8: the header Content-Type names another charset")
	}
	s.wantNothingLocked(t)
}

// TestByteOrderMark: programs on Windows write it at the start of a text in UTF-8.
func TestByteOrderMark(t *testing.T) {
	s := realServer(t, store.SQLite)
	s.call(t, "POST", "/locks/request", "\ufeff"+validRequest).want(t, 200)
	s.release(t, "r", "p").want(t, 200)
}

// TestContentEncoding: a compressed body is refused with a message that says so.
func TestContentEncoding(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		status int
	}{
		{"gzip", []string{"gzip"}, 415},
		{"upper case", []string{"GZIP"}, 415},
		{"br", []string{"br"}, 415},
		{"two in one", []string{"identity, gzip"}, 415},
		{"two headers", []string{"identity", "deflate"}, 415},
		{"unknown", []string{"x"}, 415},
		{"a charset by mistake", []string{"utf-8"}, 415},
		{"identity", []string{"identity"}, 200},
		{"identity, in another case", []string{"Identity"}, 200},
		{"identity twice", []string{"identity , identity"}, 200},
		{"empty", []string{""}, 200},
	}
	s := realServer(t, store.SQLite)
	for _, path := range []string{"/locks/request", "/locks/renew", "/locks/renew-all"} {
		for _, test := range tests {
			t.Run(path+" "+test.name, func(t *testing.T) {
				s.acquire(t, "r", "p", nil).want(t, 200)
				defer s.release(t, "r", "p")
				process := "p"
				if path == "/locks/request" {
					process = "q"
				}
				req := s.request(t, "POST", path, `{"resource_name":"r","process_id":"`+process+`","ttl_seconds":60}`)
				req.Header["Content-Encoding"] = test.values
				a := s.do(t, req)
				if test.status == 200 {
					if a.status == 415 {
						t.Errorf("got %s", a.body)
					}
					return
				}
				a.wantFailure(t, 415, wire.CodeUnsupportedMedia,
					"The body must not be compressed: of Content-Encoding only identity is accepted")
				if got := a.header.Get("Accept-Encoding"); got != "identity" {
					t.Errorf("Accept-Encoding %q", got)
				}
				if s.status(t, "r").ExpiresAt != nil {
					t.Error("the lock was renewed")
				}
			})
		}
	}
}

// TestWhatTheBodySeemsToBe: the message names the format of a body that is not what it is
// declared to be.
func TestWhatTheBodySeemsToBe(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte(validRequest)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	utf16 := func(order binary.ByteOrder, text string) (body string) {
		for _, unit := range utf16.Encode([]rune(text)) {
			var two [2]byte
			order.PutUint16(two[:], unit)
			body += string(two[:])
		}
		return body
	}
	tests := []struct{ name, body, seems string }{
		{"gzip", zipped.String(), "application/x-gzip"},
		{"UTF-16 with a mark", utf16(binary.LittleEndian, "\ufeff"+validRequest), "text/plain; charset=utf-16le"},
		{
			"UTF-16, big end first, with a mark", utf16(binary.BigEndian, "\ufeff"+validRequest),
			"text/plain; charset=utf-16be",
		},
		{"UTF-16", utf16(binary.LittleEndian, validRequest), "UTF-16"},
		{"UTF-16, big end first", utf16(binary.BigEndian, validRequest), "UTF-16"},
		{"a form", "resource_name=r&process_id=p", ""},
		{"a page", "<html></html>", ""},
		{"cut off", validRequest[:10], ""},
	}
	s := realServer(t, store.SQLite)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := s.call(t, "POST", "/locks/request", test.body)
			s.wantFaults(t, a, len(test.body), "body.* json_invalid")
			msg := decode[wire.ValidationFailure](t, a.body).Detail[0].Msg
			if seems := ": the body seems to be " + test.seems + ", not JSON in UTF-8"; strings.HasSuffix(msg,
				seems) != (test.seems != "") {
				t.Errorf("msg %q", msg)
			}
		})
	}
}

// TestOtherSpellingsOfAPath: they lead to the same operation, so that a base URL may end
// with a slash.
func TestOtherSpellingsOfAPath(t *testing.T) {
	spellings := func(path string) []string {
		first, rest := path[:2], path[2:]
		return []string{
			path, path + "/", path + "//", "/" + path, "//" + strings.ReplaceAll(path, "/", "//"), "/." + path,
			"/x/.." + path,
			"/%" + hex.EncodeToString([]byte(first[1:])) + rest, path + "/%2e",
		}
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, path := range spellings("/locks/request") {
			s.call(t, "POST", path, validRequest).want(t, 200)
			s.call(t, "POST", path, `{"resource_name":"r","process_id":"q"}`).wantCode(t, 409, wire.CodeAlreadyLocked)
			for _, status := range spellings("/locks/status") {
				if !dataOf[wire.Status](t, s.call(t, "GET", status+"?resource_name=r", "")).IsLocked {
					t.Errorf("%s: not locked", status)
				}
				s.call(t, "HEAD", status+"?resource_name=r", "").want(t, 200)
			}
			s.release(t, "r", "p").want(t, 200)
		}
		for _, path := range spellings("/locks/release") {
			s.acquire(t, "r", "p", nil).want(t, 200)
			s.call(t, "DELETE", path+"?resource_name=r&process_id=p", "").want(t, 200)
			s.wantNothingLocked(t)
		}
		for _, path := range spellings("/health") {
			s.call(t, "GET", path, "").want(t, 200)
		}
	})
}

// TestTransport sends requests that no ordinary client library sends.
func TestTransport(t *testing.T) {
	const start = "POST /locks/request HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	const size = 8 << 20
	// The server of each database gets readers of its own.
	large := func() io.Reader {
		return io.MultiReader(strings.NewReader(validRequest), strings.NewReader(strings.Repeat(" ", size)))
	}
	text := func(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(validRequest)+size)
	tests := []struct {
		name      string
		head      string
		body      func() io.Reader
		halfClose bool
		status    int
	}{
		{"8 MiB", start + length, large, false, 413},
		{"8 MiB in one chunk", start + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n",
			len(validRequest)+size), large, false, 413},
		// A client that waits for "100 Continue" is refused before it has sent the body.
		{"8 MiB announced", start + "Expect: 100-continue\r\n" + length, text(""), false, 413},
		{"ends too early", start + "Content-Length: 100\r\n\r\n", text(validRequest), true, 422},
		{"ends too early, chunked", start + "Transfer-Encoding: chunked\r\n\r\n26\r\n", text(validRequest), true, 422},
		{"malformed chunk", start + "Transfer-Encoding: chunked\r\n\r\n", text("zz\r\n" + validRequest), false, 422},
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
		{"GET", "/locks"},
		{"GET", "/locks/"},
		{"GET", "/locks/status/r"},
		{"GET", "/Health"},
		{"POST", "/locks/release-everything"},
		{"DELETE", "/locks"},
		{"GET", "/locks/request/status/"},
		{"GET", "/locks/Status/"},
		{"PUT", "/locks/unknown"},
		{"GET", "/locks/..%2fhealth"},
		{"GET", "/locks%2fstatus?resource_name=r"},
		{"GET", "/locks/status%2F?resource_name=r"},
		{"GET", "/health%2f"},
		{"GET", "/docs%2findex.html"},
		{"GET", "/docs/..%2f..%2fhealth"},
		{"GET", "/health;x=1"},
		{"GET", "/health%20"},
		{"GET", "/health%00"},
		{"GET", "/%2fhealth"},
		{"GET", "/docs/index.html/x"},
		{"GET", "/%ff"},
		{"GET", "/docs/unknown.js"},
		{"GET", "/docs/doc.json"}, // http-swagger's path of a document that does not exist
		{"GET", "/docs/:x"},       // not a valid URL
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
		{"POST", "/docs/", "GET"},
		{"POST", "/redoc/", "GET"},
		{"DELETE", "/", "GET"},
		{"POST", "//", "GET"},
		{"GET", "/locks/request/", "POST"},
		{"HEAD", "//locks//request//", "POST"},
		{"GET", "/locks/release/?resource_name=kept&process_id=p", "POST DELETE"},
		{"PUT", "/locks/%72elease?resource_name=kept&process_id=p", "POST DELETE"},
		{"POST", "/health/", "GET"},
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
			if want := `{"detail":"Method Not Allowed","code":"method_not_allowed"}`; test.method != "HEAD" &&
				compact(t, a.body) != want {
				t.Errorf("got %s, want %s", a.body, want)
			}
			if !s.status(t, "kept").IsLocked {
				t.Error("the lock was released")
			}
		})
	}
}

// TestHeaderSize: the server that production uses bounds what it reads before a handler
// runs.
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
