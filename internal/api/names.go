package api

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hbollon/go-edlib"
)

// answered are fields of responses whose names are near misses of a field of a request. A
// client may send a response back.
var answered = []string{"waited_seconds"}

// units are what may replace "seconds" in a known name: nothing, another spelling,
// another unit.
var units = []string{
	"", "s", "sec", "secs", "ms", "msec", "millis", "milliseconds", "min", "mins", "minutes", "h", "hours",
}

// refuseNearMiss adds a fault if a name that the operation does not know is similar to
// one that it knows: a client that sends "ttl" believes that the lock will expire. The
// name is the nth unknown name of the request, and location is that of the object that
// contains it.
func (f *faults) refuseNearMiss(given string, nth int, known []string, location []any) {
	if len(given) > maxNearMiss || slices.Contains(answered, given) {
		return
	}
	bareGiven := bare(given)
	for _, name := range known {
		bareName := bare(name)
		if sameName(bareGiven, bareName) || nth <= maxTypos && hasTypo(bareGiven, bareName, len(name)/5) {
			message := "Unknown name, the right one is '" + name + "'"
			f.add("misspelled_name", message, slices.Concat(location, []any{given})...)
			return
		}
	}
}

const (
	maxNearMiss = 64  // bytes; longer than every name that is similar to a known one
	maxTypos    = 100 // the maximum number of unknown names compared for typing errors: each takes microseconds
)

// sameName reports whether a bare name is the known one, with or without its first or
// last word.
func sameName(given, known string) bool {
	if stem, found := strings.CutSuffix(known, "seconds"); found {
		if unit, same := strings.CutPrefix(given, stem); same && slices.Contains(units, unit) {
			return true
		}
	}
	switch given {
	case known, strings.TrimPrefix(known, "fencing"), strings.TrimSuffix(known, "name"),
		strings.TrimSuffix(known, "id"):
		return true
	}
	return false
}

// hasTypo reports whether a bare name differs from the known one by at most limit typing
// errors. Names of fewer than six characters are not compared: one error makes another
// word.
func hasTypo(given, known string, limit int) bool {
	// The distance is at least the difference in length, which costs less to compute.
	longer := utf8.RuneCountInString(given) - len(known)
	return len(known) >= 6 && -limit <= longer && longer <= limit &&
		edlib.DamerauLevenshteinDistance(given, known) <= limit
}

// bare returns a name in lower case, without its underscores and hyphens.
func bare(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}
