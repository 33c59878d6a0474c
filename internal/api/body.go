package api

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxBody is the maximum size of a request's body in bytes.
const maxBody = 64 << 10

var (
	errBodyTooLarge = errors.New("the body is larger than 65536 bytes")
	errMediaType    = errors.New("the body must be JSON, declared by the header Content-Type: application/json")
	errCharset      = errors.New("the body must be JSON in UTF-8: the header Content-Type names another charset")
	errEncoding     = errors.New("the body must not be compressed: of Content-Encoding only identity is accepted")
)

// fromBody returns the request that a JSON body states. The function takes its fields
// from the object. An error lists all faults, those that the domain finds included.
func fromBody[T validator](a *API, w http.ResponseWriter, r *http.Request, take func(*object) T) (result T, err error) {
	o := objects.Get().(*object)
	defer o.free()
	if r.ContentLength == 0 && r.URL.RawQuery != "" { // all fields may be in the wrong part of the request
		if result = take(o); o.refuseQuery(r) {
			return result, o.faults.merge(result.Validate(a.locks.Limits()), inBody)
		}
		o.reset()
	}
	if err := readBody(w, r, &o.body); err != nil {
		return result, err
	}
	if err := o.parse(); err != nil {
		return result, err
	}
	result = take(o)
	o.refuseQuery(r)
	o.refuseNearMisses()
	return result, o.faults.merge(result.Validate(a.locks.Limits()), inBody)
}

// readBody reads the whole body of a JSON request.
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
		return bodyError("body_incomplete", "The body could not be read to its end: "+err.Error())
	}
	if bytes.HasPrefix(body.Bytes(), byteOrderMark) { // RFC 8259 allows parsers to ignore it
		body.Next(len(byteOrderMark))
	}
	return nil
}

var byteOrderMark = []byte("\ufeff")

// bodyError refuses a body that is not an object. The location may state a position.
func bodyError(kind, message string, position ...any) error {
	e := &invalidError{}
	e.faults.add(kind, message, slices.Concat([]any{inBody}, position)...)
	return e
}

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

// isIdentity reports whether a body is sent as it is. The header may occur several times,
// with several codings each.
func isIdentity(codings []string) bool {
	for coding := range strings.SplitSeq(strings.Join(codings, ","), ",") {
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	return true
}

// object is a JSON object whose fields are read by name. Unknown fields are ignored
// unless they are near misses. An object is reused for other bodies, so everything that
// is taken from it is a copy.
type object struct {
	path    []any // the location of the object: "body", names of fields and positions in lists
	body    bytes.Buffer
	decoder jsontext.Decoder
	fields  []field
	asked   []string // the names of the fields that were read
	faults  faults
}

type field struct {
	name  []byte         // without its quotes, a part of the body
	value jsontext.Value // a part of the body
}

var objects = sync.Pool{New: func() any { return &object{path: []any{inBody}} }}

func (o *object) free() {
	if o.body.Cap() <= maxKept {
		o.reset()
		objects.Put(o)
	}
}

// reset empties the object, but for its path.
func (o *object) reset() {
	o.body.Reset()
	o.fields = o.fields[:0]
	o.asked = o.asked[:0]
	o.faults = nil
}

// parse checks the whole body: the syntax, valid UTF-8, no lone surrogates, no duplicate
// names.
func (o *object) parse() error {
	body := o.body.Bytes()
	if o.split(body) {
		return nil
	}
	var (
		fields map[string]jsontext.Value
		syntax *jsontext.SyntacticError
	)
	switch {
	case len(body) == 0:
		return bodyError("missing", "Field required")
	case errors.As(json.Unmarshal(body, &fields), &syntax):
		return bodyError("json_invalid", "JSON decode error: "+syntax.Err.Error()+guess(body), syntax.ByteOffset)
	default:
		return bodyError("model_attributes_type", notAnObject)
	}
}

const notAnObject = "Input should be a valid dictionary or object to extract fields from"

// guess names the format of a body that does not start like a text in UTF-8.
func guess(body []byte) string {
	format := http.DetectContentType(body)
	switch {
	case len(body) > 1 && (body[0] == 0 || body[1] == 0):
		format = "UTF-16"
	case format == "application/octet-stream",
		strings.HasPrefix(format, "text/") && strings.HasSuffix(format, "charset=utf-8"):
		return ""
	}
	return ": the body seems to be " + format + ", not JSON in UTF-8"
}

// split finds the fields of the body. It reports whether the body is a valid object;
// parse finds out why it is not.
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

// next returns the next value as a part of the body. What the decoder returns is valid
// only until its next call.
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

// refuseNearMisses is called after all fields have been read.
func (o *object) refuseNearMisses() {
	unknown := 0
	for _, f := range o.fields {
		if !slices.ContainsFunc(o.asked, func(name string) bool { return name == string(f.name) }) {
			unknown++
			o.faults.refuseNearMiss(string(f.name), unknown, o.asked, o.path)
		}
	}
}

// misplaced is the type of the fault of a field or a body that the operation does not
// accept in this part of the request.
const misplaced = "extra_forbidden"

// refuseQuery adds a fault for each query parameter that has the name of a field of the
// body, or nearly: it would be ignored. It reports whether there is one. Other parameters
// are ignored.
func (o *object) refuseQuery(r *http.Request) (found bool) {
	if r.URL.RawQuery == "" {
		return false
	}
	given, _ := url.ParseQuery(r.URL.RawQuery) // what cannot be read has no field's name
	before := len(o.faults)
	for i, name := range slices.Sorted(maps.Keys(given)) {
		if slices.Contains(o.asked, name) {
			message := "POST takes this field from the JSON body, not from the query string"
			o.faults.add(misplaced, message, inQuery, name)
		} else {
			o.faults.refuseNearMiss(name, i+1, o.asked, inTheQuery)
		}
	}
	return len(o.faults) > before
}
