// Package store keeps resources in SQLite or Postgres. It is the only package that knows GORM and SQL.
//
// # Contract
//
// Every change goes through [Store.Execute]: commands that arrive while a transaction runs share the next one
// (package groupcommit). One transaction is, whatever the size of the batch:
//
//  1. lock and read the named rows, on SQLite those that are not known; read the moment after they are locked
//  2. if any of them has a queue, read its first waiters, and the places that the commands name
//  3. decide every command by its own pure rules, each seeing the states that the earlier ones left
//  4. write the changed rows and places, delete the forgotten ones, append the events
//  5. notify the servers whose waiters are next (Postgres)
//
// On Postgres each step is a statement, or two. On SQLite rows are written one by one.
//
// A nil error from Execute means committed and synced to disk. An error that wraps one of the lock package's sentinels
// says what is known: with ErrUnavailable, ErrOverloaded and ErrStopping nothing was changed; ErrOutcomeUnknown says
// that it cannot be told. Any other error was returned by the command's own Decide, or is a fault of this program.
//
// After COMMIT, and before Execute returns, the observer given to Start is called.
//
// # Servers
//
// On Postgres each server has a row in lock_servers and moves its alive_until on, by the database's clock, as long as it
// lives. Waiters of a server whose alive_until has passed count as not connected; nothing else is bound to a server. On
// SQLite there is one server, and those of earlier runs are dead.
//
// # One clock
//
// On Postgres the moment is the database's clock_timestamp(), read after the rows are locked, so the servers' clocks do
// not matter. On SQLite it is this process's [steadyClock]: only one server may use a file, and [Open] sees to that.
//
// # Locking
//
// On Postgres, rows are locked in the order of their names, so batches of several servers do not deadlock. A resource
// without a row cannot be locked; the unique index on resource_name decides who inserts it, and the loser decides its
// whole batch again. On SQLite a transaction takes the write lock when it begins.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// The drivers of Config.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// maxBatch bounds the commands of one transaction, and with it the time that the first of them waits for the last.
const maxBatch = 512

// Snapshots that are read by slow clients must not take all connections: so many may be open, and so long may one wait.
const (
	maxSnapshots     = 2
	snapshotPatience = 10 * time.Second
)

// Config says which database to open.
type Config struct {
	Driver   string // SQLite or Postgres
	Source   string // SQLite: the file's path, empty for a database in memory; Postgres: a URL
	MaxQueue int    // how many commands may wait for the database before Execute returns ErrOverloaded
	Logger   *slog.Logger

	// Notifications says whether this server tells others on one Postgres by NOTIFY.
	Notifications bool

	// Wall and Steady are the clocks of SQLite, time.Now and the system's steady clock when nil. BootID names the time for
	// which Steady goes on through restarts, the system's when empty.
	Wall   func() time.Time
	Steady func() time.Duration
	BootID string
}

// Store implements service.Store. Make one with Open; Execute works between Start and Close.
type Store struct {
	dialect    dialect
	writer     *gorm.DB
	statements statements // of the writer, prepared
	reader     *gorm.DB
	known      *known        // nil where several servers share the database
	file       *databaseFile // of SQLite, unless it is in memory
	wal        *walKeeper    // of that file
	close      func() error

	snapshots chan struct{} // a place for each snapshot that may be open

	committer *groupcommit.Committer[lock.Command, lock.Outcome]
	unproven  bool                                             // the outcome of the last COMMIT is unknown; the committer's
	looks     *groupcommit.Committer[string, service.Snapshot] // reads: there is no commit, but they share a statement
	onCommit  func(service.Commit)
	database  string        // the database's random id
	server    int64         // this server's id in lock_servers
	endLease  func()        // ends the loop that keeps this server alive for others; nil when there is none
	leaseOver chan struct{} // closed when it has ended
	started   bool
}

// dialect is all that differs between the databases.
type dialect struct {
	clock    func() time.Time // the moment; nil when the database tells it
	now      string           // SQL for the moment that the database tells, NULL when clock tells it
	lock     string           // locks and reads the rows of a JSON array of names
	look     string           // reads them, with the moment before
	names    nameOrder        // compares resource_name byte by byte
	snapshot *sql.TxOptions   // of a transaction that sees the database at one moment
	queues   string           // reads the first waiters of a JSON array of resource ids, and a JSON array of places
	notify   string           // tells servers of a JSON array of names; empty when there is only one server
	beat     string           // has this server heard of; empty when it needs not to be
	proof    string           // commits what may be seen before it is durable; empty when nothing has to be proven
	timeout  time.Duration    // bound of a transaction or a query; 0: none

	// write inserts the rows that have no id, which they get, updates the others, and appends the events.
	write   func(*gorm.DB, []lockRow, []eventRow) error
	enqueue func(*gorm.DB, []waiterRow) error // inserts or updates waiters
	dequeue func(*gorm.DB, []waiterRow) error // deletes the waiters with the tickets of these

	// classify says what a failed statement means; refused says whether a failed COMMIT certainly did nothing.
	classify func(error) failure
	refused  func(error) bool
}

// nameOrder is SQL that compares resource_name byte by byte, in a form that the indexes of the dialect serve.
type nameOrder struct {
	from, after, before string // conditions with one argument: at least it, greater than it, less than it
	sorted              string // what follows ORDER BY
}

// Open connects to the database, brings its schema up to date and returns a store, whose lists can be read. It returns an
// error that names the file or the database when that is not possible.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	var s *Store
	var err error
	switch cfg.Driver {
	case SQLite:
		s, err = openSQLite(ctx, cfg)
	case Postgres:
		s, err = openPostgres(ctx, cfg)
	default:
		err = fmt.Errorf("unknown database driver %q", cfg.Driver)
	}
	if err != nil {
		return nil, err
	}
	s.snapshots = make(chan struct{}, maxSnapshots)
	s.committer = groupcommit.New(s.commit, maxBatch, cfg.MaxQueue)
	s.looks = groupcommit.New(s.look, maxBatch, cfg.MaxQueue)
	if err := s.readDatabaseID(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the database's id from the table lockd_database: %w", err), s.close())
	}
	if err := s.enlist(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot enter this server into the database: %w", err), s.close())
	}
	return s, nil
}

// readDatabaseID reads the id that a migration gave to the database. It never changes.
func (s *Store) readDatabaseID(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	return s.writer.WithContext(ctx).Raw("SELECT database_id FROM lockd_database").Row().Scan(&s.database)
}

// DatabaseID is the random id of the database: 32 lower-case hexadecimal digits. Servers that share their locks have the
// same one, before and after a restart.
func (s *Store) DatabaseID() string { return s.database }

// Channel is the name of the Postgres notification channel on which this server is told which resources may have come to
// a waiter of its own. The payload is a resource's name.
func (s *Store) Channel() string { return fmt.Sprint("lockd_", s.server) }

// SupersededChannel is the one on which this server is told which of its waiting requests have lost their place to a later
// one. The payload is the request's connection, a decimal number.
func (s *Store) SupersededChannel() string { return s.Channel() + "_superseded" }

// Start lets Execute and Find work, and reports every transaction of Execute that changed
// something, or whose outcome is unknown, to onCommit before any of its commands returns.
// onCommit is called by one goroutine at a time. It must not block and must not call Execute.
// Start is called once.
func (s *Store) Start(onCommit func(service.Commit)) {
	if onCommit == nil {
		onCommit = func(service.Commit) {}
	}
	s.started = true
	s.onCommit = onCommit
	s.committer.Start()
	s.looks.Start()
	s.wal.start()
	if s.dialect.beat != "" {
		ctx, cancel := context.WithCancel(context.Background())
		s.endLease, s.leaseOver = cancel, make(chan struct{})
		go s.beat(ctx, s.leaseOver)
	}
}

// Close refuses new commands, finishes the accepted ones and closes the database. It is called once.
func (s *Store) Close() error {
	if s.started {
		s.committer.Stop()
		s.looks.Stop()
	}
	s.wal.stop()
	if s.endLease != nil {
		s.endLease()
		<-s.leaseOver
	}
	return s.close()
}

// Ping returns an error when the database does not answer, or its file is not where it was.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.file.check(); err != nil {
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
	out, err := s.committer.DoDelayed(ctx, c, maxDelay)
	if err != nil {
		return lock.Outcome{}, translateCommit(err)
	}
	return out, nil
}

// translateCommit says in the domain's words what a committer answers.
func translateCommit(err error) error {
	switch {
	case errors.Is(err, groupcommit.ErrFull):
		return service.ErrOverloaded
	case errors.Is(err, groupcommit.ErrStopped):
		return service.ErrStopping
	case errors.Is(err, groupcommit.ErrUnavailable):
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	case errors.Is(err, groupcommit.ErrOutcomeUnknown):
		return fmt.Errorf("%w: %w", service.ErrOutcomeUnknown, err)
	}
	return err
}

// read runs a query outside the committer.
func (s *Store) read(ctx context.Context, query func(db *gorm.DB) error) error {
	if err := s.file.checkForReading(); err != nil {
		return err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	return s.translate(query(s.reader.WithContext(ctx)))
}

// write runs a transaction that has nothing to do with locks outside the committer.
func (s *Store) write(ctx context.Context, statements func(tx *gorm.DB) error) error {
	if err := s.file.check(); err != nil {
		return err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	return s.translate(s.transaction(ctx, statements))
}

// transaction runs a transaction that writes. Its error wraps groupcommit.ErrOutcomeUnknown
// when it may have been committed.
func (s *Store) transaction(ctx context.Context, statements func(tx *gorm.DB) error) error {
	committing := false
	err := s.writer.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		err := statements(tx)
		if err == nil {
			err = ctx.Err() // it is too late, and nothing was sent that could commit
		}
		committing = err == nil
		return err
	})
	if committing && err != nil && !s.dialect.refused(err) {
		return fmt.Errorf("%w: %w", groupcommit.ErrOutcomeUnknown, err)
	}
	return err
}

// snapshot runs queries that see the database at one moment. They may take as long as ctx lets them, so only a few run
// at a time and leave the other connections to quick reads.
func (s *Store) snapshot(ctx context.Context, queries func(tx *gorm.DB) error) error {
	patience := time.NewTimer(snapshotPatience)
	defer patience.Stop()
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	case <-patience.C:
		return service.ErrOverloaded
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.file.checkForReading(); err != nil {
		return err
	}
	return s.translate(s.reader.WithContext(ctx).Transaction(queries, s.dialect.snapshot))
}

// reading reports whether a snapshot is open.
func (s *Store) reading() bool { return len(s.snapshots) > 0 }

func (s *Store) translate(err error) error {
	switch {
	case errors.Is(err, groupcommit.ErrOutcomeUnknown):
		return translateCommit(err)
	case err != nil && s.classify(err) != faulty:
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	return err
}

func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.dialect.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.dialect.timeout)
}

// gormConfig is what both dialects share: no hidden transactions, no hidden columns, and errors are returned, not logged.
func gormConfig(prepare bool) *gorm.Config {
	return &gorm.Config{
		SkipDefaultTransaction: true,
		QueryFields:            true,
		PrepareStmt:            prepare,
		PrepareStmtTTL:         10 * 365 * 24 * time.Hour, // GORM's "never": any other starts a goroutine that it never ends
		Logger:                 discard,
	}
}

func closeAll(dbs ...*sql.DB) error {
	var errs []error
	for _, db := range dbs {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}
