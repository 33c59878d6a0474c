package api

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// failure is the response to a request that failed.
type failure struct {
	status     int
	body       any
	retryAfter string // the value of the header Retry-After; empty: none
	log        error  // for the log line of the request; nil: the response says it all
}

// failureOf returns the response to an error. It is the one place where errors become
// statuses and codes. An error that it does not know is a fault of the server; requestID
// finds it in the log.
func failureOf(err error, requestID string) failure {
	if held, ok := errors.AsType[*lock.HeldError](err); ok {
		return conflictOf(held)
	}
	if f, ok := refusalOf(err); ok {
		return f
	}
	for _, f := range failures {
		if errors.Is(err, f.is) {
			// The message is that of the table: what it wraps is for the log.
			return failed(f.status, f.code, sentence(f.is), err)
		}
	}
	return failure{
		status: http.StatusInternalServerError,
		body:   wire.Failure{Detail: "Internal Server Error", Code: wire.CodeInternal, RequestID: requestID},
		log:    err,
	}
}

// failures are the statuses and codes of errors without a type of their own. The first
// that matches counts.
var failures = []struct {
	is     error
	status int
	code   wire.Code
}{
	{errBodyTooLarge, http.StatusRequestEntityTooLarge, wire.CodeBodyTooLarge},
	{errMediaType, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{errCharset, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{errEncoding, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{service.ErrOutcomeUnknown, http.StatusServiceUnavailable, wire.CodeOutcomeUnknown},
	{service.ErrUnavailable, http.StatusServiceUnavailable, wire.CodeUnavailable},
	{service.ErrOverloaded, http.StatusServiceUnavailable, wire.CodeOverloaded},
	{service.ErrStopping, http.StatusServiceUnavailable, wire.CodeStopping},
}

// refusalOf returns the response to an error that has a type of its own.
func refusalOf(err error) (failure, bool) {
	var (
		invalid   *invalidError
		notHeld   *lock.NotHeldError
		notLocked *lock.NotLockedError
		otherHold *lock.OtherHoldError
		queueFull *lock.QueueFullError
		placeLost *lock.PlaceLostError
	)
	switch {
	case errors.As(err, &invalid):
		body := wire.ValidationFailure{Detail: invalid.faults, Code: wire.CodeValidation}
		return failure{status: http.StatusUnprocessableEntity, body: body}, true
	case errors.As(err, &notHeld):
		return failed(http.StatusNotFound, notHeldCodes[notHeld.Reason], notHeld.Error(), nil), true
	case errors.As(err, &notLocked):
		return failed(http.StatusNotFound, wire.CodeNotLocked, notLocked.Error(), nil), true
	case errors.As(err, &otherHold):
		return failed(http.StatusNotFound, wire.CodeTokenMismatch, otherHold.Error(), nil), true
	case errors.As(err, &queueFull):
		return failed(http.StatusServiceUnavailable, wire.CodeQueueFull, queueFull.Error(), nil), true
	case errors.As(err, &placeLost):
		return failed(http.StatusServiceUnavailable, wire.CodePlaceLost, placeLost.Error(), nil), true
	}
	return failure{}, false
}

// notHeldCodes state why a process does not hold a resource.
var notHeldCodes = map[lock.NotHeldReason]wire.Code{
	lock.ReasonUnknown:       wire.CodeNotHeld,
	lock.ReasonTokenMismatch: wire.CodeTokenMismatch,
	lock.ReasonReleased:      wire.CodeAlreadyReleased,
	lock.ReasonForceReleased: wire.CodeForceReleased,
	lock.ReasonExpired:       wire.CodeExpired,
}

// retryAfter is the number of seconds after which a client may retry after a 503.
const retryAfter = "1"

// failed returns a response with a plain body. The error is logged only with a 5xx, which
// asks the client to retry.
func failed(status int, code wire.Code, detail string, err error) failure {
	f := failure{status: status, body: wire.Failure{Detail: detail, Code: code}}
	if status >= http.StatusInternalServerError {
		f.retryAfter, f.log = retryAfter, err
	}
	return f
}

// sentence returns the text of an error with a capital letter.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// conflictOf returns the response to an acquire that was refused.
func conflictOf(held *lock.HeldError) failure {
	body := wire.Conflict{Detail: held.Error(), Code: wire.CodeAlreadyLocked, Waiters: held.Waiters}
	if held.Holder == nil {
		body.Code = wire.CodeReserved
	} else {
		holder := holdOf(*held.Holder, held.Now)
		body.Holder, body.RetryAfterSeconds = &holder, holder.ExpiresInSeconds
	}
	switch held.Kind {
	case lock.Superseded:
		body.Code = wire.CodeSuperseded
	case lock.TimedOut:
		waited := seconds(held.Waited)
		body.Code, body.WaitedSeconds = wire.CodeWaitTimeout, &waited
		if !held.KeptUntil.IsZero() { // a retry after the holder's expiry would be too late
			soon := 1.0
			body.PlaceKeptUntil, body.RetryAfterSeconds = wire.OptionalTime(held.KeptUntil), &soon
			if held.Position > 0 {
				body.Position = &held.Position
			}
		}
	}
	f := failure{status: http.StatusConflict, body: &body}
	if body.RetryAfterSeconds != nil {
		f.retryAfter = strconv.FormatFloat(math.Ceil(*body.RetryAfterSeconds), 'f', 0, 64)
	}
	return f
}

// writeError responds with an error.
func writeError(w http.ResponseWriter, err error) {
	f := failureOf(err, requestID(w))
	if f.log != nil {
		noteError(w, f.log)
	}
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	writeJSON(w, f.status, f.body)
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusNotFound, wire.Failure{Detail: "Not Found", Code: wire.CodeNotFound})
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	route := chi.RouteContext(r.Context())
	for _, method := range methodsOf(route.Routes, route.RoutePath) {
		w.Header().Add("Allow", method)
	}
	writeJSON(w, http.StatusMethodNotAllowed,
		wire.Failure{Detail: "Method Not Allowed", Code: wire.CodeMethodNotAllowed})
}

// methodsOf returns the methods that have a route for the path, POST before DELETE.
func methodsOf(routes chi.Routes, path string) []string {
	var methods []string
	_ = chi.Walk(routes, func(method, _ string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !slices.Contains(methods, method) && routes.Match(chi.NewRouteContext(), method, path) {
			methods = append(methods, method)
		}
		return nil
	})
	slices.SortFunc(methods, func(a, b string) int { return strings.Compare(b, a) })
	return methods
}
