package api

import (
	"encoding/base64"
	"fmt"
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
	given   []parameter
	asked   []string // the names of the parameters that were looked for
	invalid invalid

	// Room for the two lists: what an ordinary query needs.
	givenRoom [4]parameter
	askedRoom [8]string
}

type parameter struct{ name, value string }

// query reads a request's parameters: read takes what it needs, and check returns what the domain finds wrong with that.
// All faults are answered together.
func query(r *http.Request, read func(p *parameters), check func() error) error {
	var p parameters
	p.given, p.asked = p.givenRoom[:0], p.askedRoom[:0]
	if err := p.parse(r.URL.RawQuery); err != nil {
		p.invalid.add("query_invalid", "The query string is malformed: "+err.Error(), "query")
		return &p.invalid
	}
	read(&p)
	p.invalid.withoutBody(r)
	p.refuseNearMisses()
	return p.invalid.with(check, "query")
}

// ordinary is how many parameters a query may have without being looked at twice.
const ordinary = 100

// parse does what url.ParseQuery does, without a map and with a semicolon as a plain character, as in FastAPI. What is wrong
// with a query, and whether it has too many parameters, that function says.
func (p *parameters) parse(query string) error {
	doubtful := strings.Count(query, "&") > ordinary
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		doubtful = doubtful || nameErr != nil || valueErr != nil
		p.given = append(p.given, parameter{name, value})
	}
	if !doubtful {
		return nil
	}
	_, err := url.ParseQuery(strings.ReplaceAll(query, ";", "%3B"))
	return err
}

// refuseNearMisses is called when all parameters have been looked for.
func (p *parameters) refuseNearMisses() {
	unknown := 0
	for _, given := range p.given {
		if !slices.Contains(p.asked, given.name) {
			unknown++
			p.invalid.refuseNearMiss(given.name, unknown, p.asked, "query")
		}
	}
}

// find returns a parameter's first value, and how often it stands there.
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

// optional returns a parameter that may be absent but must not stand there twice.
func (p *parameters) optional(name string) (value string, present bool) {
	value, times := p.find(name)
	if times <= 1 {
		return value, times == 1
	}
	p.invalid.add("duplicate", "Parameter should be given once", "query", name)
	return "", false
}

// required returns a parameter that must be there.
func (p *parameters) required(name string) string {
	if _, times := p.find(name); times == 0 {
		p.invalid.add("missing", "Field required", "query", name)
		return ""
	}
	value, _ := p.optional(name)
	return value
}

// token returns a fencing token; 0 when it is absent.
func (p *parameters) token(name string) int64 {
	value, present := p.optional(name)
	if !present {
		return 0
	}
	token, err := parseToken(value)
	if err != nil {
		p.invalid.add("int_parsing", tokenMessage, "query", name)
	}
	return token
}

// requiredToken returns a fencing token that must be there.
func (p *parameters) requiredToken(name string) int64 {
	if _, times := p.find(name); times == 0 {
		p.invalid.add("missing", "Field required", "query", name)
	}
	return p.token(name)
}

// limit returns a page's size; 0 when it is absent.
func (p *parameters) limit(name string) int {
	value, present := p.optional(name)
	if !present {
		return 0
	}
	n, err := wholeNumber(value)
	if err != nil || n < 1 || n > maxPage {
		p.invalid.add("int_parsing", fmt.Sprintf("Input should be a whole number from 1 to %d", maxPage), "query", name)
	}
	return int(n)
}

// events returns the kinds of events that a list separated by commas names; nil when it is
// absent.
func (p *parameters) events(name string) (kinds []lock.EventKind) {
	value, present := p.optional(name)
	if !present {
		return nil
	}
	for kind := range strings.SplitSeq(value, ",") {
		switch kind := lock.EventKind(kind); {
		case !slices.Contains(lock.EventKinds(), kind):
			message := fmt.Sprintf("Input should be one or more of %s, separated by commas", joined(lock.EventKinds()))
			p.invalid.add("enum", message, "query", name)
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

// moment returns a moment in whole microseconds, as events have them, rounded up; zero when it is
// absent. A plus that was not percent-encoded has become a space, which can be nothing else in
// front of an offset.
func (p *parameters) moment(name string) time.Time {
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
		p.invalid.add("datetime_parsing", message, "query", name)
		return time.Time{}
	}
	if whole := t.Truncate(time.Microsecond); whole.Before(t) {
		t = whole.Add(time.Microsecond)
	}
	switch t = t.UTC(); { // in UTC it may lie in a year that the databases cannot express
	case t.Year() < 1 || t.IsZero():
		return time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}

// maxPage is the most entries of one page.
const maxPage = 1000

// cursor returns the id that a page goes on from; 0 when it is absent.
func (p *parameters) cursor(name string) int64 {
	text, present := p.decoded(name)
	if !present {
		return 0
	}
	id, err := strconv.ParseInt(text, 36, 64)
	if err != nil || id <= 0 {
		p.badCursor(name)
	}
	return id
}

// nameMark tells the cursor of a list that is sorted by name from an id.
const nameMark = "/"

// nameCursor returns the resource name that a page goes on from; empty when the cursor is absent.
func (p *parameters) nameCursor(name string) string {
	text, present := p.decoded(name)
	if !present {
		return ""
	}
	resource, marked := strings.CutPrefix(text, nameMark)
	if !marked || resource == "" || !utf8.ValidString(resource) || strings.Contains(resource, "\x00") {
		p.badCursor(name)
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
		p.badCursor(name)
		return "", false
	}
	return string(decoded), true
}

func (p *parameters) badCursor(name string) {
	p.invalid.add("cursor_invalid", "Input should be the next_cursor of an earlier answer to the same question", "query", name)
}

// cursorOf names the id that the next page goes on from. Clients are not to read anything into it.
func cursorOf(id int64) *string { return cursorText(strconv.FormatInt(id, 36)) }

// nameCursorOf names the resource that the next page of a list sorted by name goes on from.
func nameCursorOf(resource string) *string { return cursorText(nameMark + resource) }

func cursorText(text string) *string {
	encoded := base64.RawURLEncoding.EncodeToString([]byte(text))
	return &encoded
}
