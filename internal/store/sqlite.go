package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"sync"

	"github.com/mattn/go-sqlite3"
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
		INSERT INTO lock_events (` + eventColumns + `, filed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, false)`
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

// openSQLite opens a file for this process alone: one connection writes, several read, and one keeps the write-ahead log
// short.
func openSQLite(ctx context.Context, cfg Config) (_ *Store, err error) {
	location, kind := "file:/"+rand.Text(), "?vfs=memdb"
	var file *databaseFile // nil for a database in memory
	if cfg.Source != "" {
		if file, err = lockFile(cfg.Source, cfg.Logger); err != nil {
			return nil, err
		}
		location, kind = "file:"+(&url.URL{Path: file.real}).EscapedPath(), "?_journal_mode=WAL"
	}
	pool := func(n int, options string) *sql.DB {
		db := sql.OpenDB(connector{&sqlite3.SQLiteDriver{}, location + kind + options, file})
		keep(db, n)
		return db
	}
	writerDB := pool(1, "&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate&_cache_size="+sqliteWriterCache)
	readerDB := pool(max(4, runtime.NumCPU()), "&_query_only=1&_busy_timeout=5000")
	checkpointDB := pool(1, "&_busy_timeout="+checkpointPatience)
	defer func() {
		if err != nil {
			err = errors.Join(file.openError(err), closeAll(checkpointDB, readerDB, writerDB), file.Close())
		}
	}()

	writer, err := gorm.Open(sqlite.New(sqlite.Config{Conn: writerDB}), gormConfig(false))
	if err != nil {
		return nil, err
	}
	if err := requireUTF8(ctx, writerDB); err != nil {
		return nil, err
	}
	if err := migrate(ctx, writerDB, schema{folder: "sqlite", columns: sqliteColumns, apart: "use a file of its own"}, cfg.Logger); err != nil {
		return nil, err
	}
	if err := file.watch(); err != nil {
		return nil, err
	}
	clock, err := newSteadyClock(writer, cfg)
	if err != nil {
		return nil, err
	}
	reader, err := gorm.Open(sqlite.New(sqlite.Config{Conn: readerDB}), gormConfig(true))
	if err != nil {
		return nil, err
	}
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
		file:   file,
	}
	s.wal = newWALKeeper(file, checkpointDB, s.reading)
	s.close = sync.OnceValue(func() error {
		return errors.Join(closeAll(checkpointDB, readerDB), file.leaveOthers(writerDB), writerDB.Close(), file.Close())
	})
	return s, s.prepareSQLite(ctx, writerDB)
}

// requireUTF8 returns an error for a database in another encoding, in which the order of names is another one.
func requireUTF8(ctx context.Context, db *sql.DB) error {
	var encoding string
	if err := db.QueryRowContext(ctx, "PRAGMA encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF-8" {
		return fmt.Errorf("its encoding is %s, but must be UTF-8: use another file", encoding)
	}
	return nil
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

// refusedBySQLite: the driver rolls back after a failed COMMIT. These errors come before the
// transaction's last page is in the log. After any other the log may be whole, and the
// transaction come back when it is read after a crash.
func refusedBySQLite(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrConstraint:
		return true
	default:
		return false
	}
}
