package store

import (
	"database/sql"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"gorm.io/gorm"

	"resource-lock-manager/internal/lock"
)

// mostKnown is how many resources a server remembers the states of, at somewhat less than a kilobyte each.
const mostKnown = 10_000

// known is what the only server of a database remembers of it, so that it need not ask: the states of the resources that it
// had to do with last. A state is there only while it is the committed one: it is dropped before a transaction that changes it
// commits, and kept again after that.
//
// All methods work on nil, which knows nothing.
type known struct {
	resources  *lru.Cache[string, lock.Resource] // without their queues
	version    int64                             // of the database, as far as others change it
	filed      atomic.Int64                      // events up to this id are in the indexes of the history; perhaps more are
	filing     int64                             // so will be those up to this one, once the transaction has committed; 0: no more
	statements statements
}

const sqliteVersion = "PRAGMA data_version"

func newKnown(s statements) (*known, error) {
	resources, err := lru.New[string, lock.Resource](mostKnown)
	return &known{resources: resources, statements: s}, err
}

// find returns the state of a resource, without its queue, as it was last committed.
func (k *known) find(name string) (lock.Resource, bool) {
	if k == nil {
		return lock.Resource{}, false
	}
	return k.resources.Get(name)
}

// recall returns the states that are known and the names of the other resources. It forgets everything when another program
// has changed the database.
func (k *known) recall(tx *gorm.DB, names []string) (states map[string]lock.Resource, unknown []string, err error) {
	states = make(map[string]lock.Resource, len(names))
	if k == nil {
		return states, names, nil
	}
	k.filing = 0
	var version int64
	err = k.statements.query(tx, func(rows *sql.Rows) error { return rows.Scan(&version) }, sqliteVersion)
	if err != nil {
		return nil, nil, err
	}
	if version != k.version {
		k.resources.Purge()
		k.version = version
	}
	for _, name := range names {
		if r, found := k.resources.Get(name); found {
			states[name] = r
		} else {
			unknown = append(unknown, name)
		}
	}
	return states, unknown, nil
}

// drop is called before the named resources change.
func (k *known) drop(names []string) {
	if k == nil {
		return
	}
	for _, name := range names {
		k.resources.Remove(name)
	}
}

// keep is called after a transaction that has read or changed resources.
func (k *known) keep(states map[string]lock.Resource) {
	if k == nil {
		return
	}
	for name, r := range states {
		if r.ID == 0 || r.Deleted {
			continue
		}
		r.Queue = nil
		k.resources.Add(name, r)
	}
	if k.filing != 0 {
		k.filed.Store(k.filing)
	}
}
