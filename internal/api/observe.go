package api

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// requestIDHeader carries the id of the request in both directions.
const requestIDHeader = "X-Request-Id"

// statusClientGone is the status, in the log only, of a request whose client disconnected
// before it got its response.
const statusClientGone = 499

// observe adds the id of the request and the id of the database to each response, writes
// the log line of the request, and responds with 500 if a handler panics.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		o := &observed{ResponseWriter: w, id: [1]string{r.Header.Get(requestIDHeader)}}
		if !validRequestID(o.id[0]) {
			o.id[0] = newRequestID()
		}
		w.Header()[requestIDHeader] = o.id[:]
		w.Header()[wire.DatabaseHeader] = a.database
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // compared by identity, as in net/http
				err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				if o.status == 0 {
					writeError(o, err)
					p = nil
				} else {
					noteError(o, err)
				}
			}
			a.logRequest(r, time.Since(start), o)
			if p != nil {
				// The response has begun. The client notices that it is incomplete by the
				// end of the connection.
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(o, r)
	})
}

// observed is the writer that handlers get. It keeps what the log line of the request
// needs. A value in the context of the request would need a copy of the request. Unlike
// chi's recorder it has no Flush of its own: that one does not report a broken
// connection.
type observed struct {
	http.ResponseWriter
	id     [1]string // the id of the request, as the value of a header
	status int       // 0 until the header is written
	err    error
	gone   bool // the client disconnected before it got the response
}

func (o *observed) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(body []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	return o.ResponseWriter.Write(body)
}

// Unwrap lets http.ResponseController find the underlying writer.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// logRequest writes the log line of a request. Below status 500 it is for debugging only:
// the history records what happened to the locks, and a line costs more than the rest of
// the request.
func (a *API) logRequest(r *http.Request, took time.Duration, o *observed) {
	status, level := o.status, slog.LevelDebug
	if o.gone {
		status = statusClientGone
	}
	switch {
	case errors.Is(o.err, service.ErrStopping): // as intended, and perhaps for thousands of waiting requests
		level = slog.LevelInfo
	case status >= http.StatusInternalServerError, o.err != nil:
		level = slog.LevelError
	}
	if !a.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", o.id[0]),
		slog.String("method", r.Method),
		slog.String("route", chi.RouteContext(r.Context()).RoutePattern()),
		slog.Int("status", status),
		slog.Duration("duration", took),
	}
	if o.err != nil {
		attrs = append(attrs, slog.String("error", o.err.Error()))
	}
	a.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// noteError adds an error to the log line of the request.
func noteError(w http.ResponseWriter, err error) {
	if o, ok := w.(*observed); ok {
		o.err = errors.Join(o.err, err)
	}
}

// noteClientGone records for the log line that the response did not reach the client.
func noteClientGone(w http.ResponseWriter) {
	if o, ok := w.(*observed); ok {
		o.gone = true
	}
}

func requestID(w http.ResponseWriter) string {
	if o, ok := w.(*observed); ok {
		return o.id[0]
	}
	return ""
}

// newRequestID returns 128 random bits as 26 letters and digits. The id is unique, not
// secret.
func newRequestID() string {
	var bits [16]byte
	binary.LittleEndian.PutUint64(bits[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(bits[8:], rand.Uint64())
	var text [26]byte
	requestIDs.Encode(text[:], bits[:])
	return string(text[:])
}

var requestIDs = base32.StdEncoding.WithPadding(base32.NoPadding)

// callerAddress returns the IP address that the request came from.
func callerAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// validRequestID reports whether a client's own request id consists of 1 to 128 visible
// ASCII characters.
func validRequestID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}
