package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"resource-lock-manager/migrations"
)

// schema is what differs between the databases when their tables are created.
type schema struct {
	folder  string // of package migrations
	columns string // a query for the columns of every table, each as table.column
	apart   string // what to do when another program uses the same names

	// nameTaken reports whether a table or an index could not be created because of its
	// name.
	nameTaken func(error) bool
	// prepare makes sure that no other server migrates; nil if no other server can.
	prepare func(context.Context, *sql.Tx) error
}

// migrate brings the schema up to date in one transaction, so that a failure leaves the
// database unchanged. It refuses a database that a newer version of this program has
// changed.
//
// The versions are in a table of this program alone. In a version table that several
// programs share, as by default with goose, the migrations of one program hide those of
// another.
func migrate(ctx context.Context, db *sql.DB, s schema, log *slog.Logger) error {
	files, err := fs.Glob(migrations.FS, s.folder+"/*.sql")
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if s.prepare != nil {
		if err := s.prepare(ctx, tx); err != nil {
			return err
		}
	}
	current, err := s.version(ctx, tx, log)
	if err != nil {
		return err
	}
	newest := 0
	for _, file := range files {
		name := path.Base(file)
		number, _, _ := strings.Cut(name, "_")
		if newest, err = strconv.Atoi(number); err != nil {
			return err
		}
		if newest <= current {
			continue
		}
		text, err := migrations.FS.ReadFile(file)
		if err != nil {
			return err
		}
		if err := s.apply(ctx, tx, name, string(text)); err != nil {
			return err
		}
		if err := record(ctx, tx, newest); err != nil {
			return err
		}
	}
	if current > newest {
		return fmt.Errorf("its schema is version %d, but this program knows only versions up to %d: "+
			"a newer version has used it, run that one", current, newest)
	}
	return tx.Commit()
}

// apply runs statements that change the schema.
func (s schema) apply(ctx context.Context, tx *sql.Tx, name, statements string) error {
	switch _, err := tx.ExecContext(ctx, statements); {
	case err != nil && s.nameTaken(err):
		return s.foreign(fmt.Sprintf("%s: %v", name, err))
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// foreign returns the error for names that another program uses.
func (s schema) foreign(which string) error {
	return fmt.Errorf("it has tables that are not those of this program: %s (%s)", s.apart, which)
}

// version returns the version of the schema, 0 for a database without tables. It creates
// the version table if there is none.
func (s schema) version(ctx context.Context, tx *sql.Tx, log *slog.Logger) (version int, err error) {
	rows, err := tx.QueryContext(ctx, s.columns)
	columns := map[string]bool{}
	err = each(rows, err, func(rows *sql.Rows) error {
		var column string
		err := rows.Scan(&column)
		columns[column] = true
		return err
	})
	if err != nil {
		return 0, err
	}
	if columns["lockd_schema_version.version"] {
		err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM lockd_schema_version").Scan(&version)
		return version, err
	}
	if version, err = s.versionBefore(columns); err != nil {
		return 0, err
	}
	err = s.apply(ctx, tx, "version table", `CREATE TABLE lockd_schema_version
		(version bigint PRIMARY KEY, applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)`)
	for v := 1; v <= version && err == nil; v++ {
		err = record(ctx, tx, v)
	}
	if err == nil && version > 0 && columns["goose_db_version.version_id"] {
		err = leaveGoose(ctx, tx, version, log)
	}
	return version, err
}

func record(ctx context.Context, tx *sql.Tx, version int) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO lockd_schema_version (version) VALUES (%d)", version))
	return err
}

// lastByGoose is the last version that was recorded in the table of goose.
const lastByGoose = 4

// versionBefore recognizes a schema without a version table by the columns that each
// migration added. The database of the Python version is version 0, as is one without
// tables.
func (s schema) versionBefore(columns map[string]bool) (version int, err error) {
	var found []string
	for column := range maps.Keys(columns) {
		if name, ok := strings.CutPrefix(column, "resource_locks."); ok {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return 0, nil
	}
	slices.Sort(found)
	all := func(wanted ...string) bool {
		return !slices.ContainsFunc(wanted, func(column string) bool { return !columns[column] })
	}
	python := []string{"expires_at", "id", "is_active", "locked_at", "process_id", "resource_name"}
	ours := !slices.ContainsFunc(python, func(name string) bool { return !columns["resource_locks."+name] })
	switch {
	case !ours:
	case slices.Equal(found, python):
		return 0, nil
	case all("lock_events.filed", "lock_waiters.ticket"): // only on SQLite
		return lastByGoose, nil
	case all("resource_locks.last_ticket", "lock_waiters.ticket", "lock_servers.alive_until", "lock_events.ended_by"):
		return 3, nil
	case all("resource_locks.released_at", "lock_events.ended_by"):
		return 2, nil
	case all("resource_locks.fencing_token", "resource_locks.ended_at", "token_floor.fencing_token"):
		return 1, nil
	}
	return 0, s.foreign("resource_locks has the columns " + strings.Join(found, ", "))
}

// leaveGoose drops the version table of goose if only this program can have written to
// it. Otherwise an application that uses goose would mistake this program's versions for
// its own.
func leaveGoose(ctx context.Context, tx *sql.Tx, version int, log *slog.Logger) error {
	var versions, last int
	const query = "SELECT count(DISTINCT version_id), coalesce(max(version_id), -1) FROM goose_db_version"
	err := tx.QueryRowContext(ctx, query).Scan(&versions, &last)
	if err != nil {
		return err
	}
	if versions == last+1 && version <= last && last <= lastByGoose {
		_, err := tx.ExecContext(ctx, "DROP TABLE goose_db_version")
		return err
	}
	log.Warn("the table goose_db_version is shared with another program and was left alone; this program now keeps its "+
		"versions in lockd_schema_version. Check that the other program's migrations with the same numbers were applied",
		"numbers", fmt.Sprintf("1 to %d", lastByGoose))
	return nil
}
