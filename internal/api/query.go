package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// parameters are a request's query parameters, read by name. Unknown ones are ignored.
type parameters struct {
	values  url.Values
	invalid invalid
}

// query reads a request's parameters: read takes what it needs, and check returns what the domain finds wrong with that.
// All faults are answered together.
func query(r *http.Request, read func(p *parameters), check func() error) error {
	var p parameters
	var err error
	if p.values, err = url.ParseQuery(strings.ReplaceAll(r.URL.RawQuery, ";", "%3B")); err != nil { // a plain character, as in FastAPI
		p.invalid.add("query_invalid", "The query string is malformed: "+err.Error(), "query")
		return &p.invalid
	}
	read(&p)
	return p.invalid.with(check, "query")
}

// optional returns a parameter that may be absent but must not stand there twice.
func (p *parameters) optional(name string) (value string, present bool) {
	given := p.values[name]
	switch len(given) {
	case 0:
		return "", false
	case 1:
		return given[0], true
	}
	p.invalid.add("duplicate", "Parameter should be given once", "query", name)
	return "", false
}

// required returns a parameter that must be there.
func (p *parameters) required(name string) string {
	if len(p.values[name]) == 0 {
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
	if len(p.values[name]) == 0 {
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
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxPage {
		p.invalid.add("int_parsing", fmt.Sprintf("Input should be a whole number from 1 to %d", maxPage), "query", name)
	}
	return n
}

// maxPage is the most entries of one page.
const maxPage = 1000

// cursor returns the id that a page goes on from; 0 when it is absent.
func (p *parameters) cursor(name string) int64 {
	value, present := p.optional(name)
	if !present {
		return 0
	}
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err == nil {
		var id int64
		if id, err = strconv.ParseInt(string(text), 36, 64); err == nil && id > 0 {
			return id
		}
	}
	p.invalid.add("cursor_invalid", "Input should be the next_cursor of an earlier answer", "query", name)
	return 0
}

// cursorOf names the id that the next page goes on from. Clients are not to read anything into it.
func cursorOf(id int64) *string {
	text := base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(id, 36)))
	return &text
}
