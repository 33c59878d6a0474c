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

// The drivers of a Database.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

const postgresScheme = "postgres://"

// Database is the database that stores the locks.
type Database struct {
	// Driver is SQLite or Postgres.
	Driver string
	// Source is the literal path of a SQLite file, "" for a SQLite database in memory, or
	// a postgres:// URL for pgx. The URL contains the password: print the Database
	// instead.
	Source string `json:"-"`
}

// ParseDatabaseURL parses the URLs of SQLAlchemy for the two databases. The scheme may be
// in upper case and may name a Python driver (sqlite+pysqlite, postgresql+psycopg2),
// which is ignored.
//
//	sqlite:///name.db        a file, relative to the working directory
//	sqlite:////dir/name.db   a file, absolute
//	sqlite://                in memory; also sqlite:/// and sqlite:///:memory:
//	postgresql://user:password@host:5432/name?sslmode=require
//
// The path of a SQLite file is literal: a space, %, # or + needs no escape. The text
// after the first ? is ignored if it consists of key=value pairs, because these are
// SQLAlchemy's options for Python. Any other ? belongs to the path.
//
// A Postgres URL is passed to pgx unchanged except for its scheme, which may also be
// postgres. It may contain several hosts, and parameters. It must not contain a literal @
// except the one before the host: another @ means that the password is not
// percent-encoded, and parsers of URLs disagree on where such a password ends.
//
// The error never quotes the text, because invalid text may contain a password anywhere.
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

// parseSQLite parses the text after "sqlite://".
func parseSQLite(rest string) (Database, error) {
	if path, query, _ := strings.Cut(rest, "?"); isQuery(query) {
		rest = path
	}
	path, rooted := strings.CutPrefix(rest, "/")
	switch {
	case path == "" || rooted && path == ":memory:":
		return Database{Driver: SQLite}, nil
	case !rooted:
		return Database{}, errors.New("a SQLite URL needs three slashes before the path, " +
			"and a fourth for an absolute one: want sqlite:///name.db or sqlite:////dir/name.db")
	}
	return Database{Driver: SQLite, Source: path}, nil
}

// isQuery reports whether text consists of key=value pairs joined by &, where each key is
// a word.
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

// parsePostgres parses the text after "postgres://".
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

// postgresFault explains why a Postgres URL, or one of the PG* variables and files, is
// invalid. Of pgx's error it repeats only names of files and services, because the rest
// may contain a part of a password.
func postgresFault(err error) error {
	_, message, _ := strings.Cut(err.Error(), "`: ") // removes the quoted URL
	if path, ok := strings.CutPrefix(message, "failed to read service (failed to read service file: "); ok {
		path = strings.TrimSuffix(path, ")")
		_, err := os.ReadFile(path)
		if err == nil {
			err = errors.New("it must consist of [sections] with NAME=value on each line")
		}
		return fmt.Errorf("servicefile or PGSERVICEFILE: %w", unreadable(path, err))
	}
	for _, fault := range []struct{ prefix, text string }{
		{"failed to configure TLS (unable to read CA", "sslrootcert or PGSSLROOTCERT"},
		{"failed to configure TLS (unable to read sslkey", "sslkey or PGSSLKEY"},
		{"failed to configure TLS (unable to read cert", "sslcert or PGSSLCERT"},
		{"failed to configure TLS (unable to add CA", "sslrootcert or PGSSLROOTCERT: the file holds no certificate (PEM)"},
		{"failed to configure TLS (failed to decode sslkey", "sslkey or PGSSLKEY: the file holds no key (PEM)"},
		{
			"failed to configure TLS (unable to load cert",
			"sslcert and sslkey: the files do not hold a certificate and its key (PEM)",
		},
		{
			"failed to configure TLS (unable to find sslpassword",
			"sslkey or PGSSLKEY: the key is encrypted, give its sslpassword",
		},
		{"failed to configure TLS (unable to decrypt key", "sslpassword or PGSSLPASSWORD does not open the key of sslkey"},
		{"failed to configure TLS (both", "sslcert and sslkey: want both or none of them"},
		{
			"failed to configure TLS (sslmode",
			"sslmode or PGSSLMODE: want disable, allow, prefer, require, verify-ca or verify-full",
		},
		{"failed to read service (unable to find", "service or PGSERVICE: the service file has no section of that name"},
		{"invalid connect_timeout", "connect_timeout or PGCONNECT_TIMEOUT: want a whole number of seconds"},
		{
			"invalid port",
			"the port, or PGPORT: want a whole number from 1 to 65535, and a password's special characters percent-encoded",
		},
		{"could not match", "want one port, or one for each host"},
		{
			"unknown target_session_attrs",
			"target_session_attrs or PGTARGETSESSIONATTRS: want any, read-write or primary",
		},
	} {
		if !strings.HasPrefix(message, fault.prefix) {
			continue
		}
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			return fmt.Errorf("%s: %w", fault.text, unreadable(file.Path, err))
		}
		return errors.New(fault.text)
	}
	return errors.New("not a usable Postgres URL: want postgresql://user:password@host:5432/name, " +
		"special characters percent-encoded, then ?sslmode=... and the like; PG* variables that are set count as well")
}

// location removes user, password and parameters from the text after "postgres://". It is
// not ok if another parser could find a part of the password in the result: ss in
// user:12/ss@host or in user:pa@ss@host.
func location(rest string) (hostsAndName string, ok bool) {
	before, _, _ := strings.Cut(rest, "?")
	user, after, found := strings.Cut(before, "@")
	if !found {
		return before, !strings.Contains(rest, "@")
	}
	return after, strings.Count(rest, "@") == 1 && !strings.Contains(user, "/")
}

// String returns the URL of d without user, password and parameters.
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

// GoString returns String, so that %#v does not print the password.
func (d Database) GoString() string {
	return d.String()
}

// LogValue returns String, so that slog does not print the password.
func (d Database) LogValue() slog.Value {
	return slog.StringValue(d.String())
}

// UnmarshalText calls ParseDatabaseURL. The env package uses it.
func (d *Database) UnmarshalText(text []byte) error {
	parsed, err := ParseDatabaseURL(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
