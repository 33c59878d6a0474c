package robust

import (
	"fmt"
	"strings"
	"time"
)

// String returns the operation in one line.
func (o Operation) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "[%.6f to %.6f s] client %d at server %d: %s", o.Called.Seconds(), o.Returned.Seconds(),
		o.Client, o.Server, o.Kind)
	if o.Process != "" {
		fmt.Fprintf(&s, " by %q", o.Process)
	}
	if o.Token != 0 {
		fmt.Fprintf(&s, " of token %d", o.Token)
	}
	if o.TTL != 0 {
		fmt.Fprintf(&s, ", ttl %v", o.TTL)
	}
	if o.Wait != 0 {
		fmt.Fprintf(&s, ", wait %v", o.Wait)
	}
	fmt.Fprintf(&s, ": %s", o.Outcome)
	if o.Code != "" {
		fmt.Fprintf(&s, " (%s)", o.Code)
	}
	for _, manner := range []struct {
		is   bool
		name string
	}{{o.Disconnected, "disconnected"}, {o.HalfClosed, "half-closed"}, {o.Frozen, "read nothing"}} {
		if manner.is {
			s.WriteString(", " + manner.name)
		}
	}
	switch {
	case o.Holder != (Hold{}):
		fmt.Fprintf(&s, ", it is held by %v", o.Holder)
	case o.Kind == Queue && o.Outcome == Done:
		fmt.Fprintf(&s, ", %q wait", o.Queue)
	case o.Kind == Status && o.Outcome == Done:
		s.WriteString(", it is free")
	}
	if !o.At.IsZero() {
		fmt.Fprintf(&s, ", decided at %s", clockTime(o.At))
	}
	if o.Waited != 0 {
		fmt.Fprintf(&s, " after %v in the queue", o.Waited)
	}
	return s.String()
}

// String returns the fields that identify the hold, and its end.
func (h Hold) String() string {
	end := "without end"
	if !h.ExpiresAt.IsZero() {
		end = "until " + clockTime(h.ExpiresAt)
	}
	return fmt.Sprintf("%q with token %d from %s %s", h.Process, h.Token, clockTime(h.LockedAt), end)
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05.000000") }
