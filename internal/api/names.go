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

// refuseNearMiss adds a fault when a name that the operation does not know is near to one
// that it knows. Whoever sends "ttl" believes that the lock will expire. nth counts the
// unknown names of a request.
func (e *invalid) refuseNearMiss(given string, nth int, known []string, place string) {
	if len(given) > longestNear || slices.Contains(answered, given) {
		return
	}
	bareGiven := bare(given)
	for _, name := range known {
		if bareName := bare(name); sameName(bareGiven, bareName) || nth <= mostTypos && hasTypo(bareGiven, bareName, len(name)/5) {
			e.add("misspelled_name", "Unknown name, the right one is '"+name+"'", place, given)
			return
		}
	}
}

const (
	longestNear = 64  // longer than every name that is near to a known one
	mostTypos   = 100 // unknown names that are compared for typing errors: each takes microseconds
)

// sameName reports whether a bare name is the known one, or that without its ending or its
// beginning.
func sameName(given, known string) bool {
	if stem, found := strings.CutSuffix(known, "seconds"); found {
		if unit, same := strings.CutPrefix(given, stem); same && slices.Contains(units, unit) {
			return true
		}
	}
	switch given {
	case known, strings.TrimSuffix(known, "name"), strings.TrimSuffix(known, "id"), strings.TrimPrefix(known, "fencing"):
		return true
	}
	return false
}

// hasTypo reports whether a bare name differs from the known one by typing errors, at most
// that number. Of a name with less than six characters, every typing error makes another word.
func hasTypo(given, known string, most int) bool {
	// The distance is at least the difference in length, which is cheaper.
	longer := utf8.RuneCountInString(given) - len(known)
	return len(known) >= 6 && -most <= longer && longer <= most && edlib.DamerauLevenshteinDistance(given, known) <= most
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
