package api

import (
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
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

// decodeAcquire reads the body of POST /locks/request. Faults that it finds come together with those that the domain
// finds in the fields that could be read.
func (a *API) decodeAcquire(w http.ResponseWriter, r *http.Request) (lock.Acquire, error) {
	body, err := readBody(w, r)
	if err != nil {
		return lock.Acquire{}, err
	}
	o, err := decodeObject(body)
	if err != nil {
		return lock.Acquire{}, err
	}
	command := lock.Acquire{
		Resource:  o.text("resource_name"),
		ProcessID: o.text("process_id"),
		TTL:       o.seconds("ttl_seconds"),
	}
	if len(o.invalid.faults) == 0 {
		return command, nil
	}
	var rest *lock.InvalidError
	if errors.As(a.locks.CheckAcquire(command), &rest) {
		for _, f := range rest.Faults {
			if !o.faulty[f.Field] {
				o.invalid.add(f.Rule, f.Message, "body", f.Field)
			}
		}
	}
	return lock.Acquire{}, &o.invalid
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
	faulty  map[string]bool
}

// decodeObject checks the whole body: syntax, valid UTF-8, no lone surrogates, no name twice.
func decodeObject(body []byte) (*object, error) {
	o := &object{faulty: map[string]bool{}}
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
	o.faulty[field] = true
	o.invalid.add(kind, message, "body", field)
}

// text reads a required string.
func (o *object) text(field string) string {
	value, found := o.fields[field]
	if !found {
		o.reject(field, "missing", "Field required")
		return ""
	}
	var text string
	if value.Kind() != '"' || json.Unmarshal(value, &text) != nil {
		o.reject(field, "string_type", "Input should be a valid string")
	}
	return text
}

// seconds reads an optional number of seconds greater than 0, in microseconds; 0 when it is absent or null.
func (o *object) seconds(field string) time.Duration {
	value, found := o.fields[field]
	if !found || value.Kind() == 'n' {
		return 0
	}
	if value.Kind() != '0' {
		o.reject(field, "float_type", "Input should be a valid number")
		return 0
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	switch {
	case err != nil: // the syntax has been checked: it is out of range
		o.reject(field, "finite_number", "Input should be a finite number")
	case seconds <= 0:
		o.reject(field, "greater_than", "Input should be greater than 0")
	case seconds >= math.MaxInt64/1e9:
		return math.MaxInt64 // beyond every limit
	default:
		return max(time.Duration(math.Round(seconds*1e6))*time.Microsecond, time.Microsecond)
	}
	return 0
}

// queryOf returns the values of required query parameters, each of which must stand there once.
func queryOf(r *http.Request, names ...string) ([]string, error) {
	var faults invalid
	query, err := url.ParseQuery(strings.ReplaceAll(r.URL.RawQuery, ";", "%3B")) // a plain character, as in FastAPI
	if err != nil {
		faults.add("query_invalid", "The query string is malformed: "+err.Error(), "query")
		return nil, &faults
	}
	values := make([]string, len(names))
	for i, name := range names {
		switch given := query[name]; len(given) {
		case 0:
			faults.add("missing", "Field required", "query", name)
		case 1:
			values[i] = given[0]
		default:
			faults.add("duplicate", "Parameter should be given once", "query", name)
		}
	}
	if len(faults.faults) > 0 {
		return nil, &faults
	}
	return values, nil
}
