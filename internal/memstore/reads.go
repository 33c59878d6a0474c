package memstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// read calls f with the database locked, unless reads fail.
func (s *Store) read(ctx context.Context, f func(now time.Time)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.faultOf(nil).Err; err != nil {
		return err
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	f(s.db.clock())
	return nil
}

// Find implements service.Reader.
func (s *Store) Find(ctx context.Context, name string) (found service.Snapshot, err error) {
	err = s.read(ctx, func(now time.Time) {
		found.At, found.Resource = now, lock.Resource{Name: name}
		if stored := s.db.resources[name]; stored != nil {
			found.Resource = stored.Resource
			found.Resource.Holds, found.Resource.Queue = slices.Clone(stored.Holds), nil
		}
	})
	return found, err
}

// Held implements service.Reader.
func (s *Store) Held(
	ctx context.Context, f service.ListFilter,
	begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	var found []lock.Resource
	var at time.Time
	err := s.read(ctx, func(now time.Time) {
		at = now
		for _, r := range s.db.byID() {
			hold, held := r.Holder(now)
			if !held || !strings.HasPrefix(r.Name, f.Prefix) || f.ProcessID != "" && hold.ProcessID != f.ProcessID ||
				r.ID <= f.AfterID || f.Prefix != "" && r.Name <= f.After && f.After != "" {
				continue
			}
			listed := r.Resource
			listed.Queue = nil
			found = append(found, listed)
		}
	})
	if err != nil {
		return err
	}
	if f.Prefix != "" {
		slices.SortFunc(found, func(a, b lock.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	if f.Limit > 0 {
		found = found[:min(f.Limit, len(found))]
	}
	if err := begin(len(found), at); err != nil {
		return err
	}
	for _, r := range found {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// HeldBy implements service.Reader. Like those of the other stores, its result may
// include resources whose hold has expired.
func (s *Store) HeldBy(ctx context.Context, process, after string, limit int) (names []string, err error) {
	err = s.read(ctx, func(time.Time) {
		for name, r := range s.db.resources {
			if name > after && len(r.Holds) > 0 && r.Holds[0].ProcessID == process {
				names = append(names, name)
			}
		}
	})
	slices.Sort(names)
	return names[:min(limit, len(names))], err
}

// History implements service.Reader.
func (s *Store) History(ctx context.Context, f service.HistoryFilter) (found []lock.Event, err error) {
	err = s.read(ctx, func(time.Time) {
		events := slices.Clone(s.db.events)
		if f.ByTime() {
			slices.SortStableFunc(events, func(a, b lock.Event) int { return a.At.Compare(b.At) })
		}
		slices.Reverse(events)
		if f.BeforeID != 0 {
			i := slices.IndexFunc(events, func(e lock.Event) bool {
				return e.ID == f.BeforeID || !f.ByTime() && e.ID < f.BeforeID
			})
			switch {
			case i < 0:
				events = nil
			case events[i].ID == f.BeforeID:
				events = events[i+1:]
			default:
				events = events[i:]
			}
		}
		for _, e := range events {
			if f.Resource != "" && e.Resource != f.Resource || f.ProcessID != "" && e.ProcessID != f.ProcessID ||
				len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind) ||
				!f.Since.IsZero() && e.At.Before(f.Since) || !f.Until.IsZero() && !e.At.Before(f.Until) {
				continue
			}
			if found = append(found, e); len(found) == f.Limit {
				return
			}
		}
	})
	return found, err
}

// LastEnd implements service.Reader.
func (s *Store) LastEnd(
	ctx context.Context, resource, process string, token int64,
) (end lock.Event, found bool, err error) {
	err = s.read(ctx, func(time.Time) {
		for _, e := range slices.Backward(s.db.events) {
			switch {
			case e.Resource != resource || e.ProcessID != process || e.Token == 0 || token != 0 && e.Token != token:
			case found && (e.Token != end.Token || e.Kind.Begins()):
				return
			case e.Kind.Begins():
				return
			default: // the release of a hold precedes its force-release, and counts
				end, found = e, true
			}
		}
	})
	return end, found, err
}

// Queue implements service.Reader.
func (s *Store) Queue(
	ctx context.Context, resource string, after int64, limit int,
) (page service.QueuePage, err error) {
	err = s.read(ctx, func(now time.Time) {
		page.At = now
		position := 0
		for _, w := range s.db.load(resource, s.id).Queue {
			if !w.Connected(now) {
				continue
			}
			position++
			if w.Ticket > after && len(page.Waiters) < limit {
				if len(page.Waiters) == 0 {
					page.Position = position
				}
				page.Waiters = append(page.Waiters, w)
			}
		}
	})
	return page, err
}

// Waiting implements service.Reader.
func (s *Store) Waiting(ctx context.Context, onlyFree bool) (waiting []service.Waiting, err error) {
	err = s.read(ctx, func(now time.Time) {
		for _, stored := range s.db.byID() {
			r := s.db.load(stored.Name, s.id)
			_, held := r.Holder(now)
			for _, w := range r.Queue {
				if w.Local && (!onlyFree || !held) {
					waiting = append(waiting, service.Waiting{
						Place: placeOf(r.Name, w), Connection: w.Connection, Free: !held,
					})
				}
			}
		}
	})
	return waiting, err
}

func placeOf(resource string, w *lock.Waiter) lock.Place {
	return lock.Place{Resource: resource, ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID}
}

// Expired implements service.Housekeeping.
func (s *Store) Expired(ctx context.Context, limit int) (names []string, err error) {
	err = s.read(ctx, func(now time.Time) {
		for _, r := range s.db.byID() {
			if _, held := r.Holder(now); !held && len(r.Holds) > 0 && len(names) < limit {
				names = append(names, r.Name)
			}
		}
	})
	return names, err
}

// IdleResources implements service.Housekeeping.
func (s *Store) IdleResources(
	ctx context.Context, afterID int64, window int, idle time.Duration,
) (page service.IdlePage, err error) {
	err = s.read(ctx, func(now time.Time) {
		page.Before = now.Add(-idle)
		seen := 0
		for _, r := range s.db.byID() {
			if r.ID <= afterID {
				continue
			}
			if seen == window {
				page.Next = afterID
				return
			}
			if len(r.Holds) == 0 && r.EndedAt.Before(page.Before) {
				page.Names = append(page.Names, r.Name)
			}
			seen, afterID = seen+1, r.ID
		}
		if seen == window {
			page.Next = afterID
		}
	})
	return page, err
}

// DeleteEvents implements service.Housekeeping.
func (s *Store) DeleteEvents(ctx context.Context, age time.Duration, limit int) (deleted int, err error) {
	err = s.read(ctx, func(now time.Time) {
		oldest := s.db.events[:min(limit, len(s.db.events))]
		kept := slices.DeleteFunc(slices.Clone(oldest), func(e lock.Event) bool { return e.At.Before(now.Add(-age)) })
		deleted = len(oldest) - len(kept)
		s.db.events = append(kept, s.db.events[len(oldest):]...)
	})
	return deleted, err
}

// AbandonedPlaces implements service.Housekeeping.
func (s *Store) AbandonedPlaces(ctx context.Context, keep time.Duration, limit int) (places []lock.Place, err error) {
	err = s.read(ctx, func(now time.Time) {
		for _, stored := range s.db.byID() {
			for _, w := range s.db.load(stored.Name, s.id).Queue {
				detached := !w.DetachedUntil.IsZero() && !now.Before(w.DetachedUntil)
				dead := w.DetachedUntil.IsZero() && !w.Local && !now.Before(w.AliveUntil.Add(keep))
				if (detached || dead) && len(places) < limit {
					places = append(places, placeOf(stored.Name, w))
				}
			}
		}
	})
	return places, err
}

// DeleteDeadServers implements service.Housekeeping. It deletes nothing: a test has few
// servers.
func (s *Store) DeleteDeadServers(ctx context.Context, _ time.Duration) error {
	return s.read(ctx, func(time.Time) {})
}
