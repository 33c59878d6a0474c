package store

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm"

	"resource-lock-manager/internal/groupcommit"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// Find implements service.Reader. Calls that arrive while a query runs share the next
// one.
func (s *Store) Find(ctx context.Context, name string) (service.Snapshot, error) {
	if seen, cached := s.backend.cached(name); cached {
		return seen, s.backend.checkReadable()
	}
	seen, err := s.reads.Do(ctx, name)
	switch {
	case err == nil:
		return seen, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = translateCommit(err)
	}
	return service.Snapshot{}, err
}

// readBatch is the transaction of reads: it reads what is stored under the names. The
// time is read before the rows. A hold whose renewal is committed in between may
// therefore count as live, which it is, but never as expired. A later renewal is not
// seen, even if it was decided before that time: the hold counts as expired once its
// committed end has passed.
func (s *Store) readBatch(names []string) ([]groupcommit.Result[service.Snapshot], error) {
	var found map[string]lock.Resource
	var now time.Time
	err := s.read(context.Background(), func(db *gorm.DB) (err error) {
		found, now, err = s.backend.readRows(db, slices.Compact(slices.Sorted(slices.Values(names))))
		return err
	})
	if err != nil {
		return nil, err
	}
	results := make([]groupcommit.Result[service.Snapshot], len(names))
	for i, name := range names {
		r, ok := found[name]
		if !ok {
			r.Name = name
		}
		results[i].Value = service.Snapshot{Resource: r, At: now}
	}
	return results, nil
}
