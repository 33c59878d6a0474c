package api

import (
	"regexp"
	"strconv"
	"strings"
)

var numberForm = regexp.MustCompile(`^([+-]?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$`)

// wholeNumber reads a number that is whole, in any form that JSON has for it: 17, 17.0,
// 1.7e1. It never goes through a float, which has fewer digits than a fencing token.
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
	exponent, _ := strconv.Atoi(form[4])                               // out of range: the greatest number or the least
	exponent = min(max(exponent, -mostDigits), mostDigits)             // no text that is read has so many digits
	significant := strings.TrimRight(digits, "0")                      // the number is this
	zeros := exponent - len(fraction) + len(digits) - len(significant) // with so many zeros behind it
	if zeros < 0 {
		return 0, strconv.ErrSyntax
	}
	if len(significant)+zeros > len("9223372036854775807") {
		return 0, strconv.ErrRange
	}
	return strconv.ParseInt(sign+significant+strings.Repeat("0", zeros), 10, 64)
}

// mostDigits is more than any number has that a client can send.
const mostDigits = 1 << 20
