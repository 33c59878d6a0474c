package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"
)

// The folder sql has one statement in each file: in sql/sqlite and sql/postgres those of
// one database, beside them those that both understand. A statement numbers its
// parameters $1, $2 and so on, in the order in which they appear first, because SQLite
// counts them so. It runs in psql or sqlite3 once its markers are replaced:
// TestStatements prints it so.
//
// GORM provides connection pools and transactions. The SQL is that of the files.
// Conditions that depend on a filter are built in Go: see [where].
//
//go:embed sql
var sqlFiles embed.FS

// markers replaces what stands in files of the folder sql for what is declared in Go.
var markers = strings.NewReplacer(slices.Concat(
	markersOf("resource_locks", lockColumns),
	markersOf("lock_waiters", waiterColumns),
	markersOf("lock_events", eventColumns),
	[]string{"{{lease}}", fmt.Sprintf("interval '%d ms'", leaseTime.Milliseconds())},
)...)

// statement returns the statement of a file of the folder sql, with its markers replaced
// and without its comments.
func statement(file string) string {
	text, err := sqlFiles.ReadFile("sql/" + file)
	if err != nil {
		panic(err)
	}
	var sent strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "--") {
			sent.WriteString(line)
		}
	}
	return markers.Replace(strings.TrimSuffix(strings.TrimSpace(sent.String()), ";"))
}

// limitClause limits a query by a parameter. With a bare "LIMIT ?" SQLite reads the
// value of the parameter and plans even a prepared statement again for each value, which
// takes ten times as long as to run it. The files of the folder sql say "LIMIT $1 + 0"
// for this reason.
const limitClause = " LIMIT ? + 0"

// statements are prepared once, for all transactions of a database whose driver does not
// keep them prepared. GORM would prepare them in each transaction again, which takes
// longer than SQLite takes to run one.
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

// exec returns a function that runs a prepared statement in a transaction.
func (s statements) exec(tx *gorm.DB, text string) func(args ...any) (sql.Result, error) {
	return s.in(tx, text).Exec
}

// query runs a prepared statement in a transaction and scans each row.
func (s statements) query(tx *gorm.DB, scan func(*sql.Rows) error, text string, args ...any) error {
	statement := s.in(tx, text) //nolint:sqlclosecheck // the transaction closes it
	rows, err := statement.QueryContext(tx.Statement.Context, args...)
	return each(rows, err, scan)
}

func (s statements) close() error {
	var errs []error
	for _, statement := range s {
		errs = append(errs, statement.Close())
	}
	return errors.Join(errs...)
}

// query runs a statement and scans each row.
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
