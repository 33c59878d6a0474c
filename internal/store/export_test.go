package store

import (
	"context"
	"database/sql"
	"strings"

	"gorm.io/gorm"

	"resource-lock-manager/internal/service"
)

// PlanOfList is how the database finds the locks of a list.
func (s *Store) PlanOfList(ctx context.Context, f service.ListFilter) (plan string, err error) {
	explain := "EXPLAIN "
	if s.dialect.clock != nil {
		explain = "EXPLAIN QUERY PLAN "
	}
	err = s.read(ctx, func(db *gorm.DB) error {
		_, c, err := s.heldConditions(db, f)
		if err != nil {
			return err
		}
		text := s.heldText(f, &c)
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
		}, explain+text, c.args...)
	})
	return strings.TrimSpace(plan), err
}
