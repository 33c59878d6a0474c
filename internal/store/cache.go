package store

import (
	lru "github.com/hashicorp/golang-lru/v2"

	"resource-lock-manager/internal/lock"
)

// maxCached is the maximum number of resources in a stateCache, at somewhat less than a
// kilobyte each.
const maxCached = 10_000

// stateCache is a write-through cache of committed states. It exists only where this
// process is the only writer of the database (SQLite). A state is removed before a
// transaction that changes it commits, and added after that, so the cache never shows an
// uncommitted state.
type stateCache struct {
	resources *lru.Cache[string, lock.Resource] // without their queues
	version   int64                             // of the database; only other programs change it
}

func newStateCache() (*stateCache, error) {
	resources, err := lru.New[string, lock.Resource](maxCached)
	return &stateCache{resources: resources}, err
}

// get returns a resource as it was committed last, without its queue.
func (c *stateCache) get(name string) (lock.Resource, bool) { return c.resources.Get(name) }

// lookUp returns the cached states and the names of the other resources. It empties the
// cache if the version of the database is a new one.
func (c *stateCache) lookUp(version int64, names []string) (states map[string]lock.Resource, missing []string) {
	if version != c.version {
		c.resources.Purge()
		c.version = version
	}
	states = make(map[string]lock.Resource, len(names))
	for _, name := range names {
		if r, found := c.resources.Get(name); found {
			states[name] = r
		} else {
			missing = append(missing, name)
		}
	}
	return states, missing
}

// remove is called before the named resources change.
func (c *stateCache) remove(names []string) {
	for _, name := range names {
		c.resources.Remove(name)
	}
}

// add is called after a transaction that has read or changed resources has committed.
func (c *stateCache) add(states map[string]lock.Resource) {
	for name, r := range states {
		if r.ID == 0 || r.Deleted {
			continue
		}
		r.Queue = nil
		c.resources.Add(name, r)
	}
}
