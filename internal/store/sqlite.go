package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
	gormsqlite "gorm.io/driver/sqlite"
	"gorm.io/gorm"

	"resource-lock-manager/internal/lifecycle"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// sqlite is the backend for a SQLite database that this process alone uses. One
// connection writes, several read, and one keeps the write-ahead log short.
type sqlite struct {
	pools
	at         location
	clock      *steadyClock
	cache      *stateCache
	index      historyIndex
	statements statements // of the connection that writes

	writerDB, readerDB, checkpointDB *sql.DB
	streaming                        func() bool // reports whether a long read is open
	loops                            lifecycle.Loops
}

// writerCache is how much of the database the connection that writes caches, in negative
// KiB: the default of SQLite, 2 MB, has fewer pages than indexBatch events may change.
const writerCache = "-16000"

// openSQLite opens a file, or a database in memory.
func openSQLite(ctx context.Context, cfg Config, streaming func() bool) (_ backend, _ pools, err error) {
	at, source, err := locate(cfg)
	if err != nil {
		return nil, pools{}, err
	}
	open := func(n int, options string) *sql.DB {
		db := sql.OpenDB(connector{&sqlite3.SQLiteDriver{}, source + options, at})
		setPoolSize(db, n)
		return db
	}
	s := &sqlite{
		pools: pools{names: nameOrder{
			from: "resource_name >= ?", after: "resource_name > ?", before: "resource_name < ?", sorted: "resource_name",
		}},
		at:           at,
		writerDB:     open(1, "&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate&_cache_size="+writerCache),
		readerDB:     open(max(4, runtime.NumCPU()), "&_query_only=1&_busy_timeout=5000"),
		checkpointDB: open(1, "&_busy_timeout="+checkpointTimeout),
		streaming:    streaming,
	}
	if err := s.open(ctx, cfg); err != nil {
		return nil, pools{}, errors.Join(at.openError(err), closeAll(s.checkpointDB, s.readerDB, s.writerDB), at.Close())
	}
	return s, s.pools, nil
}

// locate returns the place of the database and how the driver names it, without options.
func locate(cfg Config) (at location, source string, err error) {
	if cfg.Source == "" {
		return inMemory{}, "file:/" + rand.Text() + "?vfs=memdb", nil
	}
	file, err := lockFile(cfg.Source, cfg.Logger)
	if err != nil {
		return nil, "", err
	}
	return file, "file:" + (&url.URL{Path: file.real}).EscapedPath() + "?_journal_mode=WAL", nil
}

// open brings the schema up to date and completes s.
func (s *sqlite) open(ctx context.Context, cfg Config) (err error) {
	s.writer, err = gorm.Open(gormsqlite.New(gormsqlite.Config{Conn: s.writerDB}), gormConfig(false))
	if err != nil {
		return err
	}
	if err := requireUTF8(ctx, s.writerDB); err != nil {
		return err
	}
	tables := schema{
		folder: "sqlite", columns: statement("sqlite/table_columns.sql"), apart: "use a file of its own",
		nameTaken: func(err error) bool { return strings.Contains(err.Error(), "already exists") }, // there is no code for it
	}
	if err := migrate(ctx, s.writerDB, tables, cfg.Logger); err != nil {
		return err
	}
	if err := s.at.watch(); err != nil {
		return err
	}
	if s.clock, err = newSteadyClock(s.writer, cfg); err != nil {
		return err
	}
	s.reader, err = gorm.Open(gormsqlite.New(gormsqlite.Config{Conn: s.readerDB}), gormConfig(true))
	if err != nil {
		return err
	}
	if s.cache, err = newStateCache(); err != nil {
		return err
	}
	if s.statements, err = prepare(ctx, s.writerDB, sqliteBatch...); err != nil {
		return err
	}
	var indexed int64
	err = s.writerDB.QueryRowContext(ctx, statement("sqlite/last_indexed_event.sql")).Scan(&indexed)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	s.index.indexedUpTo.Store(indexed)
	return nil
}

// requireUTF8 returns an error for a database in another encoding: it would sort names in
// another order.
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

var (
	sqliteEndServers     = statement("sqlite/end_servers.sql")
	sqliteRegisterServer = statement("sqlite/register_server.sql")
)

func (s *sqlite) registerServer(tx *gorm.DB) (id int64, err error) {
	if err := tx.Exec(sqliteEndServers, instant{s.clock.now()}).Error; err != nil {
		return 0, err
	}
	err = tx.Raw(sqliteRegisterServer).Row().Scan(&id)
	return id, err
}

func (s *sqlite) start(int64) {
	s.loops.Start(func(ctx context.Context) { s.at.keepLogShort(ctx, s.checkpointDB, s.streaming) })
}

func (s *sqlite) close() error {
	s.loops.Stop()
	return errors.Join(closeAll(s.checkpointDB, s.readerDB), s.at.leaveOthers(s.writerDB), s.writerDB.Close(),
		s.at.Close())
}

func (s *sqlite) now(*gorm.DB) (time.Time, error) { return s.clock.now(), nil }

// cached implements backend. It reads the clock first, as readRows does.
func (s *sqlite) cached(name string) (service.Snapshot, bool) {
	now := s.clock.now()
	r, found := s.cache.get(name)
	return service.Snapshot{Resource: r, At: now}, found
}

func (s *sqlite) historyParts() []where { return s.index.parts() }

func (s *sqlite) changing(names []string) { s.cache.remove(names) }

func (s *sqlite) committed(states map[string]lock.Resource) {
	s.cache.add(states)
	s.index.commit()
}

// notify implements backend: there is no other server.
func (s *sqlite) notify(*gorm.DB, []notice) error { return nil }

// relaxDurability implements backend: every COMMIT is synced.
func (s *sqlite) relaxDurability(*gorm.DB) error { return nil }

// prove implements backend: no COMMIT waits for another machine.
func (s *sqlite) prove(context.Context, int64) error { return nil }

func (s *sqlite) checkWritable() error { return s.at.checkWritable() }

func (s *sqlite) checkReadable() error { return s.at.checkReadable() }

// classify implements backend. Codes about the file or the disk are not the fault of a
// command. BUSY means that another program held its lock for longer than the busy
// timeout.
func (s *sqlite) classify(err error) failure {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return permanent
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen,
		sqlite3.ErrPerm, sqlite3.ErrProtocol, sqlite3.ErrNomem, sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrInterrupt:
		return unavailable
	default:
		return permanent
	}
}

// commitRefused implements backend. The driver rolls back after a failed COMMIT. The
// errors below occur before the transaction's last page is in the log. After any other
// error the log may be complete, so that the transaction appears when the log is read
// after a crash.
func (s *sqlite) commitRefused(err error) bool {
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
