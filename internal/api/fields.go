package api

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"resource-lock-manager/internal/lock"
)

// source is where an operation that can be called in two ways takes its fields from:
// DELETE from the query, POST from a JSON body.
type source interface {
	text(name string) string         // must be given
	optionalText(name string) string // empty if it is absent
	token(name string) int64         // 0 if it is absent
}

// reject adds a fault of a field.
func (o *object) reject(field, kind, message string) {
	o.faults.add(kind, message, slices.Concat(o.path, []any{field})...)
}

// violates adds a fault of a field that violates a rule of the domain.
func (o *object) violates(field string, rule lock.Rule) {
	o.faults.addRule(rule, nil, slices.Concat(o.path, []any{field})...)
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

// present returns the value of a field unless it is absent or null.
func (o *object) present(field string) (jsontext.Value, bool) {
	value, found := o.find(field)
	return value, found && value.Kind() != 'n'
}

// text reads a required string.
func (o *object) text(field string) string {
	value, found := o.find(field)
	if !found {
		o.violates(field, lock.Required)
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

// requestID reads an optional string that, unlike others, must not be empty.
func (o *object) requestID(field string) string {
	found := len(o.faults)
	text := o.optionalText(field)
	if _, present := o.present(field); present && text == "" && len(o.faults) == found {
		o.violates(field, lock.NotEmpty)
	}
	return text
}

// seconds reads an optional number of seconds greater than 0, in microseconds; 0 if it is
// absent or null.
func (o *object) seconds(field string) time.Duration {
	found := len(o.faults)
	d, present := o.duration(field)
	if present && d <= 0 && len(o.faults) == found {
		o.violates(field, lock.Positive)
		return 0
	}
	return d
}

// requiredSeconds reads a required number of seconds greater than 0.
func (o *object) requiredSeconds(field string) time.Duration {
	switch value, found := o.find(field); {
	case !found:
		o.violates(field, lock.Required)
		return 0
	case value.Kind() == 'n':
		o.reject(field, "float_type", notANumber)
		return 0
	}
	return o.seconds(field)
}

const notANumber = "Input should be a valid number"

// secondsOrNever reads a required number of seconds greater than 0; null is 0 and means
// that the time never ends.
func (o *object) secondsOrNever(field string) time.Duration {
	if value, found := o.find(field); found && value.Kind() == 'n' {
		return 0
	}
	return o.requiredSeconds(field)
}

// duration reads an optional number of seconds of either sign, rounded to microseconds,
// but never to 0. A number beyond every limit becomes the greatest duration.
func (o *object) duration(field string) (d time.Duration, present bool) {
	value, present := o.present(field)
	if !present {
		return 0, false
	}
	if value.Kind() != '0' {
		o.reject(field, "float_type", notANumber)
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

// token reads an optional fencing token; 0 if it is absent or null.
func (o *object) token(field string) int64 {
	value, present := o.present(field)
	if !present {
		return 0
	}
	token, err := parseToken(string(value))
	if value.Kind() != '0' || err != nil {
		o.reject(field, "int_type", notAToken)
		return 0
	}
	return token
}

const notAToken = "Input should be a fencing token: a whole number greater than 0 and less than 2^63"

func parseToken(text string) (int64, error) {
	token, err := wholeNumber(text)
	if err == nil && token <= 0 {
		err = strconv.ErrRange
	}
	return token, err
}

// json reads an optional value of any kind, without white space; empty if it is absent or
// null.
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

// list reads an optional list of objects; nil if it is absent or null. An element that is
// no object becomes the zero value, so that every element keeps its position.
func list[T any](o *object, field string, take func(element *object) T) []T {
	value, present := o.present(field)
	if !present {
		return nil
	}
	var elements []jsontext.Value
	if json.Unmarshal(value, &elements) != nil {
		o.reject(field, "list_type", "Input should be a valid list")
		return nil
	}
	taken := make([]T, len(elements))
	element := object{path: slices.Concat(o.path, []any{field, 0})}
	for i, value := range elements {
		element.reset()
		element.path[len(element.path)-1] = i
		element.body.Write(value)
		if element.split(element.body.Bytes()) {
			taken[i] = take(&element)
			element.refuseNearMisses()
		} else {
			element.faults.add("model_attributes_type", notAnObject, slices.Clone(element.path)...)
		}
		o.faults = append(o.faults, element.faults...)
	}
	return taken
}

// holds reads an optional list of holds; nil if it is absent or null.
func (o *object) holds(field string) []lock.HoldRef {
	return list(o, field, func(element *object) lock.HoldRef {
		ref := lock.HoldRef{Resource: element.text("resource_name"), Token: element.token("fencing_token")}
		if _, present := element.present("fencing_token"); !present {
			element.violates("fencing_token", lock.Required)
		}
		return ref
	})
}
