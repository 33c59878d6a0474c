package api

import (
	"regexp"
	"strconv"
	"strings"
)

var numberForm = regexp.MustCompile(`^([+-]?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$`)

// wholeNumber parses a whole number in any notation of JSON: 17, 17.0, 1.7e1. It does not
// use a float, which has fewer digits than a fencing token.
func wholeNumber(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	form := numberForm.FindStringSubmatch(text)
	if form == nil {
		return 0, strconv.ErrSyntax
	}
	sign, fraction := form[1], form[3]
	digits := strings.TrimLeft(form[2]+fraction, "0")
	if digits == "" {
		return 0, nil
	}
	// An exponent out of Atoi's range is beyond what the digits of any text can
	// compensate for.
	exponent, _ := strconv.Atoi(form[4])
	exponent = min(max(exponent, -maxDigits), maxDigits)
	significant := strings.TrimRight(digits, "0")
	zeros := exponent - len(fraction) + len(digits) - len(significant) // that follow them
	if zeros < 0 {
		return 0, strconv.ErrSyntax
	}
	if len(significant)+zeros > len("9223372036854775807") {
		return 0, strconv.ErrRange
	}
	return strconv.ParseInt(sign+significant+strings.Repeat("0", zeros), 10, 64)
}

// maxDigits is more than a number can have, given the maximum sizes of bodies and
// headers.
const maxDigits = 1 << 20
