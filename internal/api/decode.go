package api

import (
	"bytes"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

var (
	errBodyTooLarge = errors.New("the body is larger than 65536 bytes")
	errMediaType    = errors.New("the body must be JSON, declared by the header Content-Type: application/json")
	errCharset      = errors.New("the body must be JSON in UTF-8: the header Content-Type names another charset")
	errEncoding     = errors.New("the body must not be compressed: of Content-Encoding only identity is accepted")
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
	return &invalid{faults: e.faults} // e is part of what is used again for another request
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
	o := objects.Get().(*object)
	defer o.free()
	if r.ContentLength == 0 && r.URL.RawQuery != "" { // the fields may all stand in the wrong place
		if fields(o); o.withoutQuery(r) {
			return o.invalid.with(check, "body")
		}
		o.reset()
	}
	if err := readBody(w, r, &o.body); err != nil {
		return err
	}
	if err := o.parse(); err != nil {
		return err
	}
	fields(o)
	o.withoutQuery(r)
	o.refuseNearMisses()
	return o.invalid.with(check, "body")
}

// readBody reads a JSON request's whole body.
func readBody(w http.ResponseWriter, r *http.Request, body *bytes.Buffer) error {
	if err := checkMediaType(r.Header.Get("Content-Type")); err != nil {
		return err
	}
	if codings := r.Header["Content-Encoding"]; len(codings) > 0 && !isIdentity(codings) {
		w.Header().Set("Accept-Encoding", "identity")
		return errEncoding
	}
	if r.ContentLength > maxBody {
		return errBodyTooLarge
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return errBodyTooLarge
	}
	if err != nil {
		var e invalid
		e.add("body_incomplete", "The body could not be read to its end: "+err.Error(), "body")
		return &e
	}
	if bytes.HasPrefix(body.Bytes(), byteOrderMark) { // RFC 8259 allows it to be ignored
		body.Next(len(byteOrderMark))
	}
	return nil
}

var byteOrderMark = []byte("\ufeff")

func checkMediaType(given string) error {
	const mediaType = "application/json"
	if given == mediaType {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given)
	if err != nil || media != mediaType {
		return errMediaType
	}
	switch strings.ToLower(parameters["charset"]) {
	case "", "utf-8", "utf8", "us-ascii": // ASCII is a part of UTF-8
		return nil
	}
	return errCharset
}

// isIdentity reports whether a body is sent as it is. The header may be there several times,
// with several codings each.
func isIdentity(codings []string) bool {
	for coding := range strings.SplitSeq(strings.Join(codings, ","), ",") {
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	return true
}

// object is a JSON object whose fields are read by name. Unknown fields are ignored unless
// they are near misses. It is used again for other bodies, so that what is taken out of it
// is a copy.
type object struct {
	body    bytes.Buffer
	decoder jsontext.Decoder
	fields  []field
	asked   []string // the names of the fields that were looked for
	invalid invalid
}

// field is a part of an object's body.
type field struct {
	name  []byte // without its quotes
	value jsontext.Value
}

// objects are for decode.
var objects = sync.Pool{New: func() any { return new(object) }}

func (o *object) free() {
	if o.body.Cap() <= mostKept {
		o.reset()
		objects.Put(o)
	}
}

func (o *object) reset() {
	o.body.Reset()
	o.fields = o.fields[:0]
	o.asked = o.asked[:0]
	o.invalid = invalid{}
}

// parse checks the whole body: syntax, valid UTF-8, no lone surrogates, no name twice.
func (o *object) parse() error {
	body := o.body.Bytes()
	if o.split(body) {
		return nil
	}
	var (
		fields map[string]jsontext.Value
		syntax *jsontext.SyntacticError
		e      invalid
	)
	switch {
	case len(body) == 0:
		e.add("missing", "Field required", "body")
	case errors.As(json.Unmarshal(body, &fields), &syntax):
		e.add("json_invalid", "JSON decode error: "+syntax.Err.Error()+guess(body), "body", syntax.ByteOffset)
	default:
		e.add("model_attributes_type", notAnObject, "body")
	}
	return &e
}

// guess names the form of a body that begins unlike any text in UTF-8.
func guess(body []byte) string {
	form := http.DetectContentType(body)
	switch {
	case len(body) > 1 && (body[0] == 0 || body[1] == 0):
		form = "UTF-16"
	case strings.HasPrefix(form, "text/") && strings.HasSuffix(form, "charset=utf-8"), form == "application/octet-stream":
		return ""
	}
	return ": the body seems to be " + form + ", not JSON in UTF-8"
}

const notAnObject = "Input should be a valid dictionary or object to extract fields from"

// split finds the fields of the body. It reports whether that is a sound object, and leaves it to others to say why it is not.
func (o *object) split(body []byte) bool {
	o.decoder.Reset(&o.body)
	if start, err := o.decoder.ReadToken(); err != nil || start.Kind() != '{' {
		return false
	}
	for o.decoder.PeekKind() != '}' {
		name, err := o.next(body)
		if err != nil {
			return false
		}
		value, err := o.next(body)
		if err != nil {
			return false
		}
		o.fields = append(o.fields, field{unquoted(name), value})
	}
	if _, err := o.decoder.ReadToken(); err != nil {
		return false
	}
	_, err := o.decoder.ReadToken()
	return errors.Is(err, io.EOF)
}

// next returns the next value as a part of the body: what the decoder returns holds only until it goes on.
func (o *object) next(body []byte) (jsontext.Value, error) {
	value, err := o.decoder.ReadValue()
	end := int(o.decoder.InputOffset())
	return body[end-len(value) : end : end], err
}

// unquoted returns the text of a string whose syntax has been checked.
func unquoted(value jsontext.Value) []byte {
	if plain := value[1 : len(value)-1]; bytes.IndexByte(plain, '\\') < 0 {
		return plain
	}
	text, _ := jsontext.AppendUnquote(nil, value)
	return text
}

func (o *object) reject(field, kind, message string) {
	o.invalid.add(kind, message, "body", field)
}

// refuseNearMisses is called when all fields have been looked for.
func (o *object) refuseNearMisses() {
	unknown := 0
	for _, f := range o.fields {
		if !slices.ContainsFunc(o.asked, func(name string) bool { return name == string(f.name) }) {
			unknown++
			o.invalid.refuseNearMiss(string(f.name), unknown, o.asked, "body")
		}
	}
}

func (o *object) find(name string) (value jsontext.Value, found bool) {
	if !slices.Contains(o.asked, name) {
		o.asked = append(o.asked, name)
	}
	for _, f := range o.fields {
		if string(f.name) == name {
			return f.value, true
		}
	}
	return nil, false
}

// present returns a field's value unless it is absent or null.
func (o *object) present(field string) (jsontext.Value, bool) {
	value, found := o.find(field)
	return value, found && value.Kind() != 'n'
}

// text reads a required string.
func (o *object) text(field string) string {
	value, found := o.find(field)
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
	if value.Kind() != '"' {
		o.reject(field, "string_type", "Input should be a valid string")
		return ""
	}
	return string(unquoted(value))
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

// requiredSeconds reads a number of seconds greater than 0 that must be there.
func (o *object) requiredSeconds(field string) time.Duration {
	switch value, found := o.find(field); {
	case !found:
		o.reject(field, "missing", "Field required")
		return 0
	case value.Kind() == 'n':
		o.reject(field, "float_type", "Input should be a valid number")
		return 0
	}
	return o.seconds(field)
}

// secondsOrNever reads a number of seconds greater than 0 that must be there; null is 0 and
// stands for a time that never ends.
func (o *object) secondsOrNever(field string) time.Duration {
	if value, found := o.find(field); found && value.Kind() == 'n' {
		return 0
	}
	return o.requiredSeconds(field)
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
	if seconds == 0 && isNotZero(value) { // less than a float can be
		seconds = math.Copysign(math.SmallestNonzeroFloat64, seconds)
	}
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

// isNotZero reports whether a digit before the exponent is not 0.
func isNotZero(number jsontext.Value) bool {
	if e := bytes.IndexAny(number, "eE"); e >= 0 {
		number = number[:e]
	}
	return bytes.ContainsAny(number, "123456789")
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
const tokenMessage = "Input should be a fencing token: a whole number greater than 0 and less than 2^63"

func parseToken(text string) (int64, error) {
	token, err := wholeNumber(text)
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
	var part object
	for i, item := range list {
		part.reset()
		part.body.Write(item)
		if !part.split(part.body.Bytes()) {
			o.invalid.add("model_attributes_type", notAnObject, "body", field, i)
			continue
		}
		hold := lock.Owned{Resource: part.text("resource_name"), Token: part.token("fencing_token")}
		if _, found := part.present("fencing_token"); !found {
			part.reject("fencing_token", "missing", "Field required")
		}
		part.refuseNearMisses()
		for _, f := range part.invalid.faults {
			o.invalid.add(f.Type, f.Msg, "body", field, i, f.Loc[1])
		}
		holds = append(holds, hold)
	}
	return holds
}
