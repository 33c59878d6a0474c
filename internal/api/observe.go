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

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// requestIDHeader carries the request's id in both directions.
const requestIDHeader = "X-Request-Id"

// observe gives each request an id and each answer the id of the database, writes the request's one log line and
// answers 500 when a handler panics.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		o := &observed{ResponseWriter: w, id: r.Header.Get(requestIDHeader)}
		if !fitForLog(o.id) {
			o.id = newRequestID()
		}
		w.Header().Set(requestIDHeader, o.id)
		w.Header()[wire.DatabaseHeader] = a.database
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is compared by identity, as net/http does
				err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				if o.status == 0 {
					a.fail(o, r, err)
					p = nil
				} else {
					noteError(o, err)
				}
			}
			a.logRequest(r, time.Since(start), o)
			if p != nil { // too late for another answer: break the connection, so that the client does not take it for whole
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(o, r)
	})
}

// observed is the writer that handlers get: beside writing, it keeps what the request leaves for its log line. That needs
// no value in the request's context, and so no copy of the request. It has no Flush of its own, as chi's recorder does: that
// one keeps silent about a connection that is broken.
type observed struct {
	http.ResponseWriter
	id     string
	status int // 0 until there is one
	err    error
	gone   bool // the client hung up before it had the answer
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

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// logRequest writes the line. Of an answer below 500 only who looks for something wants it: what became of the locks is in
// the history, and to write a line costs more than the rest of the request.
func (a *API) logRequest(r *http.Request, took time.Duration, o *observed) {
	status, level := o.status, slog.LevelDebug
	if o.gone {
		status = statusClientGone
	}
	switch {
	case errors.Is(o.err, lock.ErrStopping): // thousands may have waited, and the server was told to stop
		level = slog.LevelInfo
	case status >= http.StatusInternalServerError, o.err != nil:
		level = slog.LevelError
	}
	if !a.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", o.id),
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

// noteError leaves an error for the request's log line.
func noteError(w http.ResponseWriter, err error) {
	if o, ok := w.(*observed); ok {
		o.err = errors.Join(o.err, err)
	}
}

// noteClientGone has the request's log line say that its answer did not reach the client.
func noteClientGone(w http.ResponseWriter) {
	if o, ok := w.(*observed); ok {
		o.gone = true
	}
}

func requestID(w http.ResponseWriter) string {
	if o, ok := w.(*observed); ok {
		return o.id
	}
	return ""
}

// newRequestID is 26 letters and digits of 128 random bits. They have to tell requests apart, not to keep a secret.
func newRequestID() string {
	var bits [16]byte
	binary.LittleEndian.PutUint64(bits[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(bits[8:], rand.Uint64())
	var text [26]byte
	requestIDs.Encode(text[:], bits[:])
	return string(text[:])
}

var requestIDs = base32.StdEncoding.WithPadding(base32.NoPadding)

// callerAddress is the IP address that the request came from.
func callerAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// fitForLog accepts a client's own request id: 1 to 128 visible ASCII characters.
func fitForLog(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}
