package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/gofrs/flock"
	"github.com/mattn/go-sqlite3"

	"resource-lock-manager/internal/service"
)

// FileError says why a SQLite database cannot be used.
type FileError struct {
	Database string // its absolute path, and where a symbolic link leads to
	Problem  string // which file is the matter, and what to do
	Err      error  // what the system or SQLite says; may be nil
}

func (e *FileError) Error() string {
	return fmt.Sprintf("cannot use the SQLite database %s: %s", cmp.Or(e.Database, "in memory"), e.Problem)
}

func (e *FileError) Unwrap() error { return e.Err }

// databaseFile is a SQLite file that this server alone uses: two servers would have two clocks. Its methods work on nil,
// which stands for a database in memory.
type databaseFile struct {
	path string // where the settings say that it is, absolute
	real string // the same without symbolic links, where SQLite keeps its other files beside it
	log  *slog.Logger

	// The lock is on the file itself, so that it cannot be removed and holds for all names of the file; and on x.db.lock, for
	// servers of earlier versions, which lock only that, and for systems on which flock(2) would be in the way of SQLite's
	// own locks. The descriptor in itself must live as long as SQLite's: when a process closes any descriptor of a file it
	// loses the locks that SQLite has on it.
	beside *flock.Flock
	itself part
	rest   []part      // the files beside it, once SQLite has opened them
	taken  atomic.Bool // whether check has found one of them missing
}

// part is a file that SQLite has open.
type part struct {
	what, path string
	info       fs.FileInfo
	advice     string // for when it was taken away
	locked     *os.File
}

// lockFile makes sure that no other server uses the file, and makes it when there is none. The locks end with the process.
func lockFile(path string, log *slog.Logger) (_ *databaseFile, err error) {
	f := &databaseFile{log: log}
	if f.path, err = filepath.Abs(path); err != nil {
		return nil, &FileError{path, err.Error(), err}
	}
	f.real = resolve(f.path)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	switch info, err := os.Stat(f.real); {
	case err != nil: // opening it tells more, or makes it
	case info.IsDir():
		return nil, f.problem(nil, "it is a directory: DATABASE_URL must name a file")
	case !info.Mode().IsRegular():
		return nil, f.problem(nil, "it is no regular file but %v: DATABASE_URL must name a file", info.Mode())
	}
	if err := f.tryFolder(); err != nil {
		return nil, err
	}
	if err := f.lockItself(); err != nil {
		return nil, err
	}
	switch {
	case names(f.itself.info) > 1:
		return nil, f.problem(nil, "it has several names (hard links), and under another one SQLite does not find what is still "+
			"in %s-wal: leave it only this name", f.real)
	case isMountPoint(f.real):
		return nil, f.problem(nil, "it is a mount point, and SQLite keeps the newest commits beside it, in %s-wal: "+
			"mount the folder that has the file, not the file alone", f.real)
	}
	if err := f.tryOthers(); err != nil {
		return nil, err
	}
	return f, f.lockBeside()
}

// resolve follows symbolic links, also to a file that does not exist yet: they lead to the same lock as the file.
func resolve(path string) string {
	for range 40 { // as many as Linux follows
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
		}
		target, err := os.Readlink(path)
		if err != nil { // no link: a file that does not exist yet
			if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
				return filepath.Join(folder, filepath.Base(path))
			}
			return path
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

// tryOthers returns an error when the files that an earlier server has left beside the database are in the way.
func (f *databaseFile) tryOthers() error {
	for _, suffix := range []string{"-wal", "-shm"} {
		path := f.real + suffix
		left, err := os.OpenFile(path, os.O_RDWR, 0)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return f.denied(path, err, "it belongs to the database and must be writable")
		}
		info, err := left.Stat()
		if err == nil && suffix == "-wal" {
			err = lockExclusively(left)
		}
		if err := errors.Join(err, left.Close()); errors.Is(err, errLocked) {
			return f.problem(err, "%s is in use by another server, whose database was replaced by this one: stop that server first", path)
		} else if err != nil {
			return f.denied(path, err, "it belongs to the database")
		}
		if suffix == "-wal" && info.Size() > 0 && f.itself.info.Size() == 0 {
			return f.problem(nil, "it is missing or empty, but its write-ahead log %s is there: bring the database back, "+
				"or delete the log as well if no lock is held any more", path)
		}
	}
	return nil
}

// tryFolder returns an error when there cannot be files beside the database.
func (f *databaseFile) tryFolder() error {
	folder := filepath.Dir(f.real)
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.problem(err, "its folder %s must exist: make it, or correct DATABASE_URL", folder)
	case err != nil:
		return f.denied(folder, err, "the folder of the database must be reachable")
	case !info.IsDir():
		return f.problem(nil, "%s is not a directory: correct DATABASE_URL", folder)
	}
	if err = writable(folder); err == nil {
		err = enterable(folder)
	}
	if err != nil {
		return f.denied(folder, err, "SQLite makes files beside the database, so its folder must be writable")
	}
	return nil
}

func (f *databaseFile) lockBeside() error {
	l := flock.New(f.real + ".lock")
	switch locked, err := l.TryLock(); {
	case err != nil:
		return f.denied(l.Path(), err, "delete it when no server of an earlier version runs on the database")
	case !locked:
		return f.inUse()
	}
	f.beside = l
	return nil
}

// lockItself opens, or makes, and locks the file that has the path in the end: it may be removed or replaced meanwhile.
func (f *databaseFile) lockItself() error {
	for {
		file, err := os.OpenFile(f.real, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // as SQLite does, within the umask
		if err != nil {
			return f.denied(f.real, err, "the database must be writable")
		}
		info, err := file.Stat()
		if err == nil {
			err = lockExclusively(file)
		}
		switch {
		case errors.Is(err, errLocked):
			err = f.inUse()
		case err != nil:
			err = f.problem(err, "it cannot be locked: %v", err)
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
		if now, err := os.Stat(f.real); err == nil && os.SameFile(now, info) {
			f.itself = part{"the database file", f.path, info, "move it back, or stop the server and restore a backup", file}
			return nil
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
}

func (f *databaseFile) inUse() error {
	return f.problem(nil, "it is in use by another server, and only one server may use a SQLite file, because its clock decides "+
		"when locks expire: stop the other one, or use Postgres for several")
}

// problem makes a FileError.
func (f *databaseFile) problem(err error, format string, args ...any) error {
	name := f.path
	if f.real != f.path {
		name += " (" + f.real + ")"
	}
	return &FileError{name, fmt.Sprintf(format, args...), err}
}

// denied makes a FileError about a file that cannot be used as it has to be.
func (f *databaseFile) denied(path string, err error, needs string) error {
	reason := err
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		reason = of.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		if folder := barrier(path); folder != "" {
			path = folder
		}
		return f.problem(err, "%s: %v (%s): %s; change the owner or the mode, of %s* as well, or run the server as another user",
			path, reason, permissions(path), needs, filepath.Base(f.real))
	case isReadOnly(err):
		return f.problem(err, "%s: %v: %s; make the file system writable, or keep the database elsewhere", path, reason, needs)
	default:
		return f.problem(err, "%s: %v: %s", path, reason, needs)
	}
}

// barrier returns the uppermost folder of a path that this process cannot enter, if there is one.
func barrier(path string) (found string) {
	for folder := filepath.Dir(path); ; folder = filepath.Dir(folder) {
		if enterable(folder) != nil {
			found = folder
		}
		if folder == filepath.Dir(folder) {
			return found
		}
	}
}

// watch remembers the files that SQLite has made beside the database.
func (f *databaseFile) watch() error {
	if f == nil {
		return nil
	}
	const advice = "stop the server with SIGTERM, not with SIGKILL: it still has what it has committed, and writes it into the database"
	for _, p := range []part{
		{what: "the write-ahead log", path: f.real + "-wal", advice: advice},
		{what: "the index of the write-ahead log", path: f.real + "-shm", advice: advice},
	} {
		var err error
		if p.info, err = os.Stat(p.path); err == nil && strings.HasSuffix(p.path, "-wal") {
			// A server that is started on another file under this name must not take this log for that file's.
			if p.locked, err = os.Open(p.path); err == nil {
				err = lockExclusively(p.locked)
			}
		}
		f.rest = append(f.rest, p)
		if err != nil {
			return f.problem(err, "%s: %v: the file system must support SQLite's write-ahead log, as those of networks do not", p.path, err)
		}
	}
	return nil
}

// openError says what an error of SQLite means for whoever starts a server.
func (f *databaseFile) openError(err error) error {
	if errors.As(err, new(*FileError)) {
		return err
	}
	if f == nil {
		return &FileError{"", err.Error(), err}
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return f.problem(err, "%v", err)
	}
	switch e.Code {
	case sqlite3.ErrNotADB:
		return f.problem(err, "it is not a database of SQLite (or it is encrypted): DATABASE_URL must name one, or a file that is not there yet")
	case sqlite3.ErrCorrupt:
		return f.problem(err, "it is damaged (%v): restore a backup, or recover what can be read with the command .recover of sqlite3", e)
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

// check returns an error that wraps [service.ErrUnavailable] unless a server that was started now would find the database and its
// log as this one has them open. Whoever removes or replaces one of them takes away what this server commits.
func (f *databaseFile) check() error {
	if f == nil {
		return nil
	}
	if err := f.checkPart(&f.itself); err != nil {
		return err
	}
	for i := range f.rest {
		if err := f.checkPart(&f.rest[i]); err != nil {
			return err
		}
	}
	if err := writable(f.path); isReadOnly(err) {
		return f.takenAway(fmt.Errorf("the file system of %s has become read-only", f.path), "look for errors of the disk, and mount it writable")
	}
	if f.taken.CompareAndSwap(true, false) {
		f.log.Info("the database is back", "file", f.path)
	}
	return nil
}

// checkForReading is check for those who change nothing. Without its log the database still says the truth, which nobody can
// change.
func (f *databaseFile) checkForReading() error {
	if f == nil {
		return nil
	}
	return f.checkPart(&f.itself)
}

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

// takenAway says why nothing is granted, and logs it when that begins.
func (f *databaseFile) takenAway(err error, advice string) error {
	if f.taken.CompareAndSwap(false, true) {
		f.log.Error("the database was taken away: no lock is granted until it is back", "error", err, "advice", advice)
	}
	return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
}

// leaveOthers keeps SQLite from deleting, when it closes, the files that it has made beside the database: their names may by now
// belong to the files of another server.
func (f *databaseFile) leaveOthers(db *sql.DB) error {
	if f.check() == nil {
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

// Close gives up the locks, after SQLite has closed the file.
func (f *databaseFile) Close() error {
	if f == nil {
		return nil
	}
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

// connector opens connections to a file for as long as it is where it was: under its name there may be another one.
type connector struct {
	driver *sqlite3.SQLiteDriver
	source string
	file   *databaseFile
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	if err := c.file.check(); err != nil { // to open another file would bring this one's log into it
		return nil, err
	}
	conn, err := c.driver.Open(c.source)
	if err != nil {
		return nil, err
	}
	if err := c.file.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }
