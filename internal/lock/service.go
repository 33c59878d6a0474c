package lock

import (
	"context"
	"time"
)

// Store keeps resources. All its methods may be called concurrently, and their errors wrap one of this package's
// sentinel errors where the caller can do something about it.
type Store interface {
	// Execute decides a command on the stored states and makes the outcome durable before it returns: a nil error means
	// committed and synced. A refusal is returned as Decide gave it.
	Execute(ctx context.Context, c Command) (Outcome, error)
	// Find returns the resource, with its Name and nothing else when there is no such row, and the moment of the look.
	Find(ctx context.Context, name string) (Resource, time.Time, error)
	// Held returns every resource that is held, ordered by ID, and the moment of the look.
	Held(ctx context.Context) ([]Resource, time.Time, error)
	// Expired returns the names of up to limit resources whose hold has expired and has not been ended by a command.
	Expired(ctx context.Context, limit int) ([]string, error)
	// Idle looks at the next window of rows after the given id and returns the names among them that nothing has held
	// for the given time, the moment that they must have ended before, and the id to go on after (0: from the start).
	Idle(ctx context.Context, afterID int64, window int, idle time.Duration) (names []string, before time.Time, next int64, err error)
}

// Service is what the HTTP API offers, in terms of the domain. It checks every request against the limits, so that the
// store only ever sees sound commands. It is safe for concurrent use.
type Service struct {
	store  Store
	limits Limits
}

// NewService returns a service on the store.
func NewService(store Store, limits Limits) *Service {
	return &Service{store: store, limits: limits}
}

// Acquire returns the new hold, or [InvalidError], [HeldError] or one of the sentinel errors.
func (s *Service) Acquire(ctx context.Context, c Acquire) (Outcome, error) {
	if err := c.validate(s.limits); err != nil {
		return Outcome{}, err
	}
	return s.store.Execute(ctx, c)
}

// CheckAcquire returns what Acquire would find wrong with the request itself.
func (s *Service) CheckAcquire(c Acquire) error { return c.validate(s.limits) }

// Release returns the hold that it ended, or [InvalidError], [NotHeldError] or one of the sentinel errors.
func (s *Service) Release(ctx context.Context, c Release) (Outcome, error) {
	if err := c.validate(); err != nil {
		return Outcome{}, err
	}
	return s.store.Execute(ctx, c)
}

// Status returns the live hold of a resource, if it has one.
func (s *Service) Status(ctx context.Context, name string) (Hold, bool, error) {
	if err := validateResource(name); err != nil {
		return Hold{}, false, err
	}
	r, now, err := s.store.Find(ctx, name)
	if err != nil {
		return Hold{}, false, err
	}
	hold, held := r.Holder(now)
	return hold, held, nil
}

// Locked is one entry of the list of held resources.
type Locked struct {
	ID       int64
	Resource string
	Hold     Hold
}

// AllLocked returns the live hold of every held resource, ordered by id.
func (s *Service) AllLocked(ctx context.Context) ([]Locked, error) {
	resources, now, err := s.store.Held(ctx)
	if err != nil {
		return nil, err
	}
	locked := make([]Locked, 0, len(resources))
	for _, r := range resources {
		if hold, held := r.Holder(now); held {
			locked = append(locked, Locked{ID: r.ID, Resource: r.Name, Hold: hold})
		}
	}
	return locked, nil
}

// SweepExpired records the end of up to limit holds whose time is over and returns how many it found: fewer than limit
// means that none is left for now.
func (s *Service) SweepExpired(ctx context.Context, limit int) (int, error) {
	names, err := s.store.Expired(ctx, limit)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	_, err = s.store.Execute(ctx, Expire{Names: names})
	return len(names), err
}

// SweepIdle forgets, among the next window of rows after the given id, the resources that nothing has held for the given
// time, and returns how many. It goes on after next; 0 means that the last row was reached.
func (s *Service) SweepIdle(ctx context.Context, afterID int64, window int, idle time.Duration) (forgotten int, next int64, err error) {
	names, before, next, err := s.store.Idle(ctx, afterID, window, idle)
	if err != nil || len(names) == 0 {
		return 0, next, err
	}
	out, err := s.store.Execute(ctx, Forget{Names: names, Before: before})
	return len(out.Changed), next, err
}
