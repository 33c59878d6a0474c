package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mattn/go-sqlite3"

	"resource-lock-manager/internal/service"
)

// watch notes the files that SQLite has created beside the database, for checkWritable.
func (f *databaseFile) watch() error {
	const advice = "stop the server with SIGTERM, not with SIGKILL: " +
		"it still has what it has committed, and writes it into the database"
	for _, p := range []part{
		{what: "the write-ahead log", path: f.real + "-wal", advice: advice},
		{what: "the index of the write-ahead log", path: f.real + "-shm", advice: advice},
	} {
		var err error
		if p.info, err = os.Stat(p.path); err == nil && strings.HasSuffix(p.path, "-wal") {
			// A server that is started on another file with this name must not use this
			// log.
			if p.locked, err = os.Open(p.path); err == nil {
				err = lockExclusively(p.locked)
			}
		}
		f.rest = append(f.rest, p)
		if err != nil {
			return f.problem(err, "%s: %v: the file system must support SQLite's write-ahead log, "+
				"as those of networks do not", p.path, err)
		}
	}
	return nil
}

// openError explains an error of SQLite to the operator who starts a server.
func (f *databaseFile) openError(err error) error {
	if errors.As(err, new(*FileError)) {
		return err
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return f.problem(err, "%v", err)
	}
	switch e.Code {
	case sqlite3.ErrNotADB:
		return f.problem(err, "it is not a database of SQLite (or it is encrypted): "+
			"DATABASE_URL must name one, or a file that is not there yet")
	case sqlite3.ErrCorrupt:
		return f.problem(err, "it is damaged (%v): restore a backup, "+
			"or recover what can be read with the command .recover of sqlite3", e)
	case sqlite3.ErrFull:
		return f.problem(err, "there is no space left on its disk (%v)", e)
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return f.problem(err, "another program has locked it for longer than 5 seconds (%v): end that program", e)
	case sqlite3.ErrError:
		return f.problem(err, "it has tables that are not those of this program: use a file of its own (%v)", err)
	default:
		return f.problem(err, "SQLite cannot read or write it: %v", err)
	}
}

// checkWritable returns an error unless the files that this server has open still have
// their names. If one was removed or replaced, the next server would not find what this
// one commits.
func (f *databaseFile) checkWritable() error {
	if err := f.checkPart(&f.itself); err != nil {
		return err
	}
	for i := range f.rest {
		if err := f.checkPart(&f.rest[i]); err != nil {
			return err
		}
	}
	if err := writable(f.path); isReadOnly(err) {
		return f.takenAway(fmt.Errorf("the file system of %s has become read-only", f.path),
			"look for errors of the disk, and mount it writable")
	}
	if f.taken.CompareAndSwap(true, false) {
		f.log.Info("the database is back", "file", f.path)
	}
	return nil
}

// checkReadable checks the database file only. Without its log the database can be read,
// and no server can change it.
func (f *databaseFile) checkReadable() error { return f.checkPart(&f.itself) }

func (f *databaseFile) checkPart(p *part) error {
	now, err := os.Stat(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s %s was removed or moved", p.what, p.path)
	case err != nil:
		err = fmt.Errorf("%s cannot be seen any more: %w", p.what, err)
	case !os.SameFile(now, p.info):
		err = fmt.Errorf("%s %s was replaced by another file", p.what, p.path)
	default:
		return nil
	}
	return f.takenAway(err, p.advice)
}

// takenAway returns the error of a failed check. It logs the first of several failures.
func (f *databaseFile) takenAway(err error, advice string) error {
	if f.taken.CompareAndSwap(false, true) {
		f.log.Error("the database was taken away: no lock is granted until it is back", "error", err, "advice", advice)
	}
	return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
}

// leaveOthers keeps SQLite from deleting the files beside the database when it closes, if
// their names may belong to the files of another server by now.
func (f *databaseFile) leaveOthers(db *sql.DB) error {
	if f.checkWritable() == nil {
		return nil
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return err
	}
	return errors.Join(conn.Raw(func(conn any) error {
		return conn.(*sqlite3.SQLiteConn).SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1)
	}), conn.Close())
}

// Close releases the locks. SQLite must have closed the file before.
func (f *databaseFile) Close() error {
	var errs []error
	for _, p := range append(f.rest, f.itself) {
		if p.locked != nil {
			errs = append(errs, p.locked.Close())
		}
	}
	if f.beside != nil {
		errs = append(errs, f.beside.Close())
	}
	return errors.Join(errs...)
}
