package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// backend is everything in which the two databases differ. Its implementations are sqlite
// and postgres. Methods that get a transaction do not end it.
type backend interface {
	// lockRows returns the states of the named resources that have a row, without their
	// queues, and the time after their rows were locked. They stay locked until the
	// transaction ends.
	lockRows(tx *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error)
	// loadQueues reads a part of the queues of resources.
	loadQueues(tx *gorm.DB, part queuePart, each func(*waiterRow)) error
	// write inserts the rows that have no id and sets their ids, updates the other rows,
	// and appends the events. It returns errRace if a row that has no id exists by now.
	write(tx *gorm.DB, rows []lockRow, events []eventRow) error
	// writeQueues first deletes waiters, by their tickets, and then inserts or updates
	// others. The order matters: a request that lost its place may have got another one.
	writeQueues(tx *gorm.DB, dequeued, enqueued []waiterRow) error
	// notify notifies other servers when the transaction commits.
	notify(tx *gorm.DB, notices []notice) error
	// relaxDurability lets a transaction commit before it is durable, if that is faster.
	relaxDurability(tx *gorm.DB) error

	// changing is called before the transaction changes the named resources, and
	// committed after a transaction that locked resources has committed, with their new
	// states.
	changing(names []string)
	committed(states map[string]lock.Resource)

	// cached returns a resource as it was committed last, without its queue, if that is
	// known without a query.
	cached(name string) (service.Snapshot, bool)
	// readRows returns the states of the named resources that have a row, without their
	// queues. The time was read before the rows.
	readRows(db *gorm.DB, names []string) (map[string]lock.Resource, time.Time, error)
	// now returns the time of the clock by which holds expire.
	now(db *gorm.DB) (time.Time, error)
	// historyParts returns the conditions that divide the history into parts, newest
	// first. The events of the last part are in the indexes of the history, the others
	// are not.
	historyParts() []where

	// classify reports what the failure of a statement means. commitRefused reports
	// whether a failed COMMIT certainly changed nothing.
	classify(err error) failure
	commitRefused(err error) bool
	// prove returns an error unless the database commits. It is called after a COMMIT of
	// unknown outcome: while a synchronous standby does not answer, each COMMIT would
	// leave a connection of the database waiting, and soon no connection would be left. A
	// proof can be cancelled, which ends the wait, because others may see it before it is
	// durable.
	prove(ctx context.Context, server int64) error
	// checkWritable and checkReadable return an error that wraps [service.ErrUnavailable]
	// if it is known without a query that the database cannot be written or read.
	checkWritable() error
	checkReadable() error

	// registerServer enters this server into the database as alive and returns its id.
	registerServer(tx *gorm.DB) (int64, error)
	// start starts the background loops of a registered server, once.
	start(server int64)
	// close stops the loops, if they were started, and closes the database. It is called
	// once.
	close() error
}

// pools are what the store uses of both databases in the same way.
type pools struct {
	writer  *gorm.DB // for transactions that write
	reader  *gorm.DB // for everything else
	timeout time.Duration
	names   nameOrder
}

// withTimeout bounds a transaction or a query. A timeout of 0 means no bound.
func (p pools) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, p.timeout)
}

// nameOrder is SQL that compares resource_name byte by byte, in the form that the indexes
// of the database support.
type nameOrder struct {
	from, after, before string // conditions with one argument: not less, greater, less than it
	sorted              string // follows ORDER BY
}

// queuePart is the part of queues that a transaction needs: the first waiters that are
// connected, and places wherever in the queue they are.
type queuePart struct {
	resources []int64
	places    []placeKey
	server    int64     // this server: its waiters are connected
	now       time.Time // a waiter of another server is connected if that server is alive then
	first     int       // the maximum number of first waiters of each resource
}

// placeKey identifies a place.
type placeKey struct {
	ResourceID int64  `json:"resource_id"`
	ProcessID  string `json:"process_id"`
	RequestID  string `json:"request_id"`
}

// args returns the arguments of the statements load_queues.sql.
func (p queuePart) args() ([]any, error) {
	resources, err := json.Marshal(p.resources)
	if err != nil {
		return nil, err
	}
	places, err := json.Marshal(p.places)
	if err != nil {
		return nil, err
	}
	return []any{string(resources), p.server, instant{p.now}, p.first, string(places)}, nil
}

// scanWaiters returns a function that scans a row of load_queues.sql.
func scanWaiters(each func(*waiterRow)) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var row waiterRow
		if err := row.scan(rows); err != nil {
			return err
		}
		each(&row)
		return nil
	}
}

// notice is what a server is notified of: a resource that may have come to one of its
// waiters, or a waiter whose place another request has taken.
type notice struct {
	Server     int64  `json:"server"`
	Name       string `json:"name,omitempty"`
	Connection int64  `json:"connection,omitempty"`
}

// failure is what a database error means for a transaction that was not committed.
type failure int

const (
	permanent   failure = iota // this program or the command is at fault: it would fail again
	retryable                  // another transaction or a broken connection was the reason: run it again now
	unavailable                // the database cannot do it now
)

// errRace: another server has inserted the row of a resource since this transaction found
// none.
var errRace = errors.New("another server inserted the same resource")
