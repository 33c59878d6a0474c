package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"resource-lock-manager/client"
)

// escape makes text of other clients safe to print. It replaces each character that is
// not printable by its number, such as \x1b or \u202e. So a name or a reason can neither
// control a terminal nor look like another line. A backslash is not changed.
func escape(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// shortDuration formats a duration without parts that are 0: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if d >= time.Minute {
		text = strings.TrimSuffix(text, "0s")
		if !strings.HasSuffix(text, "m") { // the suffix was that of 10s
			text = d.String()
		}
	}
	if d >= time.Hour && strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// timeLayout is RFC 3339 with the precision of the service.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// tableTime formats a time for a table: relative to now on a terminal, otherwise the time
// itself.
func (p *program) tableTime(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case isTerminal(p.out):
		return relative(t, now)
	default:
		return t.UTC().Format(timeLayout)
	}
}

// timeWithAge formats a time, and the same time relative to now.
func (p *program) timeWithAge(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), relative(t, now))
}

// tableDuration formats a duration for a table. It returns "" for 0.
func (p *program) tableDuration(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case isTerminal(p.out):
		return rounded(d)
	default:
		return d.String()
	}
}

// serverTime returns the time of the server's answer, by the server's clock. If the hold
// never expires, the answer does not contain it, and serverTime returns this machine's
// time.
func (p *program) serverTime(h client.Hold) time.Time {
	if h.ExpiresAt.IsZero() {
		return p.now()
	}
	return h.ExpiresAt.Add(-h.ExpiresIn)
}

func relative(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + rounded(d)
	}
	return rounded(now.Sub(t)) + " ago"
}

// rounded formats a duration for people, in at most two units.
func rounded(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return shortDuration(d.Round(time.Millisecond))
	case d < 10*time.Second:
		return shortDuration(d.Round(100 * time.Millisecond))
	case d < time.Hour:
		return shortDuration(d.Round(time.Second))
	case d < day:
		return shortDuration(d.Round(time.Minute))
	default:
		return strings.Replace(fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour), "d0h", "d", 1)
	}
}
