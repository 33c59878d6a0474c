package api

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hbollon/go-edlib"
)

// answered are names of our own answers that are near to a name that some operation
// knows. A client may send back what it was answered.
var answered = []string{"waited_seconds"}

// units are what may stand where a known name has "seconds": nothing, another spelling,
// another unit.
var units = []string{"", "s", "sec", "secs", "ms", "msec", "millis", "milliseconds", "min", "mins", "minutes", "h", "hours"}

// nearMiss adds a fault when a name that the operation does not know is near to one that
// it knows. Whoever sends "ttl" believes that the lock will expire.
func (e *invalid) nearMiss(given string, known []string, place string) {
	if len(given) > longestNear || slices.Contains(answered, given) {
		return
	}
	bareGiven := bare(given)
	for _, name := range known {
		if near(bareGiven, bare(name), len(name)) {
			e.add("misspelled_name", "Unknown name, the right one is '"+name+"'", place, given)
			return
		}
	}
}

// longestNear is longer than every name that is near to a known one.
const longestNear = 64

// near reports whether a name can only be meant to be the known one: it is written in
// another style, lacks an ending or a beginning, or has a typing error. Both are bare.
// Of the known name's characters, a fifth may be wrong.
func near(given, known string, length int) bool {
	if stem, found := strings.CutSuffix(known, "seconds"); found {
		if unit, same := strings.CutPrefix(given, stem); same && slices.Contains(units, unit) {
			return true
		}
	}
	switch given {
	case known, strings.TrimSuffix(known, "name"), strings.TrimSuffix(known, "id"), strings.TrimPrefix(known, "fencing"):
		return true
	}
	wrong := length / 5
	differ := utf8.RuneCountInString(given) - len(known) // at least as far apart as their lengths
	return length >= 6 && -wrong <= differ && differ <= wrong && edlib.DamerauLevenshteinDistance(given, known) <= wrong
}

// bare is a name without the marks of its style.
func bare(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}
