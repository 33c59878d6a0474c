package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// migrateAlone makes the other servers wait that start at the same time. The lock ends
// with the transaction: a lock of the session would stay on a connection of a pooler.
func migrateAlone(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `
		SET LOCAL statement_timeout = 0;
		SET LOCAL lock_timeout = '60s';
		SELECT pg_advisory_xact_lock(hashtextextended('lockd_schema_version', 0))`)
	if err != nil {
		return err
	}
	var first, found string
	err = tx.QueryRowContext(ctx, statement("postgres/other_schema.sql")).Scan(&first, &found)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("its search_path leads to locks in the schema %s, but begins with the schema %s: "+
		"name only the one in which the locks shall be (search_path in DATABASE_URL)", found, first)
}

// warnOfUnsafeServer warns the operator if the database itself does not sync.
func warnOfUnsafeServer(ctx context.Context, db *sql.DB, cfg Config) {
	var fsync string
	if err := db.QueryRowContext(ctx, "SHOW fsync").Scan(&fsync); err == nil && fsync == "off" {
		cfg.Logger.Warn("the Postgres server runs with fsync=off: acknowledged locks can be lost when it crashes")
	}
}

// checkDatabase returns an error for a database that can be reached but not used.
func checkDatabase(ctx context.Context, db *sql.DB) error {
	var name, role, encoding string
	var schema sql.NullString
	var standby, readOnly, empty, mayCreate bool
	err := db.QueryRowContext(ctx, statement("postgres/check_database.sql")).
		Scan(&name, &role, &encoding, &standby, &readOnly, &schema, &empty, &mayCreate)
	roleName := pgx.Identifier{role}.Sanitize()
	switch {
	case err != nil:
		return fmt.Errorf("cannot use the Postgres database: %w", err)
	case encoding != "UTF8":
		return fmt.Errorf("the database %q has the encoding %s, which cannot hold every name: "+
			"create one with ENCODING 'UTF8' TEMPLATE template0", name, encoding)
	case standby:
		return errors.New("this Postgres is a standby, which cannot be written: name its primary, " +
			"or all hosts with target_session_attrs=read-write")
	case readOnly:
		return fmt.Errorf("the transactions of the role %q in the database %q are read-only: "+
			"switch default_transaction_read_only off for them", role, name)
	case !schema.Valid:
		return fmt.Errorf("the role %[1]q may use no schema of its search_path: "+
			"GRANT USAGE, CREATE ON SCHEMA public TO %[2]s", role, roleName)
	case empty && !mayCreate:
		return fmt.Errorf("the role %q may not create tables in the schema %q: GRANT CREATE ON SCHEMA %s TO %s",
			role, schema.String, pgx.Identifier{schema.String}.Sanitize(), roleName)
	}
	return nil
}

// checkPrivileges returns an error if the role of the connection lacks a privilege.
func checkPrivileges(ctx context.Context, db *sql.DB) error {
	var role, missing string
	err := db.QueryRowContext(ctx, statement("postgres/check_privileges.sql")).Scan(&role, &missing)
	switch {
	case err != nil:
		return fmt.Errorf("cannot use the Postgres database: %w", err)
	case missing != "":
		return fmt.Errorf("the role %q lacks %s: GRANT it, or make the role the owner of the tables", role, missing)
	}
	return nil
}

// notMigrated explains why the tables could not be created or changed.
func notMigrated(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("cannot use the Postgres database: %w", err)
	}
	do := ""
	switch e.Code {
	case "55P03":
		do = ": another server that brings the tables up to date, or a program that uses them, kept them locked for a minute"
	case "42501":
		do = ": start this version once as the owner of the tables, or GRANT what is missing"
	}
	return fmt.Errorf("%s%s (%w)", e.Message, do, err)
}
