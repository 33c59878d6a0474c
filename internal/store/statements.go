package store

import (
	"context"
	"database/sql"
	"errors"

	"gorm.io/gorm"
)

// limited is a LIMIT with an argument. Were the argument all there is to it, SQLite would look at its value, and would plan even
// a prepared statement anew for each, which takes ten times as long as to run it.
const limited = " LIMIT ? + 0"

// statements are prepared once, for all transactions of a database that does not keep them prepared by itself. GORM would
// prepare them anew in each transaction, and takes longer to run one than SQLite does.
type statements map[string]*sql.Stmt

func prepare(ctx context.Context, db *sql.DB, texts ...string) (statements, error) {
	s := statements{}
	for _, text := range texts {
		statement, err := db.PrepareContext(ctx, text) //nolint:sqlclosecheck // it is closed with the database
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s[text] = statement
	}
	return s, nil
}

// in returns a prepared statement for use in a transaction, which closes it when it ends.
func (s statements) in(tx *gorm.DB, text string) *sql.Stmt {
	return tx.Statement.ConnPool.(gorm.Tx).StmtContext(tx.Statement.Context, s[text])
}

// exec returns what runs a prepared statement in a transaction.
func (s statements) exec(tx *gorm.DB, text string) func(args ...any) (sql.Result, error) {
	return s.in(tx, text).Exec
}

// query runs an SQL text in a transaction, prepared if it is, and scans each row.
func (s statements) query(tx *gorm.DB, scan func(*sql.Rows) error, text string, args ...any) error {
	if s[text] == nil {
		return query(tx, scan, text, args...)
	}
	rows, err := s.in(tx, text).QueryContext(tx.Statement.Context, args...) //nolint:sqlclosecheck // the transaction closes it
	return each(rows, err, scan)
}

func (s statements) close() error {
	var errs []error
	for _, statement := range s {
		errs = append(errs, statement.Close())
	}
	return errors.Join(errs...)
}

// query runs an SQL text and scans each row.
func query(db *gorm.DB, scan func(*sql.Rows) error, text string, args ...any) error {
	rows, err := db.Raw(text, args...).Rows()
	return each(rows, err, scan)
}

// each scans every row of a result.
func each(rows *sql.Rows, err error, scan func(*sql.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
