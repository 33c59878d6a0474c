package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The databases that locks can be kept in.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

const postgresScheme = "postgres://"

// Database says where the locks are kept.
type Database struct {
	// Driver is SQLite or Postgres.
	Driver string
	// Source is, for SQLite, the path of the file, to be taken literally, or "" for a database in memory; for Postgres,
	// a postgres:// URL that pgx understands. The URL holds the password: print the Database itself instead.
	Source string `json:"-"`
}

// ParseDatabaseURL understands the URLs that SQLAlchemy takes for the two databases. Schemes may be in upper case and
// may name a Python driver (sqlite+pysqlite, postgresql+psycopg2), which is dropped.
//
//	sqlite:///name.db        a file, relative to the working directory
//	sqlite:////dir/name.db   a file, absolute
//	sqlite://                in memory; also sqlite:/// and sqlite:///:memory:
//	postgresql://user:password@host:5432/name?sslmode=require
//
// The path of a SQLite file is taken literally: a space, %, # or + needs no escape. What follows its first ? is dropped
// if it consists of key=value pairs, because there SQLAlchemy has options that mean something to Python only; any other
// ? belongs to the path.
//
// A Postgres URL, whose scheme may also be postgres, passes unchanged apart from its scheme, with several hosts and
// parameters if need be. Besides what separates user and password from the host it must not contain a literal @: that
// would be the trace of a password which is not percent-encoded, which readers of URLs cut at different places.
//
// The error never quotes the text, because text that does not parse may have a password anywhere.
func ParseDatabaseURL(text string) (Database, error) {
	if strings.ContainsAny(text, "\x00\r\n") {
		return Database{}, errors.New("the URL must not contain line breaks or NUL")
	}
	if text != strings.TrimSpace(text) {
		return Database{}, errors.New("the URL must not begin or end with a space")
	}
	scheme, rest, found := strings.Cut(text, "://")
	dialect, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch {
	case found && dialect == "sqlite":
		return parseSQLite(rest)
	case found && (dialect == "postgres" || dialect == "postgresql"):
		return parsePostgres(rest)
	}
	return Database{}, errors.New("not the URL of a known database: want sqlite:///path/of/file.db, " +
		"sqlite:///:memory: or postgresql://user:password@host:5432/name")
}

// parseSQLite takes what follows "sqlite://".
func parseSQLite(rest string) (Database, error) {
	if path, query, _ := strings.Cut(rest, "?"); isQuery(query) {
		rest = path
	}
	path, rooted := strings.CutPrefix(rest, "/")
	switch {
	case path == "" || rooted && path == ":memory:":
		return Database{Driver: SQLite}, nil
	case !rooted:
		return Database{}, errors.New("a SQLite URL needs three slashes before the path, and a fourth for an absolute one: " +
			"want sqlite:///name.db or sqlite:////dir/name.db")
	}
	return Database{Driver: SQLite, Source: path}, nil
}

// isQuery reports whether text is key=value pairs joined by &, the keys being plain words.
func isQuery(text string) bool {
	for pair := range strings.SplitSeq(text, "&") {
		key, _, found := strings.Cut(pair, "=")
		if !found || key == "" || strings.ContainsFunc(key, notInWord) {
			return false
		}
	}
	return true
}

func notInWord(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// parsePostgres takes what follows "postgres://".
func parsePostgres(rest string) (Database, error) {
	if _, ok := location(rest); !ok {
		return Database{}, errors.New("a user, password, database name or parameter of a Postgres URL needs " +
			"its special characters percent-encoded: @ as %40, / as %2F, ? as %3F, % as %25")
	}
	if _, err := pgx.ParseConfig(postgresScheme + rest); err != nil {
		return Database{}, postgresFault(err)
	}
	return Database{Driver: Postgres, Source: postgresScheme + rest}, nil
}

// postgresFault words what is wrong with a Postgres URL, or with the PG* variables and files that
// count as well. Of what pgx says, only names of files and services are passed on: the rest may
// quote a part of a password.
func postgresFault(err error) error {
	_, said, _ := strings.Cut(err.Error(), "`: ") // behind the URL
	if path, ok := strings.CutPrefix(said, "failed to read service (failed to read service file: "); ok {
		path = strings.TrimSuffix(path, ")")
		_, err := os.ReadFile(path)
		if err == nil {
			err = errors.New("it must consist of [sections] with NAME=value on each line")
		}
		return fmt.Errorf("servicefile or PGSERVICEFILE: %w", unreadable(path, err))
	}
	for _, fault := range []struct{ said, words string }{
		{"failed to configure TLS (unable to read CA", "sslrootcert or PGSSLROOTCERT"},
		{"failed to configure TLS (unable to read sslkey", "sslkey or PGSSLKEY"},
		{"failed to configure TLS (unable to read cert", "sslcert or PGSSLCERT"},
		{"failed to configure TLS (unable to add CA", "sslrootcert or PGSSLROOTCERT: the file holds no certificate (PEM)"},
		{"failed to configure TLS (failed to decode sslkey", "sslkey or PGSSLKEY: the file holds no key (PEM)"},
		{"failed to configure TLS (unable to load cert", "sslcert and sslkey: the files do not hold a certificate and its key (PEM)"},
		{"failed to configure TLS (unable to find sslpassword", "sslkey or PGSSLKEY: the key is encrypted, give its sslpassword"},
		{"failed to configure TLS (unable to decrypt key", "sslpassword or PGSSLPASSWORD does not open the key of sslkey"},
		{"failed to configure TLS (both", "sslcert and sslkey: want both or none of them"},
		{"failed to configure TLS (sslmode", "sslmode or PGSSLMODE: want disable, allow, prefer, require, verify-ca or verify-full"},
		{"failed to read service (unable to find", "service or PGSERVICE: the service file has no section of that name"},
		{"invalid connect_timeout", "connect_timeout or PGCONNECT_TIMEOUT: want a whole number of seconds"},
		{"invalid port", "the port, or PGPORT: want a whole number from 1 to 65535, and a password's special characters percent-encoded"},
		{"could not match", "want one port, or one for each host"},
		{"unknown target_session_attrs", "target_session_attrs or PGTARGETSESSIONATTRS: want any, read-write or primary"},
	} {
		if !strings.HasPrefix(said, fault.said) {
			continue
		}
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			return fmt.Errorf("%s: %w", fault.words, unreadable(file.Path, err))
		}
		return errors.New(fault.words)
	}
	return errors.New("not a usable Postgres URL: want postgresql://user:password@host:5432/name, " +
		"special characters percent-encoded, then ?sslmode=... and the like; PG* variables that are set count as well")
}

// location cuts user, password and parameters from what follows "postgres://". It is not ok if another reading of the
// text could find a password in what remains: 12 and ss in user:12/ss@host, or ss in user:pa@ss@host.
func location(rest string) (hostsAndName string, ok bool) {
	before, _, _ := strings.Cut(rest, "?")
	user, after, found := strings.Cut(before, "@")
	if !found {
		return before, !strings.Contains(rest, "@")
	}
	return after, strings.Count(rest, "@") == 1 && !strings.Contains(user, "/")
}

// String is the URL of d as fit for logs: without user, password and parameters.
func (d Database) String() string {
	switch {
	case d.Driver == SQLite && d.Source == "":
		return "sqlite:///:memory:"
	case d.Driver == SQLite:
		return "sqlite:///" + d.Source
	}
	rest, isURL := strings.CutPrefix(d.Source, postgresScheme)
	if where, ok := location(rest); isURL && ok {
		return postgresScheme + where
	}
	return d.Driver + "://(hidden)"
}

// GoString keeps the password out of what %#v prints.
func (d Database) GoString() string {
	return d.String()
}

// LogValue makes slog print String.
func (d Database) LogValue() slog.Value {
	return slog.StringValue(d.String())
}

// UnmarshalText is ParseDatabaseURL in the form that the env package looks for.
func (d *Database) UnmarshalText(text []byte) error {
	parsed, err := ParseDatabaseURL(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
