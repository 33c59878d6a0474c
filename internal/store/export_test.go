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
	err = s.read(ctx, func(db *gorm.DB) error {
		_, w, err := s.whereHeld(db, f)
		if err != nil {
			return err
		}
		plan, err = s.Explain(ctx, s.selectHeld(f, &w), w.args...)
		return err
	})
	return plan, err
}

// Explain returns the plan of a query, a step on each line.
func (s *Store) Explain(ctx context.Context, text string, args ...any) (plan string, err error) {
	explain := "EXPLAIN "
	if _, ok := s.backend.(*sqlite); ok {
		explain = "EXPLAIN QUERY PLAN "
	}
	err = s.read(ctx, func(db *gorm.DB) error {
		return query(db, func(rows *sql.Rows) error {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			step := make([]any, len(columns))
			for i := range step {
				step[i] = new(sql.NullString)
			}
			err = rows.Scan(step...)
			plan += step[len(step)-1].(*sql.NullString).String + "\n"
			return err
		}, explain+text, args...)
	})
	return strings.TrimSpace(plan), err
}
