package api

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// source is where the fields of a request stand: in its query or in its body.
type source interface {
	text(name string) string         // must be there
	optionalText(name string) string // empty when it is absent
	token(name string) int64         // 0 when it is absent
}

// eitherWay reads a request to an operation that has two forms: DELETE with a query, and POST
// with a JSON body, in which names need no encoding.
func eitherWay(w http.ResponseWriter, r *http.Request, fields func(source), check func() error) error {
	if r.Method == http.MethodPost {
		return decode(w, r, func(o *object) { fields(o) }, check)
	}
	return query(r, func(p *parameters) { fields(p) }, check)
}

// text is required, by the name that it has in a body.
func (p *parameters) text(name string) string { return p.required(name) }

// optionalText is optional, by the name that it has in a body.
func (p *parameters) optionalText(name string) string {
	value, _ := p.optional(name)
	return value
}

// misplaced is the rule that a field or a body breaks that does not belong where it stands.
const misplaced = "extra_forbidden"

// withoutBody adds a fault if the request has a body: what the caller put there would be ignored.
func (e *invalid) withoutBody(r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if r.ContentLength < 0 { // its length is not told
		if _, err := io.ReadFull(r.Body, make([]byte, 1)); errors.Is(err, io.EOF) {
			return
		}
	}
	message := r.Method + " takes its parameters from the query string, and no body"
	if r.Method == http.MethodDelete {
		message += "; POST on the same path takes a JSON body"
	}
	e.add(misplaced, message, "body")
}

// withoutQuery adds a fault for each field of the body, or near miss of one, that stands in the
// query, where it would be ignored, and reports whether there is one. Other parameters are ignored.
func (o *object) withoutQuery(r *http.Request) (found bool) {
	if r.URL.RawQuery == "" {
		return false
	}
	given, _ := url.ParseQuery(r.URL.RawQuery) // what cannot be read is no field's
	before := len(o.invalid.faults)
	for i, name := range slices.Sorted(maps.Keys(given)) {
		if slices.Contains(o.asked, name) {
			o.invalid.add(misplaced, "POST takes this field from the JSON body, not from the query string", "query", name)
		} else {
			o.invalid.refuseNearMiss(name, i+1, o.asked, "query")
		}
	}
	return len(o.invalid.faults) > before
}
