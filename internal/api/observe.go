package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"resource-lock-manager/internal/lock"
)

// requestIDHeader carries the request's id in both directions.
const requestIDHeader = "X-Request-Id"

// observation is what a request leaves for its log line.
type observation struct {
	id   string
	err  error
	gone bool // the client hung up before it had the answer
}

type observationKey struct{}

// observe gives each request an id, writes its one log line and answers 500 when a handler panics.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		o := &observation{id: r.Header.Get(requestIDHeader)}
		if !fitForLog(o.id) {
			o.id = rand.Text()
		}
		w.Header().Set(requestIDHeader, o.id)
		recorder := &recorder{ResponseWriter: w}
		r = r.WithContext(context.WithValue(r.Context(), observationKey{}, o))
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is compared by identity, as net/http does
				err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				if recorder.status == 0 {
					a.fail(recorder, r, err)
					p = nil
				} else {
					noteError(r, err)
				}
			}
			a.logRequest(r, recorder.status, time.Since(start), o)
			if p != nil { // too late for another answer: break the connection, so that the client does not take it for whole
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(recorder, r)
	})
}

// recorder remembers an answer's status, 0 until there is one. It has no Flush of its own, as chi's recorder does: that one
// keeps silent about a connection that is broken.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(body []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(body)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (a *API) logRequest(r *http.Request, status int, took time.Duration, o *observation) {
	route := chi.RouteContext(r.Context()).RoutePattern()
	level := slog.LevelInfo
	if o.gone {
		status = statusClientGone
	}
	switch {
	case errors.Is(o.err, lock.ErrStopping): // thousands may have waited, and the server was told to stop
	case status >= http.StatusInternalServerError, o.err != nil:
		level = slog.LevelError
	case route == "/health", route == "/livez", route == "/readyz":
		level = slog.LevelDebug
	}
	if !a.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", o.id),
		slog.String("method", r.Method),
		slog.String("route", route),
		slog.Int("status", status),
		slog.Duration("duration", took),
	}
	if o.err != nil {
		attrs = append(attrs, slog.String("error", o.err.Error()))
	}
	a.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// noteError leaves an error for the request's log line.
func noteError(r *http.Request, err error) {
	if o, ok := r.Context().Value(observationKey{}).(*observation); ok {
		o.err = errors.Join(o.err, err)
	}
}

// noteClientGone has the request's log line say that its answer did not reach the client.
func noteClientGone(r *http.Request) {
	if o, ok := r.Context().Value(observationKey{}).(*observation); ok {
		o.gone = true
	}
}

func requestID(r *http.Request) string {
	if o, ok := r.Context().Value(observationKey{}).(*observation); ok {
		return o.id
	}
	return ""
}

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
