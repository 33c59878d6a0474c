package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// unreachable words why no connection to Postgres could be made. pgx joins the errors of all
// attempts: of each address, with TLS and without. The most telling one of each address is kept,
// and what a server answered comes first.
func unreachable(conf *pgx.ConnConfig, err error) error {
	all := connectAttempts(err)
	slices.SortStableFunc(all, func(a, b attempt) int { return cmp.Compare(a.rank, b.rank) })
	var words, places []string
	for _, a := range all {
		text, place := a.words(conf)
		if !slices.Contains(places, place) {
			words, places = append(words, text+" ("+place+")"), append(places, place)
		}
	}
	return errors.New(strings.Join(words, "; "))
}

// attempt is one failure to connect.
type attempt struct {
	err  error
	rank int
}

const (
	answered   = iota // by Postgres
	unanswered        // or not by Postgres
	refusedTLS        // which many servers do
)

func connectAttempts(err error) []attempt {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = connect.Unwrap()
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []attempt
		for _, err := range joined.Unwrap() {
			all = append(all, connectAttempts(err)...)
		}
		return all
	}
	rank := unanswered
	switch _, isAnswer := errors.AsType[*pgconn.PgError](err); {
	case isAnswer:
		rank = answered
	case strings.HasSuffix(err.Error(), "server refused TLS connection"):
		rank = refusedTLS
	}
	return []attempt{{err, rank}}
}

// words are the cause with what to do about it, and where it is.
func (a attempt) words(conf *pgx.ConnConfig) (words, place string) {
	if e, ok := errors.AsType[*net.DNSError](a.err); ok {
		return "the host cannot be found: correct it", fmt.Sprintf("%s: %s", e.Name, e.Err)
	}
	// The address of the attempt is nowhere but in the text of its error.
	where, text, _ := strings.Cut(a.err.Error(), "): ")
	address, _, _ := strings.Cut(where, " (")
	place = "Postgres at " + address
	if e, ok := errors.AsType[*pgconn.PgError](a.err); ok {
		return e.Message + advice(conf, e.Code), place
	}
	if _, reason, ok := strings.Cut(text, "x509: "); ok {
		return reason + ": give its authority's certificate as sslrootcert, and the host that it is for", place
	}
	for _, unwanted := range []error{
		pgconn.ErrReadOnlyConnection, pgconn.ErrReadWriteConnection, pgconn.ErrPrimaryConnection, pgconn.ErrStandbyConnection,
	} {
		if errors.Is(a.err, unwanted) {
			return fmt.Sprintf("%v: target_session_attrs asks for another server", unwanted), place
		}
	}
	switch errno, _ := errors.AsType[syscall.Errno](a.err); {
	case errno == syscall.ECONNREFUSED, errno == syscall.ENOENT:
		return errno.Error() + ": start the server there, or correct host and port", place
	case pgconn.Timeout(a.err), errors.Is(a.err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v: correct host and port, or look for a firewall", conf.ConnectTimeout), place
	case a.rank == refusedTLS:
		return "the server has no TLS, which sslmode demands: switch it on there, or change sslmode", place
	}
	return text + ": correct host and port if that is not Postgres", place
}

// advice says what to do about an error that Postgres answers a new connection.
func advice(conf *pgx.ConnConfig, code string) string {
	switch code {
	case "3D000":
		return ": create it, or correct its name"
	case "28P01":
		if conf.Password == "" {
			return ": no password is given" + passwordFile(conf)
		}
		return ": correct the user or the password"
	case "28000":
		return ": correct the user, or let it in there (CREATE ROLE ... LOGIN, pg_hba.conf)"
	case "42501":
		return fmt.Sprintf(": GRANT CONNECT ON DATABASE %s TO %s", pgx.Identifier{conf.Database}.Sanitize(), pgx.Identifier{conf.User}.Sanitize())
	case "42704", "22023":
		return ": correct the parameters of the URL, or PGOPTIONS"
	case "53300":
		return ": raise that limit, or close other connections"
	case "57P03":
		return ": try again later"
	}
	return ""
}

// passwordFile says why the file of passwords that is to be used cannot be.
func passwordFile(conf *pgx.ConnConfig) string {
	path := os.Getenv("PGPASSFILE")
	if u, err := url.Parse(conf.ConnString()); err == nil && u.Query().Get("passfile") != "" {
		path = u.Query().Get("passfile")
	}
	if path == "" {
		return ""
	}
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	if _, err := os.ReadFile(path); err != nil { //nolint:gosec // the operator names it
		return fmt.Sprintf(" (passfile or PGPASSFILE: %v)", err)
	}
	return fmt.Sprintf(", and passfile or PGPASSFILE, %s, has none for this host, port, database and user", path)
}

// checkDatabase finds what would make a database that can be reached useless.
func checkDatabase(ctx context.Context, db *sql.DB) error {
	var name, role, encoding string
	var schema sql.NullString
	var standby, readOnly, empty, mayCreate bool
	err := db.QueryRowContext(ctx, `
		SELECT current_database(), current_user, current_setting('server_encoding'), pg_is_in_recovery(),
		       current_setting('transaction_read_only')::boolean, current_schema(), to_regclass('resource_locks') IS NULL,
		       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)`).
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
		return fmt.Errorf("the role %[1]q may use no schema of its search_path: GRANT USAGE, CREATE ON SCHEMA public TO %[2]s", role, roleName)
	case empty && !mayCreate:
		return fmt.Errorf("the role %q may not create tables in the schema %q: GRANT CREATE ON SCHEMA %s TO %s",
			role, schema.String, pgx.Identifier{schema.String}.Sanitize(), roleName)
	}
	return nil
}

// checkPrivileges finds what the role of the connection may not do with the tables.
func checkPrivileges(ctx context.Context, db *sql.DB) error {
	var role, missing string
	err := db.QueryRowContext(ctx, `
		WITH needed (name, privilege) AS (
			SELECT name, unnest(string_to_array(privileges, ' ')) FROM (VALUES
				('resource_locks', 'SELECT INSERT UPDATE DELETE'), ('lock_events', 'SELECT INSERT DELETE'),
				('lock_waiters', 'SELECT INSERT UPDATE DELETE'), ('lock_servers', 'SELECT INSERT UPDATE DELETE'),
				('token_floor', 'SELECT UPDATE'), ('lockd_database', 'SELECT')) AS tables (name, privileges)
		), missing (what) AS (
			SELECT string_agg(privilege, ', ') || ' on the table ' || name FROM needed
			WHERE NOT has_table_privilege(name, privilege) GROUP BY name
			UNION ALL
			SELECT 'USAGE on the sequence ' || sequence
			FROM (VALUES ('resource_locks'), ('lock_events'), ('lock_servers')) AS tables (name),
			     pg_get_serial_sequence(name, 'id') AS sequence
			WHERE NOT has_sequence_privilege(sequence, 'USAGE')
		)
		SELECT current_user, coalesce(string_agg(what, '; ' ORDER BY what), '') FROM missing`).Scan(&role, &missing)
	switch {
	case err != nil:
		return fmt.Errorf("cannot use the Postgres database: %w", err)
	case missing != "":
		return fmt.Errorf("the role %q lacks %s: GRANT it, or make the role the owner of the tables", role, missing)
	}
	return nil
}

// notMigrated words why the tables could not be made or changed.
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
