package store

import (
	"context"
	"database/sql"
	"strings"

	"gorm.io/gorm"

	"resource-lock-manager/internal/service"
)

// LoadQueuesSQL returns the statement that loads queues.
func LoadQueuesSQL(driver string) string { return statement(driver + "/load_queues.sql") }

// TableColumnsSQL returns the statement that lists the columns of every table.
func TableColumnsSQL(driver string) string { return statement(driver + "/table_columns.sql") }

// PlanOfList returns the plan by which the database finds the locks of a list.
func (s *Store) PlanOfList(ctx context.Context, f service.ListFilter) (plan string, err error) {
	explain := "EXPLAIN "
	if _, ok := s.backend.(*sqlite); ok {
		explain = "EXPLAIN QUERY PLAN "
	}
	err = s.read(ctx, func(db *gorm.DB) error {
		_, w, err := s.whereHeld(db, f)
		if err != nil {
			return err
		}
		text := s.selectHeld(f, &w)
		return query(db, func(rows *sql.Rows) error {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			line := make([]any, len(columns))
			for i := range line {
				line[i] = new(sql.NullString)
			}
			err = rows.Scan(line...)
			plan += line[len(line)-1].(*sql.NullString).String + "\n"
			return err
		}, explain+text, w.args...)
	})
	return strings.TrimSpace(plan), err
}
