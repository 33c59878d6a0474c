package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// appender is implemented by frequent response types to avoid encoding/json's reflection.
// The output is byte-identical to that of encoding/json. A type that embeds an appender
// must implement it too, or the promoted method would encode only the embedded part.
type appender interface {
	appendJSON(dst []byte) []byte
}

// Append appends the JSON of a value of this package. Frequent types are appenders by
// pointer, so pass the address. Names are not escaped for HTML.
func Append(dst []byte, value any) []byte {
	if a, ok := value.(appender); ok {
		return a.appendJSON(dst)
	}
	return appendReflected(dst, value)
}

func appendReflected(dst []byte, value any) []byte {
	buf := bytes.NewBuffer(dst)
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // the types of this package can always be encoded
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func (s *Success[T]) appendJSON(dst []byte) []byte {
	dst = strconv.AppendBool(append(dst, `{"success":`...), s.Success)
	dst = appendText(append(dst, `,"message":`...), s.Message)
	dst = Append(append(dst, `,"data":`...), &s.Data)
	return append(dst, '}')
}

func (c *Conflict) appendJSON(dst []byte) []byte {
	dst = appendText(append(dst, `{"detail":`...), c.Detail)
	dst = appendText(append(dst, `,"code":`...), string(c.Code))
	if dst = append(dst, `,"holder":`...); c.Holder == nil {
		dst = append(dst, "null"...)
	} else {
		dst = c.Holder.appendJSON(dst)
	}
	dst = appendInt(append(dst, `,"waiters":`...), c.Waiters)
	if c.WaitedSeconds != nil {
		dst = appendFloat(append(dst, `,"waited_seconds":`...), *c.WaitedSeconds)
	}
	if c.RetryAfterSeconds != nil {
		dst = appendFloat(append(dst, `,"retry_after_seconds":`...), *c.RetryAfterSeconds)
	}
	if c.PlaceKeptUntil != nil {
		dst = appendTime(append(dst, `,"place_kept_until":`...), *c.PlaceKeptUntil)
	}
	if c.Position != nil {
		dst = appendInt(append(dst, `,"position":`...), *c.Position)
	}
	return append(dst, '}')
}

func (h *Hold) appendJSON(dst []byte) []byte {
	return append(h.appendHold(append(dst, '{')), '}')
}

// appendHold appends the fields of a hold, for a hold and for types that embed it.
func (h *Hold) appendHold(dst []byte) []byte {
	dst = appendText(append(dst, `"process_id":`...), h.ProcessID)
	dst = h.appendTimes(append(dst, ','))
	dst = appendInt(append(dst, `,"fencing_token":`...), h.FencingToken)
	dst = appendNullable(append(dst, `,"reason":`...), h.Reason, appendText)
	return appendRaw(append(dst, `,"metadata":`...), h.Metadata)
}

func (t *Times) appendTimes(dst []byte) []byte {
	dst = appendTime(append(dst, `"locked_at":`...), t.LockedAt)
	dst = appendNullable(append(dst, `,"expires_at":`...), t.ExpiresAt, appendTime)
	return appendNullable(append(dst, `,"expires_in_seconds":`...), t.ExpiresInSeconds, appendFloat)
}

func (l *Lock) appendJSON(dst []byte) []byte {
	dst = appendInt(append(dst, `{"id":`...), l.ID)
	dst = appendText(append(dst, `,"resource_name":`...), l.ResourceName)
	dst = l.appendHold(append(dst, ','))
	return append(dst, '}')
}

func (a *Acquired) appendJSON(dst []byte) []byte {
	dst = appendInt(append(dst, `{"lock_id":`...), a.LockID)
	dst = appendText(append(dst, `,"resource_name":`...), a.ResourceName)
	dst = appendText(append(dst, `,"process_id":`...), a.ProcessID)
	dst = a.appendTimes(append(dst, ','))
	dst = appendInt(append(dst, `,"fencing_token":`...), a.FencingToken)
	dst = appendFloat(append(dst, `,"waited_seconds":`...), a.WaitedSeconds)
	if a.Repeated {
		dst = append(dst, `,"repeated":true`...)
	}
	return append(dst, '}')
}

func (r *Released) appendJSON(dst []byte) []byte {
	dst = appendText(append(dst, `{"resource_name":`...), r.ResourceName)
	dst = appendText(append(dst, `,"process_id":`...), r.ProcessID)
	dst = appendTime(append(dst, `,"released_at":`...), r.ReleasedAt)
	if r.FreeAt != nil {
		dst = appendTime(append(dst, `,"free_at":`...), *r.FreeAt)
	}
	return append(dst, '}')
}

func (r *Renewed) appendJSON(dst []byte) []byte {
	dst = appendText(append(dst, `{"resource_name":`...), r.ResourceName)
	dst = appendText(append(dst, `,"process_id":`...), r.ProcessID)
	dst = r.appendTimes(append(dst, ','))
	dst = appendInt(append(dst, `,"fencing_token":`...), r.FencingToken)
	dst = appendInt(append(dst, `,"renewals":`...), r.Renewals)
	return append(dst, '}')
}

func (s *Status) appendJSON(dst []byte) []byte {
	dst = appendText(append(dst, `{"resource_name":`...), s.ResourceName)
	dst = strconv.AppendBool(append(dst, `,"is_locked":`...), s.IsLocked)
	dst = appendNullable(append(dst, `,"locked_by":`...), s.LockedBy, appendText)
	dst = appendNullable(append(dst, `,"locked_at":`...), s.LockedAt, appendTime)
	dst = appendNullable(append(dst, `,"expires_at":`...), s.ExpiresAt, appendTime)
	dst = appendNullable(append(dst, `,"expires_in_seconds":`...), s.ExpiresInSeconds, appendFloat)
	dst = appendNullable(append(dst, `,"fencing_token":`...), s.FencingToken, appendInt)
	dst = appendInt(append(dst, `,"waiters":`...), s.Waiters)
	dst = appendNullable(append(dst, `,"reason":`...), s.Reason, appendText)
	dst = appendRaw(append(dst, `,"metadata":`...), s.Metadata)
	dst = appendNullable(append(dst, `,"renewals":`...), s.Renewals, appendInt)
	dst = appendNullable(append(dst, `,"min_hold_until":`...), s.MinHoldUntil, appendTime)
	dst = appendNullable(append(dst, `,"released_at":`...), s.ReleasedAt, appendTime)
	return append(dst, '}')
}

// appendNullable appends a value, or null.
func appendNullable[T any](dst []byte, value *T, appendValue func([]byte, T) []byte) []byte {
	if value == nil {
		return append(dst, "null"...)
	}
	return appendValue(dst, *value)
}

func appendInt[T int | int64](dst []byte, n T) []byte {
	return strconv.AppendInt(dst, int64(n), 10)
}

// appendText leaves texts with characters that may need escaping to encoding/json.
func appendText(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return appendReflected(dst, text)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}

// appendFloat leaves numbers with an exponent, infinities and NaN to encoding/json.
func appendFloat(dst []byte, f float64) []byte {
	if abs := math.Abs(f); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	return appendReflected(dst, f)
}

// appendRaw appends JSON without white space, or null.
func appendRaw(dst []byte, raw json.RawMessage) []byte {
	if raw == nil {
		return append(dst, "null"...)
	}
	buf := bytes.NewBuffer(dst)
	if err := json.Compact(buf, raw); err != nil {
		panic(err) // it was checked before it was stored
	}
	return buf.Bytes()
}

// appendTime formats with RFC3339, which package time special-cases, and replaces the 'Z'
// by the fraction: a number from 1000000 to 1999999 whose first digit the point
// overwrites.
func appendTime(dst []byte, t Time) []byte {
	utc := time.Time(t).UTC()
	dst = utc.AppendFormat(append(dst, '"'), time.RFC3339)
	point := len(dst) - len("Z")
	dst = appendInt(dst[:point], 1_000_000+utc.Nanosecond()/1000)
	dst[point] = '.'
	return append(dst, `+00:00"`...)
}
