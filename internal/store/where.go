package store

import (
	"slices"
	"strings"
)

// where is a WHERE clause and its arguments. The zero value has no condition.
type where struct {
	text string
	args []any
}

func (w *where) add(condition string, args ...any) {
	if w.text == "" {
		w.text = " WHERE " + condition
	} else {
		w.text += " AND " + condition
	}
	w.args = append(w.args, args...)
}

// and returns w with one more condition.
func (w where) and(condition string, args ...any) where {
	w.args = slices.Clip(w.args)
	w.add(condition, args...)
	return w
}

// both returns the conditions of w and of other.
func (w where) both(other where) where {
	if other.text == "" {
		return w
	}
	return w.and(strings.TrimPrefix(other.text, " WHERE "), other.args...)
}

// page returns the clauses from WHERE on, and adds the limit to the arguments; 0 means
// none.
func (w *where) page(order string, limit int) string {
	text := w.text + " ORDER BY " + order
	if limit != 0 {
		text += limitClause
		w.args = append(w.args, limit)
	}
	return text
}
