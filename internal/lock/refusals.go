package lock

import (
	"context"
	"errors"
	"sync"
)

// refusals remembers which resources somebody could not have at once of late, so that whoever asks next is likely to be refused
// or to have to wait as well. It may be wrong in either way.
type refusals struct {
	mu    sync.Mutex
	names map[string]struct{}
}

// mostRefusals is how many resources are remembered before all are forgotten.
const mostRefusals = 10_000

// note remembers whether a resource could be had at once.
func (r *refusals) note(name string, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !refused:
		delete(r.names, name)
		return
	case r.names == nil || len(r.names) >= mostRefusals:
		r.names = map[string]struct{}{}
	}
	r.names[name] = struct{}{}
}

func (r *refusals) likely(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, found := r.names[name]
	return found
}

// isHeld tells whether somebody holds the resource, so that no queue has to be known to refuse it.
func isHeld(err error) bool {
	var held *HeldError
	return errors.As(err, &held) && held.Holder != (Hold{})
}

// refuse decides an acquire that does not wait on a look at the resource, where it is likely to be refused: that changes
// nothing, so no transaction is needed. It returns nil when the store has to decide. A look that fails is the answer as well:
// whoever has waited for a database that is away is not made to wait for it twice.
func (s *Service) refuse(ctx context.Context, c Acquire) error {
	if !s.refusals.likely(c.Resource) {
		return nil
	}
	r, now, err := s.store.Find(ctx, c.Resource)
	if err != nil {
		return err
	}
	if _, err = c.Decide(now, []Resource{r}); isHeld(err) {
		return err
	}
	s.refusals.note(c.Resource, false)
	return nil
}
