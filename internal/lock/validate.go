package lock

import (
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxNameLength is the most characters (not bytes) that a resource_name or a process_id may have.
const MaxNameLength = 255

// LongestTTL is the longest TTL that any setting can allow: a hundred years keeps every expiry within what both databases
// and all clients can express.
const LongestTTL = 36525 * 24 * time.Hour

// Limits are the bounds that an operator sets.
type Limits struct {
	MaxTTL time.Duration // longest TTL that may be asked for
}

// faults collects what is wrong with a request.
type faults []Fault

func (f *faults) add(field, rule, message string) {
	*f = append(*f, Fault{Field: field, Rule: rule, Message: message})
}

// err is nil when nothing is wrong.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return &InvalidError{Faults: f}
}

// name checks a resource_name or process_id.
func (f *faults) name(field, value string) {
	switch {
	case value == "":
		f.add(field, "string_too_short", "String should have at least 1 character")
	case !utf8.ValidString(value):
		f.add(field, "string_unicode", "Input should be valid UTF-8")
	case utf8.RuneCountInString(value) > MaxNameLength:
		f.add(field, "string_too_long", fmt.Sprintf("String should have at most %d characters", MaxNameLength))
	}
	for _, r := range value {
		if unicode.IsControl(r) {
			f.add(field, "string_control_character", fmt.Sprintf("String should have no control characters, found U+%04X", r))
			return
		}
	}
}

// validate returns an [InvalidError] that names every fault.
func (c Acquire) validate(limits Limits) error {
	var f faults
	f.name("resource_name", c.Resource)
	f.name("process_id", c.ProcessID)
	if c.TTL < 0 {
		f.add("ttl_seconds", "greater_than", "Input should be greater than 0")
	}
	if c.TTL > limits.MaxTTL {
		most := strconv.FormatFloat(limits.MaxTTL.Seconds(), 'f', -1, 64)
		f.add("ttl_seconds", "less_than_equal", "Input should be less than or equal to "+most)
	}
	return f.err()
}

// validate returns an [InvalidError] that names every fault.
func (c Release) validate() error {
	var f faults
	f.name("resource_name", c.Resource)
	f.name("process_id", c.ProcessID)
	return f.err()
}

// validateResource checks a resource_name that stands alone.
func validateResource(name string) error {
	var f faults
	f.name("resource_name", name)
	return f.err()
}
