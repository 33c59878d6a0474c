package service

import (
	"context"
	"time"

	"resource-lock-manager/internal/lock"
)

// SweepExpired records the end of up to limit expired holds and returns how many it
// found: fewer than limit means that there are no more.
func (s *Service) SweepExpired(ctx context.Context, limit int) (int, error) {
	names, err := s.store.Expired(ctx, limit)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	_, err = s.store.Execute(ctx, lock.ExpireAndGrant{Names: names})
	return len(names), err
}

// SweepIdle reads up to window rows after the given id and deletes those resources that
// have not been held for the given time. It returns how many, and the id after which the
// next call continues; 0 means that the last row was reached.
func (s *Service) SweepIdle(
	ctx context.Context, afterID int64, window int, idle time.Duration,
) (deleted int, next int64, err error) {
	page, err := s.store.IdleResources(ctx, afterID, window, idle)
	if err != nil || len(page.Names) == 0 {
		return 0, page.Next, err
	}
	out, err := s.store.Execute(ctx, lock.DeleteIdle{Names: page.Names, Before: page.Before})
	return out.Deleted, page.Next, err
}

// SweepEvents deletes up to limit events that are older than the given age and returns
// how many: fewer than limit means that there are no more.
func (s *Service) SweepEvents(ctx context.Context, age time.Duration, limit int) (int, error) {
	return s.store.DeleteEvents(ctx, age, limit)
}

// SweepAbandoned removes up to limit places that are not kept any more and returns how
// many it found: fewer than limit means that there are no more. If there are no more, it
// also deletes dead servers.
func (s *Service) SweepAbandoned(ctx context.Context, limit int) (int, error) {
	places, err := s.store.AbandonedPlaces(ctx, s.keepPlace, limit)
	if err != nil {
		return 0, err
	}
	if len(places) < limit {
		if err := s.store.DeleteDeadServers(ctx, s.keepPlace); err != nil {
			return 0, err
		}
	}
	if len(places) == 0 {
		return 0, nil
	}
	_, err = s.store.Execute(ctx, lock.RemoveAbandoned{Places: places, Keep: s.keepPlace})
	return len(places), err
}
