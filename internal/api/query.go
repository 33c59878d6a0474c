package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"resource-lock-manager/internal/lock"
)

// parameters are a request's query parameters, read by name. Unknown ones are ignored
// unless they are near misses.
type parameters struct {
	given  []parameter
	asked  []string // the names of the parameters that were read
	faults faults

	// Room for the two lists, enough for most queries.
	givenRoom [4]parameter
	askedRoom [8]string
}

type parameter struct{ name, value string }

// inTheQuery is the location of the parameters.
var inTheQuery = []any{inQuery}

// fromQuery returns the request that the query parameters state. The function takes its
// fields from them. An error lists all faults, those that the domain finds included.
func fromQuery[T validator](a *API, r *http.Request, take func(*parameters) T) (result T, err error) {
	var p parameters
	p.given, p.asked = p.givenRoom[:0], p.askedRoom[:0]
	if err := p.parse(r.URL.RawQuery); err != nil {
		p.faults.add("query_invalid", "The query string is malformed: "+err.Error(), inQuery)
		return result, &invalidError{faults: p.faults}
	}
	result = take(&p)
	p.refuseBody(r)
	p.refuseNearMisses()
	return result, p.faults.merge(result.Validate(a.locks.Limits()), inQuery)
}

// maxFastParams is the maximum number of parameters that parse reads without
// url.ParseQuery.
const maxFastParams = 100

// parse does what url.ParseQuery does, without a map, and with a semicolon as an ordinary
// character, as in FastAPI. url.ParseQuery then decides about the errors of a query and
// about the maximum number of parameters.
func (p *parameters) parse(query string) error {
	needsFullParse := strings.Count(query, "&") > maxFastParams
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		needsFullParse = needsFullParse || nameErr != nil || valueErr != nil
		p.given = append(p.given, parameter{name, value})
	}
	if !needsFullParse {
		return nil
	}
	_, err := url.ParseQuery(strings.ReplaceAll(query, ";", "%3B"))
	return err
}

// refuseBody adds a fault if the request has a body: its content would be ignored.
func (p *parameters) refuseBody(r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if r.ContentLength < 0 { // the length is unknown
		if _, err := io.ReadFull(r.Body, make([]byte, 1)); errors.Is(err, io.EOF) {
			return
		}
	}
	message := r.Method + " takes its parameters from the query string, and no body"
	if r.Method == http.MethodDelete {
		message += "; POST on the same path takes a JSON body"
	}
	p.faults.add(misplaced, message, inBody)
}

// refuseNearMisses is called after all parameters have been read.
func (p *parameters) refuseNearMisses() {
	unknown := 0
	for _, given := range p.given {
		if !slices.Contains(p.asked, given.name) {
			unknown++
			p.faults.refuseNearMiss(given.name, unknown, p.asked, inTheQuery)
		}
	}
}

// reject adds a fault of a parameter.
func (p *parameters) reject(name, kind, message string) {
	p.faults.add(kind, message, inQuery, name)
}

// find returns the first value of a parameter, and how often the parameter was given.
func (p *parameters) find(name string) (value string, times int) {
	if !slices.Contains(p.asked, name) {
		p.asked = append(p.asked, name)
	}
	for _, given := range p.given {
		if given.name != name {
			continue
		}
		if times++; times == 1 {
			value = given.value
		}
	}
	return value, times
}

// optional returns a parameter that may be absent but must not be given twice.
func (p *parameters) optional(name string) (value string, present bool) {
	value, times := p.find(name)
	if times <= 1 {
		return value, times == 1
	}
	p.reject(name, "duplicate", "Parameter should be given once")
	return "", false
}

// text returns a required parameter.
func (p *parameters) text(name string) string {
	if _, times := p.find(name); times == 0 {
		p.faults.addRule(lock.Required, nil, inQuery, name)
		return ""
	}
	return p.optionalText(name)
}

// optionalText returns a parameter that may be absent, which is the empty string.
func (p *parameters) optionalText(name string) string {
	value, _ := p.optional(name)
	return value
}

// token returns a fencing token; 0 if it is absent.
func (p *parameters) token(name string) int64 {
	value, present := p.optional(name)
	if !present {
		return 0
	}
	token, err := parseToken(value)
	if err != nil {
		p.reject(name, "int_parsing", notAToken)
	}
	return token
}

// requiredToken returns a required fencing token.
func (p *parameters) requiredToken(name string) int64 {
	if _, times := p.find(name); times == 0 {
		p.faults.addRule(lock.Required, nil, inQuery, name)
	}
	return p.token(name)
}

// limit returns the maximum number of entries of a page; 0 if it is absent.
func (p *parameters) limit(name string) int {
	value, present := p.optional(name)
	if !present {
		return 0
	}
	n, err := wholeNumber(value)
	if err != nil || n < 1 || n > maxPage {
		p.reject(name, "int_parsing", fmt.Sprintf("Input should be a whole number from 1 to %d", maxPage))
	}
	return int(n)
}

// events returns the kinds of events in a list separated by commas, each once; nil if it
// is absent.
func (p *parameters) events(name string) (kinds []lock.EventKind) {
	value, present := p.optional(name)
	if !present {
		return nil
	}
	for kind := range strings.SplitSeq(value, ",") {
		switch kind := lock.EventKind(kind); {
		case !slices.Contains(lock.EventKinds(), kind):
			message := fmt.Sprintf("Input should be one or more of %s, separated by commas", joined(lock.EventKinds()))
			p.reject(name, "enum", message)
			return nil
		case !slices.Contains(kinds, kind):
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func joined(kinds []lock.EventKind) string {
	var names []string
	for _, kind := range kinds {
		names = append(names, string(kind))
	}
	return strings.Join(names, ", ")
}

// timestamp returns a time in whole microseconds, the precision of events, rounded up;
// zero if it is absent. A plus that was not percent-encoded has become a space. Before an
// offset a space can be nothing else.
func (p *parameters) timestamp(name string) time.Time {
	value, present := p.optional(name)
	if !present {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, value)
	if i := len(value) - len(" 00:00"); err != nil && i > 0 && value[i] == ' ' {
		t, err = time.Parse(time.RFC3339, value[:i]+"+"+value[i+1:])
	}
	if err != nil {
		message := "Input should be a moment in RFC 3339, such as 2024-01-15T10:30:00Z or 2024-01-15T11:30:00%2B01:00"
		p.reject(name, "datetime_parsing", message)
		return time.Time{}
	}
	if whole := t.Truncate(time.Microsecond); whole.Before(t) {
		t = whole.Add(time.Microsecond)
	}
	switch t = t.UTC(); { // its year in UTC may be one that the databases cannot express
	case t.Year() < 1 || t.IsZero():
		return time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}

// maxPage is the maximum number of entries of a page.
const maxPage = 1000

// cursor returns the id after which a page starts; 0 if it is absent.
func (p *parameters) cursor(name string) int64 {
	text, present := p.decoded(name)
	if !present {
		return 0
	}
	id, err := strconv.ParseInt(text, 36, 64)
	if err != nil || id <= 0 {
		p.rejectCursor(name)
	}
	return id
}

// nameMark distinguishes the cursor of a list that is sorted by name from an id.
const nameMark = "/"

// nameCursor returns the resource name after which a page starts; empty if it is absent.
func (p *parameters) nameCursor(name string) string {
	text, present := p.decoded(name)
	if !present {
		return ""
	}
	resource, marked := strings.CutPrefix(text, nameMark)
	if !marked || resource == "" || !utf8.ValidString(resource) || strings.Contains(resource, "\x00") {
		p.rejectCursor(name)
		return ""
	}
	return resource
}

// decoded returns the text of a cursor.
func (p *parameters) decoded(name string) (text string, present bool) {
	value, present := p.optional(name)
	if !present {
		return "", false
	}
	decoded, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		p.rejectCursor(name)
		return "", false
	}
	return string(decoded), true
}

func (p *parameters) rejectCursor(name string) {
	p.reject(name, "cursor_invalid", "Input should be the next_cursor of an earlier answer to the same question")
}

// cursorOf returns the cursor of the page after the entry with the id. It is opaque to
// clients.
func cursorOf(id int64) *string { return encodedCursor(strconv.FormatInt(id, 36)) }

// nameCursorOf returns the cursor of the page after the resource, in a list sorted by
// name.
func nameCursorOf(resource string) *string { return encodedCursor(nameMark + resource) }

func encodedCursor(text string) *string {
	encoded := base64.RawURLEncoding.EncodeToString([]byte(text))
	return &encoded
}
