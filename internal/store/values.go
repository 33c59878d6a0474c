package store

import (
	"database/sql/driver"
	"fmt"
	"time"
)

// text is a text that is NULL in the database if it is empty.
type text string

// Scan implements sql.Scanner.
func (t *text) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*t = ""
	case string:
		*t = text(v)
	default:
		return fmt.Errorf("a text of type %T", value)
	}
	return nil
}

// value returns what SQLite stores.
func (t text) value() any {
	if t == "" {
		return nil
	}
	return string(t)
}

// instant is a timestamp in UTC and in microseconds. The zero time is NULL. SQLite stores
// it as text of one width, which sorts by time, Postgres as timestamptz.
type instant struct{ time.Time }

const instantLayout = "2006-01-02 15:04:05.000000"

// Scan implements sql.Scanner.
func (i *instant) Scan(value any) error {
	var err error
	switch v := value.(type) {
	case nil:
		i.Time = time.Time{}
	case time.Time:
		i.Time = v.UTC()
	case string:
		i.Time, err = time.ParseInLocation(instantLayout, v, time.UTC)
	default:
		err = fmt.Errorf("a timestamp of type %T", value)
	}
	return err
}

// Value implements driver.Valuer for SQLite. On Postgres see
// postgresConn.CheckNamedValue.
func (i instant) Value() (driver.Value, error) { return i.value(), nil }

// value returns what SQLite stores.
func (i instant) value() any {
	if i.IsZero() {
		return nil
	}
	return i.UTC().Format(instantLayout)
}

// MarshalJSON returns the form that Postgres reads as a timestamp without a time zone.
func (i instant) MarshalJSON() ([]byte, error) {
	return []byte(`"` + i.UTC().Format(instantLayout) + `"`), nil
}
