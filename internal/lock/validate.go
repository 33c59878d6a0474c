package lock

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits that are part of the contract.
const (
	MaxNameLength    = 255     // characters (not bytes) of a resource_name, process_id or request_id
	MaxReasonLength  = 500     // characters of a reason
	MaxMetadataSize  = 4 << 10 // bytes of metadata, without white space between its parts
	MaxMetadataDepth = 8       // objects and arrays within one another, the outermost object included
)

// LongestTTL is the longest TTL that any setting can allow: a hundred years keeps every expiry within what both databases
// and all clients can express. As MaxTTL it means that there is no limit, and locks may also never expire.
const LongestTTL = 36525 * 24 * time.Hour

// Limits are the bounds that an operator sets.
type Limits struct {
	MaxTTL     time.Duration // longest TTL that may be asked for
	DefaultTTL time.Duration // TTL of a request that names none; 0: it never expires

	MaxWait    time.Duration // longest time that a request may ask to wait
	MaxWaiters int           // most requests that wait on this server
	MaxQueue   int           // most places in the queue of a resource
	KeepPlace  time.Duration // how long a place is kept for a waiter whose connection has ended
	Recheck    time.Duration // how long a hand-over can be late when a notification was lost; above 0
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

// name checks a required name.
func (f *faults) name(field, value string) {
	if value == "" {
		f.add(field, "string_too_short", "String should have at least 1 character")
		return
	}
	f.text(field, value, MaxNameLength)
}

// text checks a text that may be empty.
func (f *faults) text(field, value string, most int) {
	switch {
	case !utf8.ValidString(value):
		f.add(field, "string_unicode", "Input should be valid UTF-8")
	case utf8.RuneCountInString(value) > most:
		f.add(field, "string_too_long", fmt.Sprintf("String should have at most %d characters", most))
	}
	for _, r := range value {
		if unicode.IsControl(r) {
			f.add(field, "string_control_character", fmt.Sprintf("String should have no control characters, found U+%04X", r))
			return
		}
	}
}

// reason checks a text for people, which may have several lines.
func (f *faults) reason(value string) {
	f.text("reason", lineBreaks.Replace(value), MaxReasonLength)
}

var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ", "\t", " ")

// ttl checks a TTL that was asked for or set by default; 0 stands for none.
func (f *faults) ttl(ttl time.Duration, limits Limits) {
	most := strconv.FormatFloat(limits.MaxTTL.Seconds(), 'f', -1, 64)
	switch {
	case ttl < 0:
		f.add("ttl_seconds", "greater_than", "Input should be greater than 0")
	case ttl > limits.MaxTTL:
		f.add("ttl_seconds", "less_than_equal", "Input should be less than or equal to "+most)
	case ttl == 0 && limits.MaxTTL < LongestTTL:
		f.add("ttl_seconds", "missing", "Field required: locks that never expire are not allowed, the longest TTL is "+most+" seconds")
	}
}

// metadata checks the size and depth of a JSON object.
func (f *faults) metadata(text string) {
	if text == "" {
		return
	}
	if !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) || !utf8.ValidString(text) {
		f.add("metadata", "dict_type", "Input should be a valid dictionary")
		return
	}
	if len(text) > MaxMetadataSize {
		f.add("metadata", "too_long", fmt.Sprintf("Object should have at most %d bytes of JSON", MaxMetadataSize))
	}
	if depth(text) > MaxMetadataDepth {
		f.add("metadata", "too_deep", fmt.Sprintf("Object should have at most %d levels", MaxMetadataDepth))
	}
}

// depth counts the levels of objects and arrays of a valid JSON text.
func depth(text string) int {
	deepest, level, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// validate returns an [InvalidError] that names every fault.
func (c Acquire) validate(limits Limits) error {
	var f faults
	f.name("resource_name", c.Resource)
	f.name("process_id", c.ProcessID)
	f.ttl(c.TTL, limits)
	f.text("request_id", c.RequestID, MaxNameLength)
	f.reason(c.Reason)
	f.metadata(c.Metadata)
	switch most := strconv.FormatFloat(limits.MaxTTL.Seconds(), 'f', -1, 64); {
	case c.MinHold < 0:
		f.add("min_hold_seconds", "greater_than_equal", "Input should be greater than or equal to 0")
	case c.TTL > 0 && c.MinHold > c.TTL:
		f.add("min_hold_seconds", "less_than_equal", "Input should be less than or equal to ttl_seconds")
	case c.MinHold > limits.MaxTTL:
		f.add("min_hold_seconds", "less_than_equal", "Input should be less than or equal to "+most)
	}
	switch {
	case c.Wait < 0:
		f.add("wait_seconds", "greater_than_equal", "Input should be greater than or equal to 0")
	case c.Wait > limits.MaxWait:
		f.add("wait_seconds", "less_than_equal",
			"Input should be less than or equal to "+strconv.FormatFloat(limits.MaxWait.Seconds(), 'f', -1, 64))
	}
	return f.err()
}

// own checks what a release and a renewal have in common.
func (f *faults) own(resource, process string, token int64) {
	f.name("resource_name", resource)
	f.name("process_id", process)
	f.token(token)
}

// holds checks a list of holds.
func (f *faults) holds(listed []Owned) {
	for i, o := range listed {
		f.name(fmt.Sprintf("holds.%d.resource_name", i), o.Resource)
	}
}

// token checks a fencing token; 0 stands for none.
func (f *faults) token(token int64) {
	if token < 0 {
		f.add("fencing_token", "greater_than", "Input should be greater than 0")
	}
}

func (c Release) validate() error {
	var f faults
	f.own(c.Resource, c.ProcessID, c.Token)
	return f.err()
}

func (c Renew) validate(limits Limits) error {
	var f faults
	f.own(c.Resource, c.ProcessID, c.Token)
	f.ttl(c.TTL, limits)
	return f.err()
}

// requiredTTL checks the TTL of a renewal of many holds.
func (f *faults) requiredTTL(ttl time.Duration, limits Limits) {
	if ttl == 0 {
		f.add("ttl_seconds", "missing", "Field required")
		return
	}
	f.ttl(ttl, limits)
}

func (c ForceRelease) validate() error {
	var f faults
	f.name("resource_name", c.Resource)
	if c.Reason == "" {
		f.add("reason", "string_too_short", "String should have at least 1 character")
	}
	f.reason(c.Reason)
	f.text("process_id", c.By, MaxNameLength)
	f.token(c.Token)
	return f.err()
}
