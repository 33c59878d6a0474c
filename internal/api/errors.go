package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// failures is THE table: which error answers with which status and code. The first that matches counts; an error that is
// not here is a fault of the server.
var failures = []struct {
	is     error
	status int
	code   wire.Code
}{
	{errBodyTooLarge, http.StatusRequestEntityTooLarge, wire.CodeBodyTooLarge},
	{errMediaType, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{errCharset, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{errEncoding, http.StatusUnsupportedMediaType, wire.CodeUnsupportedMedia},
	{lock.ErrOutcomeUnknown, http.StatusServiceUnavailable, wire.CodeOutcomeUnknown},
	{lock.ErrUnavailable, http.StatusServiceUnavailable, wire.CodeUnavailable},
	{lock.ErrOverloaded, http.StatusServiceUnavailable, wire.CodeOverloaded},
	{lock.ErrStopping, http.StatusServiceUnavailable, wire.CodeStopping},
}

// notHeldCodes tell why a process does not hold a resource.
var notHeldCodes = map[lock.Why]wire.Code{
	lock.Unknown:         wire.CodeNotHeld,
	lock.OtherToken:      wire.CodeTokenMismatch,
	lock.AlreadyReleased: wire.CodeAlreadyReleased,
	lock.Broken:          wire.CodeForceReleased,
	lock.HasExpired:      wire.CodeExpired,
}

// statusClientGone stands in the log only: the client disconnected before it was answered.
const statusClientGone = 499

// retryAfter is the number of seconds that a client is asked to wait after a 503.
const retryAfter = "1"

// answer makes a handler of a function that either answers or returns an error.
//
// The function asks the service in a context that does not end with the request's, except where a request waits: the end
// of a client's stream may only mean that it has nothing more to send, and then it reads the answer. The store bounds how
// long everything takes.
func (a *API) answer(handle func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := handle(w, r); err != nil {
			a.fail(w, r, err)
		}
	}
}

// fail answers with an error. It is the one place where errors become answers; the log line of the request tells the rest.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if held, is := errors.AsType[*lock.HeldError](err); is {
		body := conflictOf(held)
		if body.RetryAfterSeconds != nil {
			w.Header().Set("Retry-After", strconv.FormatFloat(math.Ceil(*body.RetryAfterSeconds), 'f', 0, 64))
		}
		writeJSON(w, http.StatusConflict, &body)
	} else if lost, is := errors.AsType[*lock.PlaceLostError](err); is {
		w.Header().Set("Retry-After", retryAfter)
		writeJSON(w, http.StatusServiceUnavailable, wire.Failure{Detail: lost.Error(), Code: wire.CodePlaceLost})
	} else if full, is := errors.AsType[*lock.QueueFullError](err); is {
		w.Header().Set("Retry-After", retryAfter)
		writeJSON(w, http.StatusServiceUnavailable, wire.Failure{Detail: full.Error(), Code: wire.CodeQueueFull})
	} else if notHeld, is := errors.AsType[*lock.NotHeldError](err); is {
		writeJSON(w, http.StatusNotFound, wire.Failure{Detail: notHeld.Error(), Code: notHeldCodes[notHeld.Why]})
	} else if notLocked, is := errors.AsType[*lock.NotLockedError](err); is {
		writeJSON(w, http.StatusNotFound, wire.Failure{Detail: notLocked.Error(), Code: wire.CodeNotLocked})
	} else if other, is := errors.AsType[*lock.OtherHoldError](err); is {
		writeJSON(w, http.StatusNotFound, wire.Failure{Detail: other.Error(), Code: wire.CodeTokenMismatch})
	} else if unparsed, is := errors.AsType[*invalid](err); is {
		writeJSON(w, http.StatusUnprocessableEntity, wire.ValidationFailure{Detail: unparsed.faults, Code: wire.CodeValidation})
	} else if unsound, is := errors.AsType[*lock.InvalidError](err); is {
		place := "query"
		if r.Method == http.MethodPost {
			place = "body"
		}
		var faults invalid
		faults.take(unsound, place)
		writeJSON(w, http.StatusUnprocessableEntity, wire.ValidationFailure{Detail: faults.faults, Code: wire.CodeValidation})
	} else {
		a.failByTable(w, err)
	}
}

// conflictOf tells who is in the way.
func conflictOf(held *lock.HeldError) wire.Conflict {
	body := wire.Conflict{Detail: held.Error(), Code: wire.CodeAlreadyLocked, Waiters: held.Waiters}
	if held.Holder == (lock.Hold{}) {
		body.Code = wire.CodeReserved
	} else {
		holder := holdOf(held.Holder, held.Now)
		body.Holder, body.RetryAfterSeconds = &holder, holder.ExpiresInSeconds
	}
	switch {
	case held.Superseded:
		body.Code = wire.CodeSuperseded
	case held.TimedOut:
		waited := seconds(held.Waited)
		body.Code, body.WaitedSeconds = wire.CodeWaitTimeout, &waited
		if !held.KeptUntil.IsZero() { // to come back when the holder's time is over would be too late
			soon := 1.0
			body.PlaceKeptUntil, body.RetryAfterSeconds = wire.OptionalTime(held.KeptUntil), &soon
			if held.Position > 0 {
				body.Position = &held.Position
			}
		}
	}
	return body
}

func (a *API) failByTable(w http.ResponseWriter, err error) {
	for _, f := range failures {
		if !errors.Is(err, f.is) {
			continue
		}
		if f.status >= http.StatusInternalServerError {
			noteError(w, err)
			w.Header().Set("Retry-After", retryAfter)
		}
		// The table's own words: what lies below is for the log.
		writeJSON(w, f.status, wire.Failure{Detail: sentence(f.is), Code: f.code})
		return
	}
	noteError(w, err)
	writeJSON(w, http.StatusInternalServerError, wire.Failure{
		Detail:    "Internal Server Error",
		Code:      wire.CodeInternal,
		RequestID: requestID(w),
	})
}

// sentence begins with a capital letter.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

func (a *API) notFound(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusNotFound, wire.Failure{Detail: "Not Found", Code: wire.CodeNotFound})
}

func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	route := chi.RouteContext(r.Context())
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if route.Routes.Match(chi.NewRouteContext(), method, route.RoutePath) {
			w.Header().Add("Allow", method)
		}
	}
	writeJSON(w, http.StatusMethodNotAllowed, wire.Failure{Detail: "Method Not Allowed", Code: wire.CodeMethodNotAllowed})
}
