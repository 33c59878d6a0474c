package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// classify implements backend by SQLSTATE classes. An error without one means that the
// connection cannot be used.
func (p *postgres) classify(err error) failure {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return classifyConnection(err)
	}
	switch e.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return retryable
	case "57P01", "25P03": // the connection was closed by the server
		return retryable
	case "25006", "55P03", "57014": // read-only standby, lock or statement timeout
		return unavailable
	}
	switch class(e) {
	case "08", "28", "3D", "53", "57", "58": // connection, login, no such database, resources, operator, system
		return unavailable
	}
	return permanent
}

// class returns the class of an SQLSTATE, "" if there is none.
func class(e *pgconn.PgError) string { return e.Code[:min(2, len(e.Code))] }

// classifyConnection classifies errors that the database did not send.
func classifyConnection(err error) failure {
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &connect), errors.Is(err, context.DeadlineExceeded):
		return unavailable
	case pgconn.SafeToRetry(err), errors.As(err, &network), errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err,
			syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return retryable
	default:
		return permanent
	}
}

// commitRefused implements backend. Some answers to COMMIT prove that it changed nothing.
// Postgres itself sends an ERROR only after a rollback. But a pooler, a proxy or a
// distributed engine may have forwarded COMMIT, and send an ERROR because it does not
// know the outcome.
func (p *postgres) commitRefused(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return errors.Is(err, pgx.ErrTxCommitRollback)
	}
	if e.SeverityUnlocalized != "ERROR" { // Severity is in the server's language
		return false
	}
	switch class(e) {
	case "23", "42": // a constraint checked at COMMIT, a statement that is not permitted
		return true
	case "25": // the transaction failed before; but "no transaction" may mean that a pooler lost it
		return e.Code != "25P01"
	case "40": // serialization failure, deadlock
		return e.Code != "40003" // statement completion unknown
	}
	return false
}

// nameTaken reports whether a table or an index could not be created because of its name.
func nameTaken(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "42P07"
}
