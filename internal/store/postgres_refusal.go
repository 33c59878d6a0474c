package store

import (
	"cmp"
	"context"
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

// unreachable explains why no connection to Postgres could be made. pgx joins the errors
// of all attempts: for each address, with TLS and without. The most informative error of
// each address is kept. An answer of a server comes first.
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

// words returns the cause with what to do about it, and the place.
func (a attempt) words(conf *pgx.ConnConfig) (words, place string) {
	if e, ok := errors.AsType[*net.DNSError](a.err); ok {
		return "the host cannot be found: correct it", fmt.Sprintf("%s: %s", e.Name, e.Err)
	}
	// Only the text of the error has the address of the attempt.
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

// advice returns what to do about an error with which Postgres answers a new connection.
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
		return fmt.Sprintf(": GRANT CONNECT ON DATABASE %s TO %s", pgx.Identifier{conf.Database}.Sanitize(),
			pgx.Identifier{conf.User}.Sanitize())
	case "42704", "22023":
		return ": correct the parameters of the URL, or PGOPTIONS"
	case "53300":
		return ": raise that limit, or close other connections"
	case "57P03":
		return ": try again later"
	}
	return ""
}

// passwordFile returns why the configured file of passwords did not help.
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
