package api

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// validator is what a client asks of the service: a command, a name or a filter.
type validator interface {
	// Validate returns every fault of the request.
	Validate(limits lock.Limits) []lock.Fault
}

// invalidError refuses a request that cannot be read or that violates a limit. It lists
// every fault.
type invalidError struct{ faults faults }

func (e *invalidError) Error() string { return "the request is not valid" }

// faults collects what is wrong with a request. The location of a fault is the part of
// the HTTP request, "body" or "query", and then the path of a field: names, and positions
// in lists.
type faults []wire.Fault

// The parts of an HTTP request in which a field can be.
const (
	inBody  = "body"
	inQuery = "query"
)

// add adds a fault. It keeps the location.
func (f *faults) add(kind, message string, location ...any) {
	*f = append(*f, wire.Fault{Loc: location, Msg: message, Type: kind})
}

// addRule adds a fault in the words of the rule that is violated.
func (f *faults) addRule(rule lock.Rule, limit any, location ...any) {
	words := rules[rule]
	message := words.message
	if limit != nil {
		message = fmt.Sprintf(message, limitText(limit))
	}
	f.add(words.kind, message, location...)
}

// fieldPath is the path of a field as a key. No path is longer.
type fieldPath [6]any

func pathOf(path []any) (p fieldPath) {
	copy(p[:], path)
	return p
}

// unread is the set of the fields that could not be read.
type unread map[fieldPath]bool

// unread returns the fields that have a fault. A request may have thousands of them.
func (f faults) unread() unread {
	fields := make(unread, len(f))
	for _, fault := range f {
		if path := fault.Loc[1:]; len(path) > 0 {
			fields[pathOf(path)] = true
		}
	}
	return fields
}

// has reports whether the field at the path, or what contains it, could not be read.
func (u unread) has(path []any) bool {
	for i := range path {
		if u[pathOf(path[:i+1])] {
			return true
		}
	}
	return false
}

// merge returns the error of a request whose reading found f: these faults, and those
// that the domain found. A field that could not be read has no value to judge, so that
// the domain's faults of such a field are left out. merge returns nil if there are no
// faults.
func (f faults) merge(found []lock.Fault, location string) error {
	if len(f)+len(found) == 0 {
		return nil
	}
	all, unread := slices.Clip(f), f.unread()
	for _, fault := range found {
		if !unread.has(fault.Path) {
			all.addRule(fault.Rule, fault.Limit, slices.Concat([]any{location}, fault.Path)...)
		}
	}
	return &invalidError{faults: all}
}

// rules are the type and the message of a fault for each rule of the domain, with a verb
// for its limit. They are those of pydantic where pydantic has such a rule.
var rules = map[lock.Rule]struct{ kind, message string }{
	lock.Required: {"missing", "Field required"},
	lock.ExpiryRequired: {
		"missing",
		"Field required: locks that never expire are not allowed, the longest TTL is %s seconds",
	},
	lock.NotEmpty:           {"string_too_short", "String should have at least 1 character"},
	lock.MaxLength:          {"string_too_long", "String should have at most %s characters"},
	lock.UTF8:               {"string_unicode", "Input should be valid UTF-8"},
	lock.NoControlCharacter: {"string_control_character", "String should have no control characters, found %s"},
	lock.Positive:           {"greater_than", "Input should be greater than 0"},
	lock.NotNegative:        {"greater_than_equal", "Input should be greater than or equal to 0"},
	lock.Maximum:            {"less_than_equal", "Input should be less than or equal to %s"},
	lock.LaterThan:          {"greater_than", "Input should be later than %s"},
	lock.Object:             {"dict_type", "Input should be a valid dictionary"},
	lock.MaxSize:            {"too_long", "Object should have at most %s bytes of JSON"},
	lock.MaxDepth:           {"too_deep", "Object should have at most %s levels"},
}

// limitText returns the text of the limit of a rule.
func limitText(limit any) string {
	switch limit := limit.(type) {
	case time.Duration:
		return strconv.FormatFloat(limit.Seconds(), 'f', -1, 64)
	case rune:
		return fmt.Sprintf("U+%04X", limit)
	default:
		return fmt.Sprint(limit)
	}
}
