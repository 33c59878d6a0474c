package api

import (
	"net/http"
	"strconv"
	"sync"

	"resource-lock-manager/internal/wire"
)

// succeed answers 200 in the envelope.
func succeed[T any](w http.ResponseWriter, message string, data T) {
	writeJSON(w, http.StatusOK, &wire.Success[T]{Success: true, Message: message, Data: data})
}

// bodies are buffers for answers, each used by one answer at a time.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// The same in every answer, and never written to.
var asJSON, notStored = []string{"application/json"}, []string{"no-store"}

// mostKept is the size of a buffer that is kept for another body: nearly all fit, and a long list is not held on to.
const mostKept = 4 << 10

// writeJSON answers with a body that is known in full, so that it carries its length.
func writeJSON(w http.ResponseWriter, status int, body any) {
	buf := bodies.Get().(*[]byte)
	*buf = append(wire.Append((*buf)[:0], body), '\n')
	header := w.Header()
	header["Content-Type"], header["Cache-Control"] = asJSON, notStored
	header.Set("Content-Length", strconv.Itoa(len(*buf)))
	w.WriteHeader(status)
	_, _ = w.Write(*buf) // a client that has gone needs no answer
	if cap(*buf) <= mostKept {
		bodies.Put(buf)
	}
}
