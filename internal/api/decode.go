package api

import (
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

var (
	errBodyTooLarge = errors.New("the body is larger than 65536 bytes")
	errMediaType    = errors.New("the body must be JSON, declared by the header Content-Type: application/json")
)

// invalid is a request that cannot be read, with every fault found.
type invalid struct {
	faults []wire.Fault
}

func (e *invalid) Error() string { return "the request is not valid" }

func (e *invalid) add(kind, message string, loc ...any) {
	e.faults = append(e.faults, wire.Fault{Loc: loc, Msg: message, Type: kind})
}

// locOf is the path of a field, positions in a list as numbers.
func locOf(place, field string) []any {
	loc := []any{place}
	for part := range strings.SplitSeq(field, ".") {
		if i, err := strconv.Atoi(part); err == nil {
			loc = append(loc, i)
		} else {
			loc = append(loc, part)
		}
	}
	return loc
}

// has tells whether a fault of the field was found.
func (e *invalid) has(field any) bool {
	return slices.ContainsFunc(e.faults, func(f wire.Fault) bool { return len(f.Loc) > 1 && f.Loc[1] == field })
}

// with is nil when nothing was found. Otherwise it adds what the domain finds wrong with the fields that could be read.
func (e *invalid) with(check func() error, place string) error {
	if len(e.faults) == 0 {
		return nil
	}
	var rest *lock.InvalidError
	if errors.As(check(), &rest) {
		e.take(rest, place)
	}
	return e
}

// take adds the domain's faults, except of fields that could not be read: they have no value to judge.
func (e *invalid) take(rest *lock.InvalidError, place string) {
	unread := *e
	for _, f := range rest.Faults {
		if loc := locOf(place, f.Field); !unread.has(loc[1]) {
			e.add(f.Rule, f.Message, loc...)
		}
	}
}

// decode reads a body: fields takes what it needs from the object, and check returns what the domain finds wrong with
// that. All faults are answered together.
func decode(w http.ResponseWriter, r *http.Request, fields func(o *object), check func() error) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	o, err := decodeObject(body)
	if err != nil {
		return err
	}
	fields(o)
	return o.invalid.with(check, "body")
}

// readBody returns a JSON request's whole body.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, errMediaType
	}
	if r.ContentLength > maxBody {
		return nil, errBodyTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, errBodyTooLarge
	}
	if err != nil {
		var e invalid
		e.add("body_incomplete", "The body could not be read to its end: "+err.Error(), "body")
		return nil, &e
	}
	return body, nil
}

// object is a JSON object whose fields are read by name. Unknown fields are ignored.
type object struct {
	fields  map[string]jsontext.Value
	invalid invalid
}

// decodeObject checks the whole body: syntax, valid UTF-8, no lone surrogates, no name twice.
func decodeObject(body []byte) (*object, error) {
	o := &object{}
	if len(body) == 0 {
		o.invalid.add("missing", "Field required", "body")
		return nil, &o.invalid
	}
	value := jsontext.Value(body)
	var syntax *jsontext.SyntacticError
	switch err := json.Unmarshal(value, &o.fields); {
	case errors.As(err, &syntax):
		o.invalid.add("json_invalid", "JSON decode error: "+syntax.Err.Error(), "body", syntax.ByteOffset)
	case err != nil || o.fields == nil:
		o.invalid.add("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", "body")
	default:
		return o, nil
	}
	return nil, &o.invalid
}

func (o *object) reject(field, kind, message string) {
	o.invalid.add(kind, message, "body", field)
}

// present returns a field's value unless it is absent or null.
func (o *object) present(field string) (jsontext.Value, bool) {
	value, found := o.fields[field]
	return value, found && value.Kind() != 'n'
}

// text reads a required string.
func (o *object) text(field string) string {
	value, found := o.fields[field]
	if !found {
		o.reject(field, "missing", "Field required")
		return ""
	}
	return o.string(field, value)
}

// optionalText reads a string that may be absent or null, which is the empty string.
func (o *object) optionalText(field string) string {
	value, present := o.present(field)
	if !present {
		return ""
	}
	return o.string(field, value)
}

func (o *object) string(field string, value jsontext.Value) string {
	var text string
	if value.Kind() != '"' || json.Unmarshal(value, &text) != nil {
		o.reject(field, "string_type", "Input should be a valid string")
	}
	return text
}

// requestID reads a string that, unlike other optional ones, must not be empty when it is there.
func (o *object) requestID(field string) string {
	text := o.optionalText(field)
	if _, present := o.present(field); present && text == "" && !o.invalid.has(field) {
		o.reject(field, "string_too_short", "String should have at least 1 character")
	}
	return text
}

// seconds reads an optional number of seconds greater than 0, in microseconds; 0 when it is absent or null.
func (o *object) seconds(field string) time.Duration {
	d, present := o.duration(field)
	if present && d <= 0 && !o.invalid.has(field) {
		o.reject(field, "greater_than", "Input should be greater than 0")
		return 0
	}
	return d
}

// duration reads an optional number of seconds of either sign, in microseconds, away from 0. What is beyond every limit
// becomes the greatest duration.
func (o *object) duration(field string) (d time.Duration, present bool) {
	value, present := o.present(field)
	if !present {
		return 0, false
	}
	if value.Kind() != '0' {
		o.reject(field, "float_type", "Input should be a valid number")
		return 0, true
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	switch {
	case err != nil: // the syntax has been checked: it is out of range
		o.reject(field, "finite_number", "Input should be a finite number")
		return 0, true
	case seconds >= math.MaxInt64/1e9:
		return math.MaxInt64, true
	case seconds < 0:
		return -1, true
	case seconds > 0:
		return max(time.Duration(math.Round(seconds*1e6))*time.Microsecond, time.Microsecond), true
	}
	return 0, true
}

// token reads an optional fencing token; 0 when it is absent or null.
func (o *object) token(field string) int64 {
	value, present := o.present(field)
	if !present {
		return 0
	}
	token, err := parseToken(string(value))
	if value.Kind() != '0' || err != nil {
		o.reject(field, "int_type", tokenMessage)
		return 0
	}
	return token
}

// tokenMessage says what a fencing token looks like.
const tokenMessage = "Input should be a fencing token: a whole number greater than 0"

func parseToken(text string) (int64, error) {
	token, err := strconv.ParseInt(text, 10, 64)
	if err == nil && token <= 0 {
		err = strconv.ErrRange
	}
	return token, err
}

// json reads an optional value of any kind, without white space; empty when it is absent or null.
func (o *object) json(field string) string {
	value, present := o.present(field)
	if !present {
		return ""
	}
	value = value.Clone()
	if err := value.Compact(); err != nil { // the syntax has been checked
		o.reject(field, "json_invalid", err.Error())
	}
	return string(value)
}

// owned reads an optional list of holds.
func (o *object) owned(field string) []lock.Owned {
	value, present := o.present(field)
	if !present {
		return nil
	}
	var list []jsontext.Value
	if json.Unmarshal(value, &list) != nil {
		o.reject(field, "list_type", "Input should be a valid list")
		return nil
	}
	holds := make([]lock.Owned, 0, len(list))
	for i, item := range list {
		var part object
		if json.Unmarshal(item, &part.fields) != nil || part.fields == nil {
			o.invalid.add("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", "body", field, i)
			continue
		}
		hold := lock.Owned{Resource: part.text("resource_name"), Token: part.token("fencing_token")}
		if _, found := part.present("fencing_token"); !found {
			part.reject("fencing_token", "missing", "Field required")
		}
		for _, f := range part.invalid.faults {
			o.invalid.add(f.Type, f.Msg, "body", field, i, f.Loc[1])
		}
		holds = append(holds, hold)
	}
	return holds
}
