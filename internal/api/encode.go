package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"resource-lock-manager/internal/wire"
)

// succeed answers 200 in the envelope.
func succeed[T any](w http.ResponseWriter, message string, data T) {
	writeJSON(w, http.StatusOK, wire.Success[T]{Success: true, Message: message, Data: data})
}

// writeJSON answers with a body that is known in full, so that it carries its length.
func writeJSON(w http.ResponseWriter, status int, body any) {
	var buf bytes.Buffer
	encode(&buf, body)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(buf.Len()))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // a client that has gone needs no answer
}

// encode appends the JSON of a shape of package wire, and a line's end.
func encode(buf *bytes.Buffer, body any) {
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false) // names are shown as they are; the body is not HTML
	if err := encoder.Encode(body); err != nil {
		panic(err) // these shapes can always be encoded
	}
}
