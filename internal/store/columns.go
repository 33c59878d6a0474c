package store

import (
	"fmt"
	"strings"

	"resource-lock-manager/internal/lock"
)

// column declares a column of a table and the field of its rows, of type R. Everything
// that Go and SQL need to know of the columns of a table is made from its declarations:
// the lists in the files of the folder sql (see markersOf), what a row is scanned into,
// and what a row sets. Rows are sent to Postgres as JSON, so a field's JSON key is the
// column's name.
type column[R any] struct {
	name  string
	kind  kind
	field func(row *R) any // returns a pointer to the field

	absent  string // SQL for the value that stands for an absent one; empty: NULL
	initial string // SQL for the value of a new row that has none; empty: as absent
	fixed   bool   // never changes while the row exists
}

// kind is the type that a column has in JSON, in the words of Postgres.
type kind string

const (
	bigint    kind = "bigint"
	boolean   kind = "boolean"
	varchar   kind = "text"
	timestamp kind = "timestamp" // in UTC
)

// orAbsent returns SQL for the column's value, which is not NULL unless NULL is allowed.
func (c column[R]) orAbsent() string {
	if c.absent == "" {
		return c.name
	}
	return fmt.Sprintf("coalesce(%s, %s)", c.name, c.absent)
}

// fromJSON returns SQL for the value to store, where name is a field of a JSON record.
func (c column[R]) fromJSON() string {
	switch {
	case c.kind == timestamp:
		return c.name + " AT TIME ZONE 'UTC'"
	case c.initial != "":
		return fmt.Sprintf("coalesce(%s, %s)", c.name, c.initial)
	}
	return c.orAbsent()
}

// listOf joins what is said of each column.
func listOf[R any](columns []column[R], say func(i int, c column[R]) string) string {
	var parts []string
	for i, c := range columns {
		if text := say(i, c); text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ", ")
}

// namesOfColumns returns the list of the columns.
func namesOfColumns[R any](columns []column[R]) string {
	return listOf(columns, func(_ int, c column[R]) string { return c.name })
}

// markersOf returns the markers of a table, each followed by the SQL that it stands for.
//
//	{{table.columns}}      their names
//	{{table.optional}}     their values in an outer join, where there may be no row
//	{{table.parameters}}   a parameter for each
//	{{table.recordset}}    their names and types in JSON
//	{{table.from_json}}    the values to store of a JSON record
//	{{table.assignments}}  for ON CONFLICT: sets all that can change
func markersOf[R any](table string, columns []column[R]) []string {
	marker := func(list string) string { return "{{" + table + "." + list + "}}" }
	return []string{
		marker("columns"), namesOfColumns(columns),
		marker("optional"), listOf(columns, func(_ int, c column[R]) string { return c.orAbsent() }),
		marker("parameters"), listOf(columns, func(i int, _ column[R]) string { return fmt.Sprint("$", i+1) }),
		marker("recordset"), listOf(columns, func(_ int, c column[R]) string { return c.name + " " + string(c.kind) }),
		marker("from_json"), listOf(columns, func(_ int, c column[R]) string { return c.fromJSON() }),
		marker("assignments"), listOf(columns, func(_ int, c column[R]) string {
			if c.fixed {
				return ""
			}
			return c.name + " = excluded." + c.name
		}),
	}
}

// targetsOf returns pointers to the fields of a row, in the order of the columns, and
// room for more.
func targetsOf[R any](columns []column[R], row *R, before ...any) []any {
	targets := make([]any, 0, len(before)+len(columns)+1)
	targets = append(targets, before...)
	for i := range columns {
		targets = append(targets, columns[i].field(row))
	}
	return targets
}

// valuesOf returns what a row sets the columns to on SQLite.
func valuesOf[R any](columns []column[R], row *R) []any {
	values := make([]any, len(columns))
	for i := range columns {
		values[i] = valueOf(columns[i].field(row))
	}
	return values
}

// valueOf returns the value of a field of a row.
func valueOf(field any) any {
	switch v := field.(type) {
	case *int64:
		return *v
	case *int:
		return *v
	case *bool:
		return *v
	case *string:
		return *v
	case *text:
		return v.value()
	case *instant:
		return v.value()
	case *lock.EventKind:
		return string(*v)
	default:
		panic(fmt.Sprintf("a field of the type %T", field))
	}
}

type scanner interface{ Scan(targets ...any) error }
