package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"resource-lock-manager/internal/wire"
)

// answer is a response that was read to its end and checked against the document.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request, reads the whole response and checks it against docs.OpenAPI. It
// does not follow redirects.
func (s *server) do(t *testing.T, req *http.Request) answer {
	t.Helper()
	response, err := s.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return read(t, req, response)
}

func read(t *testing.T, req *http.Request, response *http.Response) answer {
	t.Helper()
	a, err := readAll(response)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	check(t, req, a)
	return a
}

func readAll(response *http.Response) (answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body)}, err
}

// check compares a response with the document, and checks what no schema can express.
// Every response must state the id of the database, also one to a request that is not in
// the document.
func check(t *testing.T, req *http.Request, a answer) {
	t.Helper()
	if err := errors.Join(checkAgainstDocument(req, a), checkExpiries(a), checkDatabase(a)); err != nil {
		t.Errorf("%s %s: %d %s\nis not as documented: %v", req.Method, req.URL, a.status, a.body, err)
	}
}

// checkDatabase returns an error unless the response states the id of the database once.
func checkDatabase(a answer) error {
	if ids := a.header.Values(wire.DatabaseHeader); len(ids) != 1 || ids[0] != databaseID {
		return fmt.Errorf("the header %s is %q, want %q", wire.DatabaseHeader, ids, databaseID)
	}
	return nil
}

// checkExpiries returns an error unless every object with expires_at has
// expires_in_seconds, in microseconds, and both are null together.
func checkExpiries(a answer) error {
	var body any
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") ||
		json.Unmarshal([]byte(a.body), &body) != nil {
		return nil
	}
	var fault error
	visit(body, "", func(object map[string]any, path, key string) bool {
		if key != "expires_at" || strings.Contains(path, "metadata.") {
			return false
		}
		seconds, found := object["expires_in_seconds"]
		number, _ := seconds.(float64)
		if !found || (object[key] == nil) != (seconds == nil) || number < 0 {
			fault = fmt.Errorf("%sexpires_at is %v, and expires_in_seconds %v", path, object[key], seconds)
		}
		if _, fraction, _ := strings.Cut(strconv.FormatFloat(number, 'f', -1, 64), "."); len(fraction) > 6 {
			fault = fmt.Errorf("%sexpires_in_seconds %v is finer than a microsecond", path, number)
		}
		return fault != nil
	})
	return fault
}

// request returns a request. A body is declared as JSON. The target is a path with its
// raw query.
func (s *server) request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+target, r)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func (s *server) call(t *testing.T, method, target, body string) answer {
	t.Helper()
	return s.do(t, s.request(t, method, target, body))
}

// acquire acquires a lock; a nil ttl is omitted.
func (s *server) acquire(t *testing.T, resource, process string, ttl any) answer {
	t.Helper()
	return s.acquireWith(t, resource, process, fields{"ttl_seconds": ttl})
}

func (s *server) release(t *testing.T, resource, process string) answer {
	t.Helper()
	return s.delete(t, "/locks/release", "resource_name", resource, "process_id", process)
}

func (s *server) status(t *testing.T, resource string) wire.Status {
	t.Helper()
	return dataOf[wire.Status](t, s.get(t, "/locks/status", "resource_name", resource))
}

func (s *server) allLocked(t *testing.T) wire.AllLocked {
	t.Helper()
	return dataOf[wire.AllLocked](t, s.get(t, "/locks/all-locked"))
}

// raw writes bytes to a new connection, even if writing fails, and returns the first
// response. With halfClose the server then sees the end of the stream.
func (s *server) raw(t *testing.T, head string, body io.Reader, halfClose bool) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The server may respond and close before it has read everything. Then writing
		// fails, and the response counts.
		if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(head), body)); err == nil && halfClose {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() {
		_ = conn.Close()
		<-sent
	}()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, req, response)
}

// want fails the test unless the response has the status.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d %.2000s, want %d", a.status, a.body, status)
	}
	return a
}

// wantFailure fails the test unless the response is that failure.
func (a answer) wantFailure(t *testing.T, status int, code wire.Code, detail string) {
	t.Helper()
	got := decode[struct {
		Detail any
		Code   wire.Code
	}](t, a.want(t, status).body)
	if got.Detail != detail || got.Code != code {
		t.Errorf("got %s, want detail %q and code %q", a.body, detail, code)
	}
}

// dataOf returns the data of a response with status 200.
func dataOf[T any](t *testing.T, a answer) T {
	t.Helper()
	envelope := decode[struct {
		Success bool
		Data    T
	}](t, a.want(t, http.StatusOK).body)
	if !envelope.Success {
		t.Fatalf("not a success: %s", a.body)
	}
	return envelope.Data
}

// decode parses exactly one JSON value; numbers in an any keep their digits.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Fatalf("more than one value in %q", text)
	}
	return v
}

// compact removes the white space of a JSON text.
func compact(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return out.String()
}
