package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/gofrs/flock"
)

// FileError states why a SQLite database cannot be used.
type FileError struct {
	Database string // its absolute path, and the target of a symbolic link
	Problem  string // which file is at fault, and what to do
	Err      error  // the error of the system or of SQLite; may be nil
}

func (e *FileError) Error() string {
	return fmt.Sprintf("cannot use the SQLite database %s: %s", cmp.Or(e.Database, "in memory"), e.Problem)
}

func (e *FileError) Unwrap() error { return e.Err }

// databaseFile is a SQLite file that only this server uses: two servers would have two
// clocks.
type databaseFile struct {
	path string // as in the settings, but absolute
	real string // the same without symbolic links; beside it SQLite keeps its other files
	log  *slog.Logger

	// The file itself is locked, so that the lock cannot be removed and holds for all
	// names of the file. x.db.lock is locked as well: servers of earlier versions lock
	// only that, and so do systems on which flock(2) conflicts with SQLite's own locks.
	// The descriptor in itself must live as long as SQLite's: when a process closes any
	// descriptor of a file, it loses the locks that SQLite has on it.
	beside *flock.Flock
	itself part
	rest   []part      // the files beside it, after SQLite has opened them
	taken  atomic.Bool // the last check found one of them missing
}

// part is a file that SQLite has open.
type part struct {
	what, path string
	info       fs.FileInfo
	advice     string // for the operator, if the file was taken away
	locked     *os.File
}

// lockFile makes sure that no other server uses the file, and creates it if there is
// none. The locks end with the process.
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
	case err != nil: // opening it gives a better error, or creates it
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
	case hardLinks(f.itself.info) > 1:
		return nil, f.problem(nil, "it has several names (hard links), and under another one SQLite does not "+
			"find what is still in %s-wal: leave it only this name", f.real)
	case isMountPoint(f.real):
		return nil, f.problem(nil, "it is a mount point, and SQLite keeps the newest commits beside it, in %s-wal: "+
			"mount the folder that has the file, not the file alone", f.real)
	}
	if err := f.tryOthers(); err != nil {
		return nil, err
	}
	return f, f.lockBeside()
}

// resolve follows symbolic links, also to a file that does not exist yet: all names of a
// file must lead to the same lock.
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

// tryOthers returns an error if files that an earlier server has left beside the database
// cannot be used.
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
			return f.problem(err, "%s is in use by another server, whose database was replaced by this one: "+
				"stop that server first", path)
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

// tryFolder returns an error if SQLite cannot create files beside the database.
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

// lockItself opens or creates the file and locks it. It starts again if the file was
// removed or replaced meanwhile.
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
	return f.problem(nil, "it is in use by another server, and only one server may use a SQLite file, "+
		"because its clock decides when locks expire: stop the other one, or use Postgres for several")
}

// problem returns a FileError.
func (f *databaseFile) problem(err error, format string, args ...any) error {
	name := f.path
	if f.real != f.path {
		name += " (" + f.real + ")"
	}
	return &FileError{name, fmt.Sprintf(format, args...), err}
}

// denied returns a FileError about a file that lacks a needed permission.
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
		return f.problem(err, "%s: %v (%s): %s; change the owner or the mode, of %s* as well, "+
			"or run the server as another user",
			path, reason, permissions(path), needs, filepath.Base(f.real))
	case isReadOnly(err):
		return f.problem(err, "%s: %v: %s; make the file system writable, or keep the database elsewhere", path,
			reason, needs)
	default:
		return f.problem(err, "%s: %v: %s", path, reason, needs)
	}
}

// barrier returns the uppermost folder of a path that this process cannot enter, if any.
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
