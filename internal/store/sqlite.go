package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
)

// What is written is written row by row: a prepared statement costs less for a row than one that takes many rows as JSON.
const (
	sqliteLock = `
		SELECT NULL, ` + optionalColumns + ` FROM resource_locks WHERE resource_name IN (SELECT value FROM json_each(?))`
	sqliteSave = `
		INSERT INTO resource_locks (` + columns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)` + onConflict
	sqliteAppend = `
		INSERT INTO lock_events (` + eventColumns + `, filed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, false)`
	sqliteFile = `
		UPDATE lock_events SET filed = true WHERE id > ? AND NOT filed`
	sqliteFirst = `
		SELECT w.* FROM json_each(?) AS r JOIN lock_waiters AS w ON w.resource_id = r.value AND w.ticket IN (
			SELECT w.ticket ` + connectedOf + ` AND w.resource_id = r.value ORDER BY w.ticket` + limited + `)`
	sqlitePlaces = `
		SELECT w.* FROM json_each(?) AS p JOIN lock_waiters AS w ON w.resource_id = p.value->>'resource_id'
			AND w.request_id = p.value->>'request_id' AND w.process_id = p.value->>'process_id'`
	sqliteEnqueue = `
		INSERT INTO lock_waiters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)` + onTicket
	sqliteDequeue = `
		DELETE FROM lock_waiters WHERE resource_id = ? AND ticket = ?`
)

// sqliteWriterCache is what the connection that writes keeps of the database in memory, in negative KiB: SQLite's own 2 MB are
// fewer pages than events that are filed at once may touch.
const sqliteWriterCache = "-16000"

// openSQLite opens a file for this process alone: one connection writes, several read.
func openSQLite(ctx context.Context, cfg Config) (_ *Store, err error) {
	release := func() error { return nil }
	location := "file:/" + rand.Text()
	memory := "?vfs=memdb"
	if cfg.Source != "" {
		memory = "?_journal_mode=WAL"
		path := resolve(cfg.Source)
		location = "file:" + (&url.URL{Path: path}).EscapedPath()
		if release, err = lockFile(path); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()

	writing := memory + "&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate&_cache_size=" + sqliteWriterCache
	writer, err := gorm.Open(sqlite.Open(location+writing), gormConfig(false))
	if err != nil {
		return nil, sqliteOpenError(cfg.Source, err)
	}
	writerDB, err := writer.DB()
	if err != nil {
		return nil, err
	}
	keep(writerDB, 1)
	if err := migrate(ctx, goose.DialectSQLite3, writerDB, nil); err != nil {
		return nil, errors.Join(sqliteOpenError(cfg.Source, err), writerDB.Close())
	}
	clock, err := newSteadyClock(writer, cfg)
	if err != nil {
		return nil, errors.Join(err, writerDB.Close())
	}
	reader, err := gorm.Open(sqlite.Open(location+memory+"&_query_only=1&_busy_timeout=5000"), gormConfig(true))
	if err != nil {
		return nil, errors.Join(sqliteOpenError(cfg.Source, err), writerDB.Close())
	}
	readerDB, err := reader.DB()
	if err != nil {
		return nil, errors.Join(err, writerDB.Close())
	}
	keep(readerDB, max(4, runtime.NumCPU()))

	s := &Store{
		dialect: dialect{
			clock:  clock.now,
			now:    "NULL",
			lock:   sqliteLock,
			look:   sqliteLock,
			queues: "SELECT " + waiterColumns + " FROM (" + sqliteFirst + " UNION " + sqlitePlaces + ") AS w " + theirServers,
			names: nameOrder{
				from: "resource_name >= ?", after: "resource_name > ?", before: "resource_name < ?", sorted: "resource_name",
			},
			classify: classifySQLite,
			refused:  refusedBySQLite,
		},
		writer: writer,
		reader: reader,
		close:  func() error { return errors.Join(closeAll(readerDB, writerDB), release()) },
	}
	if err := s.prepareSQLite(ctx, writerDB); err != nil {
		return nil, errors.Join(err, closeAll(readerDB, writerDB))
	}
	return s, nil
}

// prepareSQLite prepares the statements of a batch, and what this server remembers between batches.
func (s *Store) prepareSQLite(ctx context.Context, db *sql.DB) (err error) {
	s.statements, err = prepare(ctx, db,
		sqliteVersion, sqliteLock, s.dialect.queues, sqliteSave, sqliteAppend, sqliteFile, sqliteEnqueue, sqliteDequeue)
	if err != nil {
		return err
	}
	if s.known, err = newKnown(s.statements); err != nil {
		return err
	}
	var filed sql.NullInt64
	err = db.QueryRowContext(ctx, "SELECT id FROM lock_events WHERE filed ORDER BY id DESC LIMIT 1").Scan(&filed)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	s.known.filed.Store(filed.Int64)

	s.dialect.write = func(tx *gorm.DB, rows []lockRow, events []eventRow) error {
		if err := s.saveRows(tx, rows); err != nil {
			return err
		}
		return s.appendEvents(tx, events)
	}
	s.dialect.enqueue, s.dialect.dequeue = s.enqueueRows, s.dequeueRows
	return nil
}

func (s *Store) saveRows(tx *gorm.DB, rows []lockRow) error {
	write := s.statements.exec(tx, sqliteSave)
	for i := range rows {
		result, err := write(rows[i].values()...)
		if err != nil {
			return err
		}
		switch written, err := result.RowsAffected(); {
		case err != nil:
			return err
		case written == 0:
			return errRace
		}
		if rows[i].ID == 0 {
			if rows[i].ID, err = result.LastInsertId(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileAtOnce is how many events are appended before they enter the indexes of the history, all at once: fewer pages change so
// than with every single one. The more at once, the fewer pages for each event, but the longer everybody waits for them; 1500
// of a thousand resources take some 40 ms. Whoever reads the history goes through the others one by one.
const fileAtOnce = 1500

func (s *Store) appendEvents(tx *gorm.DB, rows []eventRow) error {
	write := s.statements.exec(tx, sqliteAppend)
	var last int64
	for i := range rows {
		result, err := write(rows[i].values()...)
		if err == nil {
			last, err = result.LastInsertId()
		}
		if err != nil {
			return err
		}
	}
	filed := s.known.filed.Load()
	if last-filed < fileAtOnce {
		return nil
	}
	s.known.filing = last
	_, err := s.statements.exec(tx, sqliteFile)(filed)
	return err
}

func (s *Store) enqueueRows(tx *gorm.DB, rows []waiterRow) error {
	write := s.statements.exec(tx, sqliteEnqueue)
	for i := range rows {
		if _, err := write(rows[i].values()...); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dequeueRows(tx *gorm.DB, rows []waiterRow) error {
	write := s.statements.exec(tx, sqliteDequeue)
	for _, row := range rows {
		if _, err := write(row.ResourceID, row.Ticket); err != nil {
			return err
		}
	}
	return nil
}

// keep makes a pool of n connections that stay open.
func keep(db *sql.DB, n int) {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
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

// lockFile makes sure that no other server uses the file: two of them would have two clocks. The lock is advisory and
// ends with the process.
func lockFile(path string) (release func() error, err error) {
	switch info, err := os.Stat(path); {
	case err != nil: // it will be made
	case info.IsDir():
		return nil, fmt.Errorf("the database file %s is a directory", path)
	case names(info) > 1:
		return nil, fmt.Errorf("the database file %s has several names (hard links): "+
			"another server could use it under another one, leave it only this name", path)
	}
	l := flock.New(path + ".lock")
	switch locked, err := l.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("the folder of the database file %s must exist and be writable: %w", path, err)
	case !locked:
		return nil, fmt.Errorf("the database file %s is in use by another server: "+
			"only one server may use a SQLite file, because its clock decides when locks expire; use Postgres for several", path)
	}
	return l.Close, nil
}

// sqliteOpenError says in words which file could not be used.
func sqliteOpenError(path string, err error) error {
	if path == "" {
		path = "in memory"
	}
	return fmt.Errorf("cannot use the SQLite database %s: %w", path, err)
}

// classifySQLite: a code that speaks of the file or the disk is nobody's fault; BUSY means that a foreign program kept
// its lock for longer than the busy timeout.
func classifySQLite(err error) failure {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return faulty
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen,
		sqlite3.ErrPerm, sqlite3.ErrProtocol, sqlite3.ErrNomem, sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrInterrupt:
		return unavailable
	default:
		return faulty
	}
}

// refusedBySQLite: the driver rolls back after a failed COMMIT. Only after an I/O error may the commit still have reached
// the disk, and come back when the log is read after a crash.
func refusedBySQLite(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code != sqlite3.ErrIoErr
}

// steadyClock tells the wall time of its start plus the steady time since: stepping the wall clock neither ends nor
// extends a hold. It starts no earlier than the newest moment in the database, so that a restart after the wall clock
// went back does not extend holds or repeat tokens.
type steadyClock struct {
	base   time.Time
	steady func() time.Duration // grows evenly, also while the machine is suspended
	zero   time.Duration        // its reading at base
}

func newSteadyClock(db *gorm.DB, cfg Config) (*steadyClock, error) {
	wall, steady := time.Now, sinceBoot
	if cfg.Wall != nil {
		wall = cfg.Wall
	}
	if cfg.Steady != nil {
		steady = cfg.Steady
	}
	c := &steadyClock{base: wall().UTC(), steady: steady, zero: steady()}

	var locked, ended, renewed, released, event instant
	var token sql.NullInt64
	row := db.Raw(`SELECT max(locked_at), max(ended_at), max(renewed_at), max(released_at),
			max(max(fencing_token), (SELECT fencing_token FROM token_floor)),
			(SELECT at FROM lock_events ORDER BY id DESC LIMIT 1)
		FROM resource_locks`).Row()
	if err := row.Scan(&locked, &ended, &renewed, &released, &token, &event); err != nil {
		return nil, err
	}
	for _, t := range []time.Time{
		locked.Time, ended.Time, renewed.Time, released.Time, time.UnixMicro(token.Int64).UTC(), event.Time,
	} {
		if t.After(c.base) {
			c.base = t
		}
	}
	if ahead := c.base.Sub(wall()); ahead > time.Second {
		cfg.Logger.Warn("the database holds moments from the future of this machine's clock; going on from the newest of them",
			"newest", c.base, "ahead", ahead)
	}
	return c, nil
}

func (c *steadyClock) now() time.Time {
	return c.base.Add(c.steady() - c.zero).Truncate(time.Microsecond)
}
