package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/mattn/go-sqlite3"
)

// location is where a SQLite database is: a file, or memory.
type location interface {
	// checkWritable and checkReadable return an error that wraps [service.ErrUnavailable]
	// if the database must not be written or read.
	checkWritable() error
	checkReadable() error
	// watch is called once, after SQLite has opened the database.
	watch() error
	// keepLogShort keeps the write-ahead log short until ctx ends. It uses db, and makes
	// no attempt while streaming reports that a long read is open.
	keepLogShort(ctx context.Context, db *sql.DB, streaming func() bool)
	// openError explains an error that occurred while the database was opened.
	openError(err error) error
	// leaveOthers is called before the last connection, which db has, is closed.
	leaveOthers(db *sql.DB) error
	// Close is called after the last connection was closed.
	Close() error
}

// inMemory is the location of a database that ends with the process.
type inMemory struct{}

func (inMemory) checkWritable() error { return nil }

func (inMemory) checkReadable() error { return nil }

func (inMemory) watch() error { return nil }

func (inMemory) keepLogShort(context.Context, *sql.DB, func() bool) {}

func (inMemory) openError(err error) error {
	if errors.As(err, new(*FileError)) {
		return err
	}
	return &FileError{"", err.Error(), err}
}

func (inMemory) leaveOthers(*sql.DB) error { return nil }

func (inMemory) Close() error { return nil }

// connector opens connections to a database while its file has its name: another file may
// have got the name.
type connector struct {
	driver *sqlite3.SQLiteDriver
	source string
	at     location
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	if err := c.at.checkWritable(); err != nil { // SQLite would write the log into another file
		return nil, err
	}
	conn, err := c.driver.Open(c.source)
	if err != nil {
		return nil, err
	}
	if err := c.at.checkWritable(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }
