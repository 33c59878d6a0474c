package api

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// succeed responds with status 200 and the data in the envelope.
func succeed[T any](w http.ResponseWriter, message string, data T) {
	writeJSON(w, http.StatusOK, &wire.Success[T]{Success: true, Message: message, Data: data})
}

// bodies are buffers for the bodies of responses.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// Header values of every response, never written to.
var asJSON, noStore = []string{"application/json"}, []string{"no-store"}

// maxKept is the maximum size of a buffer that is kept for reuse. Nearly all fit, and the
// memory of a long list is freed.
const maxKept = 4 << 10

// writeJSON responds with a complete body, so that the response states its length.
func writeJSON(w http.ResponseWriter, status int, body any) {
	buf := bodies.Get().(*[]byte)
	*buf = append(wire.Append((*buf)[:0], body), '\n')
	header := w.Header()
	header["Content-Type"], header["Cache-Control"] = asJSON, noStore
	header.Set("Content-Length", strconv.Itoa(len(*buf)))
	w.WriteHeader(status)
	_, _ = w.Write(*buf) // a client that has disconnected needs no response
	if cap(*buf) <= maxKept {
		bodies.Put(buf)
	}
}

// holdOf returns a hold as it is at a time.
func holdOf(h lock.Hold, now time.Time) wire.Hold {
	hold := wire.Hold{ProcessID: h.ProcessID, Times: timesOf(h, now), FencingToken: h.Token, Reason: optional(h.Reason)}
	if h.Metadata != "" {
		hold.Metadata = []byte(h.Metadata)
	}
	return hold
}

func timesOf(h lock.Hold, now time.Time) wire.Times {
	return wire.Times{
		LockedAt:         wire.Time(h.LockedAt),
		ExpiresAt:        wire.OptionalTime(h.ExpiresAt),
		ExpiresInSeconds: secondsUntil(h.ExpiresAt, now),
	}
}

// holdRefsOf returns a list that is never null.
func holdRefsOf(holds []lock.HoldRef) []wire.HoldRef {
	refs := make([]wire.HoldRef, len(holds))
	for i, ref := range holds {
		refs[i] = wire.HoldRef{ResourceName: ref.Resource, FencingToken: ref.Token}
	}
	return refs
}

// secondsUntil returns nil if t is the zero time, which means never.
func secondsUntil(t, now time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	left := seconds(max(t.Sub(now), 0))
	return &left
}

// seconds returns whole microseconds as a number of seconds. A single division gives the
// float with the fewest digits; Duration.Seconds adds two.
func seconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1e6
}

// optional returns nil for the empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// counted returns a number of things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
