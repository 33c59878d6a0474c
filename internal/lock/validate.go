package lock

import (
	"encoding/json"
	"fmt"
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
	MaxMetadataDepth = 8       // nested objects and arrays, the outermost object included
)

// LongestTTL is the longest TTL that any setting can allow: with a hundred years every
// expiry stays within what both databases and all clients can express. As MaxTTL it means
// that there is no limit, and locks may also never expire.
const LongestTTL = 36525 * 24 * time.Hour

// Limits are the bounds of a request that an operator sets.
type Limits struct {
	MaxTTL     time.Duration // the longest TTL that a request may ask for
	DefaultTTL time.Duration // the TTL of a request that names none; 0: it never expires
	MaxWait    time.Duration // the longest time that a request may ask to wait
}

// InvalidError refuses a request that violates a limit. It lists every fault.
type InvalidError struct {
	Faults []Fault
}

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.String()
	}
	return strings.Join(parts, "; ")
}

// Fault is one violated rule.
type Fault struct {
	Path  []any // names of fields and positions in lists, as in the API: "holds", 0, "resource_name"
	Rule  Rule
	Limit any // what the rule compares with: a number, a time.Duration, or another field's name; nil: nothing
}

func (f Fault) String() string {
	if f.Limit == nil {
		return fmt.Sprint(f.Path, ": ", f.Rule)
	}
	return fmt.Sprint(f.Path, ": ", f.Rule, " ", f.Limit)
}

// Rule is what a field has to satisfy.
type Rule string

// The rules.
const (
	Required           Rule = "required"             // the field must be given
	ExpiryRequired     Rule = "expiry_required"      // a TTL must be given: no lock may last longer than Limit
	NotEmpty           Rule = "not_empty"            // at least one character
	MaxLength          Rule = "max_length"           // at most Limit characters
	UTF8               Rule = "utf8"                 // valid UTF-8
	NoControlCharacter Rule = "no_control_character" // Limit is the rune that was found
	Positive           Rule = "positive"             // above 0
	NotNegative        Rule = "not_negative"         // at least 0
	Maximum            Rule = "maximum"              // at most Limit
	LaterThan          Rule = "later_than"           // a time after the field that Limit names
	Object             Rule = "object"               // a JSON object
	MaxSize            Rule = "max_size"             // at most Limit bytes of JSON
	MaxDepth           Rule = "max_depth"            // at most Limit levels of JSON
)

// Faults collects what is wrong with a request. Its methods add what they find.
type Faults []Fault

// Add adds a fault of a field.
func (f *Faults) Add(field string, rule Rule, limit any) {
	*f = append(*f, Fault{Path: []any{field}, Rule: rule, Limit: limit})
}

// at adds what was found wrong with the value of a field. The path is made only if there
// is something to add, so that the validation of a request without faults allocates
// nothing.
func (f *Faults) at(field string, found []Fault) {
	for _, fault := range found {
		f.Add(field, fault.Rule, fault.Limit)
	}
}

// Name checks a required name.
func (f *Faults) Name(field, value string) { f.at(field, nameFaults(value)) }

// Text checks a text that may be empty.
func (f *Faults) Text(field, value string) { f.at(field, textFaults(value, MaxNameLength)) }

// nameFaults returns what is wrong with a required name, without a path.
func nameFaults(value string) []Fault {
	if value == "" {
		return []Fault{{Rule: NotEmpty}}
	}
	return textFaults(value, MaxNameLength)
}

// textFaults returns what is wrong with a text that may be empty, without a path.
func textFaults(value string, maxLength int) (found []Fault) {
	if len(value) <= maxLength && isPrintableASCII(value) { // nearly every text
		return nil
	}
	switch {
	case !utf8.ValidString(value):
		found = append(found, Fault{Rule: UTF8})
	case utf8.RuneCountInString(value) > maxLength:
		found = append(found, Fault{Rule: MaxLength, Limit: maxLength})
	}
	for _, r := range value {
		if unicode.IsControl(r) {
			return append(found, Fault{Rule: NoControlCharacter, Limit: r})
		}
	}
	return found
}

func isPrintableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// reason checks a text for people, which may have several lines.
func (f *Faults) reason(value string) {
	f.at("reason", textFaults(lineBreaks.Replace(value), MaxReasonLength))
}

var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ", "\t", " ")

// TTL checks a TTL that was asked for or set by default; 0 stands for none.
func (f *Faults) TTL(ttl time.Duration, limits Limits) {
	switch {
	case ttl < 0:
		f.Add("ttl_seconds", Positive, nil)
	case ttl > limits.MaxTTL:
		f.Add("ttl_seconds", Maximum, limits.MaxTTL)
	case ttl == 0 && limits.MaxTTL < LongestTTL:
		f.Add("ttl_seconds", ExpiryRequired, limits.MaxTTL)
	}
}

// Holds checks a list of holds.
func (f *Faults) Holds(listed []HoldRef) {
	for i, ref := range listed {
		for _, fault := range nameFaults(ref.Resource) {
			fault.Path = []any{"holds", i, "resource_name"}
			*f = append(*f, fault)
		}
	}
}

// metadata checks the size and depth of a JSON object.
func (f *Faults) metadata(text string) {
	if text == "" {
		return
	}
	if !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) || !utf8.ValidString(text) {
		f.Add("metadata", Object, nil)
		return
	}
	if len(text) > MaxMetadataSize {
		f.Add("metadata", MaxSize, MaxMetadataSize)
	}
	if depth(text) > MaxMetadataDepth {
		f.Add("metadata", MaxDepth, MaxMetadataDepth)
	}
}

// depth returns the number of nested objects and arrays of a valid JSON text.
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

// Validate returns every fault of the request.
func (r Request) Validate(limits Limits) []Fault {
	var f Faults
	ttl := r.TTL
	if ttl == 0 {
		ttl = limits.DefaultTTL
	}
	f.Name("resource_name", r.Resource)
	f.Name("process_id", r.ProcessID)
	f.TTL(ttl, limits)
	f.Text("request_id", r.RequestID)
	f.reason(r.Reason)
	f.metadata(r.Metadata)
	switch {
	case r.MinHold < 0:
		f.Add("min_hold_seconds", NotNegative, nil)
	case ttl > 0 && r.MinHold > ttl:
		f.Add("min_hold_seconds", Maximum, "ttl_seconds")
	case r.MinHold > limits.MaxTTL:
		f.Add("min_hold_seconds", Maximum, limits.MaxTTL)
	}
	switch {
	case r.Wait < 0:
		f.Add("wait_seconds", NotNegative, nil)
	case r.Wait > limits.MaxWait:
		f.Add("wait_seconds", Maximum, limits.MaxWait)
	}
	return f
}

// own checks what a release and a renewal have in common.
func (f *Faults) own(resource, process string, token int64) {
	f.Name("resource_name", resource)
	f.Name("process_id", process)
	f.token(token)
}

// token checks a fencing token; 0 stands for none.
func (f *Faults) token(token int64) {
	if token < 0 {
		f.Add("fencing_token", Positive, nil)
	}
}

// Validate returns every fault of the command.
func (c Release) Validate(Limits) []Fault {
	var f Faults
	f.own(c.Resource, c.ProcessID, c.Token)
	return f
}

// Validate returns every fault of the command.
func (c Renew) Validate(limits Limits) []Fault {
	var f Faults
	f.own(c.Resource, c.ProcessID, c.Token)
	f.TTL(c.TTL, limits)
	return f
}

// Validate returns every fault of the command.
func (c ForceRelease) Validate(Limits) []Fault {
	var f Faults
	f.Name("resource_name", c.Resource)
	if c.Reason == "" {
		f.Add("reason", NotEmpty, nil)
	}
	f.reason(c.Reason)
	f.Text("process_id", c.By)
	f.token(c.Token)
	return f
}

// ResourceName is the name of a resource that a request is about.
type ResourceName string

// Validate returns every fault of the name.
func (n ResourceName) Validate(Limits) []Fault {
	var f Faults
	f.Name("resource_name", string(n))
	return f
}
