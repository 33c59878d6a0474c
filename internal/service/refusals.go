package service

import (
	"context"
	"errors"
	"sync"

	"resource-lock-manager/internal/lock"
)

// refusalCache remembers the resources that could recently not be acquired at once, so
// that the next acquire will probably be refused or queued. It is a hint, which may be
// stale.
type refusalCache struct {
	mu    sync.Mutex
	names map[string]struct{}
}

// maxRefusals is the maximum number of names; the cache is cleared when it is exceeded.
const maxRefusals = 10_000

// note remembers whether a resource could be acquired at once.
func (r *refusalCache) note(name string, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !refused:
		delete(r.names, name)
		return
	case r.names == nil || len(r.names) >= maxRefusals:
		r.names = map[string]struct{}{}
	}
	r.names[name] = struct{}{}
}

// likely reports whether the next acquire of the resource will probably be refused or
// queued.
func (r *refusalCache) likely(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, found := r.names[name]
	return found
}

// refuse decides an acquire that does not wait on a snapshot of the resource, if it will
// probably be refused: a refusal changes nothing, so it needs no transaction. It returns
// nil if the store has to decide. It returns a failure of the read as the answer, so that
// the client does not wait twice for a database that is not available.
func (r *refusalCache) refuse(ctx context.Context, store Reader, c lock.Acquire) error {
	if !r.likely(c.Resource) {
		return nil
	}
	s, err := store.Find(ctx, c.Resource)
	if err != nil {
		return err
	}
	if _, err = c.Decide(s.At, []lock.Resource{s.Resource}); isHeld(err) {
		return err
	}
	r.note(c.Resource, false)
	return nil
}

// isHeld reports whether an acquire was refused because the resource is held. Such a
// refusal does not depend on the queue.
func isHeld(err error) bool {
	var held *lock.HeldError
	return errors.As(err, &held) && held.Holder != nil
}
