// Package store keeps resources in SQLite or Postgres. It is the only package that
// imports GORM, which provides the connection pools and the transactions. The SQL is this
// package's own.
//
// # Contract
//
// Every change goes through [Store.Execute]: commands that arrive while a transaction
// runs share the next one (package groupcommit). A transaction consists of these steps,
// however many commands it has:
//
//  1. Lock and read the named rows, on SQLite those that are not cached. Then read the time.
//  2. If any of them has a queue, read its first waiters and the places that commands name.
//  3. Decide every command by its own pure rules. Each sees the states that the earlier
//     commands left.
//  4. Write the changed rows and places, delete the deleted rows, append the events.
//  5. Notify the servers whose waiters are next (Postgres).
//
// On Postgres each step is one statement or two. On SQLite rows are written one by one.
//
// A nil error from Execute means committed and synced to disk. An error that wraps one of
// the errors of package service states what happened: ErrUnavailable, ErrOverloaded and
// ErrStopping mean that nothing was changed; ErrOutcomeUnknown means that the outcome is
// unknown. Any other error was returned by the command's own Decide, or is a fault of
// this program.
//
// # Backends
//
// What differs between the databases is in the two implementations of [backend]. The SQL
// is in the folder sql. The columns of each table are declared once: see [column].
//
// # Servers
//
// On Postgres each server has a row in lock_servers. While it is alive it renews its
// lease, alive_until, by the database's clock. Waiters of a server whose lease has ended
// count as not connected; nothing else is bound to a server. On SQLite there is one
// server, and those of earlier runs are dead.
//
// # One clock
//
// On Postgres the time is the database's clock_timestamp(), read after the rows are
// locked, so the servers' clocks do not matter. On SQLite it is this process's
// [steadyClock]: only one server may use a file, and [Open] makes sure of that.
//
// # Locking
//
// On Postgres, rows are locked in the order of their names, so batches of several servers
// do not deadlock. A resource without a row cannot be locked; the unique index on
// resource_name decides which server inserts it, and the other server decides its whole
// batch again. On SQLite a transaction takes the write lock when it begins.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// The drivers of Config.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// maxBatch is the maximum number of commands of one transaction. It bounds the time that
// the first of them waits for the last.
const maxBatch = 512

const (
	// maxSnapshots is the maximum number of snapshots that are open. Slow clients read
	// them, and must not take all connections.
	maxSnapshots = 2
	// snapshotTimeout is how long a new snapshot waits until another one is closed.
	snapshotTimeout = 10 * time.Second
)

// Config states which database to open.
type Config struct {
	Driver   string // SQLite or Postgres
	Source   string // SQLite: the file's path, empty for a database in memory; Postgres: a URL
	MaxQueue int    // how many commands may wait for the database before Execute returns ErrOverloaded
	Logger   *slog.Logger

	// Notifications reports whether this server notifies the other servers of a Postgres
	// database by NOTIFY.
	Notifications bool

	// Wall and Steady are the clocks of SQLite: if nil, time.Now and the system's steady
	// clock. BootID identifies the period during which Steady counts through restarts; if
	// empty, the boot of the system.
	Wall   func() time.Time
	Steady func() time.Duration
	BootID string
}

// Store implements service.Store. Open returns one; Execute and Find work between Start
// and Close.
type Store struct {
	backend backend
	pools

	committer *groupcommit.Committer[lock.Command, *lock.Outcome]
	reads     *groupcommit.Committer[string, service.Snapshot] // of Find: they share queries, there is no commit
	onCommit  func(service.Commit)
	unproven  bool // the outcome of the last COMMIT is unknown; used by the committer only

	snapshots chan struct{} // an element for each open snapshot
	database  string        // the random id of the database
	server    int64         // the id of this server in lock_servers
	closeOnce func() error
}

// Open connects to the database, brings its schema up to date and returns a store, whose
// lists can be read. If that is not possible, its error names the file or the database.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{snapshots: make(chan struct{}, maxSnapshots)}
	var err error
	switch cfg.Driver {
	case SQLite:
		s.backend, s.pools, err = openSQLite(ctx, cfg, s.streaming)
	case Postgres:
		s.backend, s.pools, err = openPostgres(ctx, cfg)
	default:
		err = fmt.Errorf("unknown database driver %q", cfg.Driver)
	}
	if err != nil {
		return nil, err
	}
	s.closeOnce = sync.OnceValue(s.close)
	batches := groupcommit.Config{MaxBatch: maxBatch, MaxQueue: cfg.MaxQueue, Fatal: isUnavailable}
	s.committer = groupcommit.New(s.commit, batches)
	s.reads = groupcommit.New(s.readBatch, batches)
	if err := s.readDatabaseID(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the database's id from the table lockd_database: %w", err), s.Close())
	}
	err = s.write(ctx, func(tx *gorm.DB) (err error) {
		s.server, err = s.backend.registerServer(tx)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot enter this server into the database: %w", err), s.Close())
	}
	return s, nil
}

var selectDatabaseID = statement("database_id.sql")

// readDatabaseID reads the id that a migration gave to the database. It never changes.
func (s *Store) readDatabaseID(ctx context.Context) error {
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	return s.writer.WithContext(ctx).Raw(selectDatabaseID).Row().Scan(&s.database)
}

// DatabaseID returns the random id of the database: 32 lower-case hexadecimal digits.
// Servers that share their locks have the same id, before and after a restart.
func (s *Store) DatabaseID() string { return s.database }

// Channel returns the name of the Postgres notification channel on which this server is
// notified of resources that may have come to one of its waiters. The payload is the name
// of the resource.
func (s *Store) Channel() string { return fmt.Sprint("lockd_", s.server) }

// SupersededChannel returns the name of the channel on which this server is notified of
// its waiting requests whose places later requests have taken. The payload is the
// request's connection, a decimal number.
func (s *Store) SupersededChannel() string { return s.Channel() + "_superseded" }

// Start lets Execute and Find work. It is called at most once. nil stands for an observer
// that does nothing.
//
// onCommit observes the transactions of Execute. It is called once for every transaction
// that changed something (a row, a queue, the history), that read a resource with
// waiters, or whose outcome is unknown. It is called before Execute returns for any
// command of the transaction. It is not called for other transactions, for instance if
// every command was refused and no request waits. The events of a commit are in the order
// in which the history has them; they have no ids yet. onCommit gets one commit at a
// time, in their order. It must not block and must not call Execute.
func (s *Store) Start(onCommit func(service.Commit)) {
	if onCommit == nil {
		onCommit = func(service.Commit) {}
	}
	s.onCommit = onCommit
	s.committer.Start()
	s.reads.Start()
	s.backend.start(s.server)
}

// Close refuses new commands, finishes the accepted ones and closes the database. It may
// be called any number of times, also without Start.
func (s *Store) Close() error { return s.closeOnce() }

func (s *Store) close() error {
	s.committer.Stop()
	s.reads.Stop()
	return s.backend.close()
}

// Ping returns an error if the database does not answer, or its file is not where it was.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.backend.checkWritable(); err != nil {
		return err
	}
	return s.read(ctx, func(db *gorm.DB) error { return db.Exec("SELECT 1").Error })
}

// Execute implements service.Store.
func (s *Store) Execute(ctx context.Context, c lock.Command) (lock.Outcome, error) {
	return s.ExecuteWithin(ctx, c, 0)
}

// ExecuteWithin implements service.Store.
func (s *Store) ExecuteWithin(ctx context.Context, c lock.Command, maxDelay time.Duration) (lock.Outcome, error) {
	out, err := s.committer.DoWithin(ctx, c, maxDelay)
	if err != nil {
		return lock.Outcome{}, translateCommit(err)
	}
	return *out, nil
}

// isUnavailable reports whether a batch failed, and committed nothing, because of the
// database.
func isUnavailable(err error) bool {
	return errors.Is(err, service.ErrUnavailable) && !errors.Is(err, groupcommit.ErrOutcomeUnknown)
}

// translateCommit returns the error of package service for one of package groupcommit.
func translateCommit(err error) error {
	switch {
	case errors.Is(err, groupcommit.ErrFull):
		return service.ErrOverloaded
	case errors.Is(err, groupcommit.ErrStopped):
		return service.ErrStopping
	case errors.Is(err, groupcommit.ErrOutcomeUnknown):
		return fmt.Errorf("%w: %w", service.ErrOutcomeUnknown, err)
	}
	return err
}

// read runs a query outside the committer.
func (s *Store) read(ctx context.Context, query func(db *gorm.DB) error) error {
	if err := s.backend.checkReadable(); err != nil {
		return err
	}
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	return s.translate(query(s.reader.WithContext(ctx)))
}

// write runs a transaction outside the committer. It must not change resources.
func (s *Store) write(ctx context.Context, statements func(tx *gorm.DB) error) error {
	if err := s.backend.checkWritable(); err != nil {
		return err
	}
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	return s.translate(s.transaction(ctx, statements))
}

// transaction runs a transaction that writes. Its error wraps
// groupcommit.ErrOutcomeUnknown if it may have been committed.
func (s *Store) transaction(ctx context.Context, statements func(tx *gorm.DB) error) error {
	committing := false
	err := s.writer.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		err := statements(tx)
		if err == nil {
			err = ctx.Err() // too late: nothing has been sent that could commit
		}
		committing = err == nil
		return err
	})
	if committing && err != nil && !s.backend.commitRefused(err) {
		return fmt.Errorf("%w: %w", groupcommit.ErrOutcomeUnknown, err)
	}
	return err
}

// snapshot runs queries that all see the database as it is at one time. They may take as
// long as ctx allows, so only a few snapshots are open at a time.
func (s *Store) snapshot(ctx context.Context, queries func(tx *gorm.DB) error) error {
	timeout := time.NewTimer(snapshotTimeout)
	defer timeout.Stop()
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	case <-timeout.C:
		return service.ErrOverloaded
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.backend.checkReadable(); err != nil {
		return err
	}
	return s.translate(s.reader.WithContext(ctx).Transaction(queries, &sql.TxOptions{ReadOnly: true}))
}

// streaming reports whether a snapshot is open.
func (s *Store) streaming() bool { return len(s.snapshots) > 0 }

// translate returns the error of package service for an error outside the committer.
func (s *Store) translate(err error) error {
	switch {
	case errors.Is(err, groupcommit.ErrOutcomeUnknown):
		return translateCommit(err)
	case err != nil && s.classify(err) != permanent:
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	return err
}

func (s *Store) classify(err error) failure {
	if errors.Is(err, errRace) {
		return retryable
	}
	return s.backend.classify(err)
}

// gormConfig returns what both databases share: GORM adds no transactions of its own, and
// its errors are returned, not logged.
func gormConfig(prepare bool) *gorm.Config {
	return &gorm.Config{
		SkipDefaultTransaction: true,
		PrepareStmt:            prepare,
		PrepareStmtTTL:         10 * 365 * 24 * time.Hour, // GORM's "never": any other starts a goroutine that it never ends
		Logger:                 logger.Discard,
	}
}

// setPoolSize limits a pool to n connections and lets all of them stay open.
func setPoolSize(db *sql.DB, n int) {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
}

func closeAll(dbs ...*sql.DB) error {
	var errs []error
	for _, db := range dbs {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}
