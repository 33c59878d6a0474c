package service

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"resource-lock-manager/internal/lock"
)

// Config holds the bounds that an operator sets.
type Config struct {
	Limits     lock.Limits
	MaxWaiters int           // the maximum number of requests that wait on this server
	MaxQueue   int           // the maximum number of places in the queue of a resource
	KeepPlace  time.Duration // how long a place is kept for a waiter whose connection has ended
	Recheck    time.Duration // how late a hand-over can be if a notification was lost; above 0
}

// Service is what the HTTP API offers. It is safe for concurrent use.
//
// Requests can wait between Start and StopWaiting. The store that executes its commands
// must report its commits to [Service.Committed].
type Service struct {
	gate      gate
	store     Store // for the server's own operations only: see sweep.go
	waiters   *waiters
	refusals  *refusalCache
	keepPlace time.Duration
}

// New returns a service on the store.
func New(store Store, cfg Config, log *slog.Logger) *Service {
	refusals := &refusalCache{}
	return &Service{
		gate:      gate{store: store, limits: cfg.Limits},
		store:     store,
		waiters:   newWaiters(store, cfg, refusals, log),
		refusals:  refusals,
		keepPlace: cfg.KeepPlace,
	}
}

// Start starts serving waiting requests. It is called once.
func (s *Service) Start() { s.waiters.start() }

// StopWaiting answers every waiting request, and any that would have to wait, with
// [ErrStopping]. It may be called again.
func (s *Service) StopWaiting() { s.waiters.close() }

// Stop ends what Start started, after StopWaiting. It is called when no request waits any
// more. It may be called again, and without Start.
func (s *Service) Stop() { s.waiters.stop() }

// Committed wakes the requests that a commit of this server concerns. The store calls it
// before it returns the outcome of any command of the transaction, for every transaction
// that changed something, that read a resource with waiters, or whose outcome is unknown.
func (s *Service) Committed(c Commit) { s.waiters.committed(c) }

// Wake reconciles a resource. It is called when the resource may be free and its next
// waiter may be local.
func (s *Service) Wake(name string) { s.waiters.scheduleReconcile(name) }

// WakeAll reconciles all resources that requests wait for on this server.
func (s *Service) WakeAll() { s.waiters.scheduleReconcileAll() }

// WakeSuperseded ends the wait of a request whose place a later request has taken on
// another server.
func (s *Service) WakeSuperseded(connection int64) { s.waiters.supersede(connection) }

// Limits returns the bounds that requests are checked against.
func (s *Service) Limits() lock.Limits { return s.gate.limits }

// Acquire returns the new hold, or [lock.InvalidError], [lock.HeldError],
// [lock.QueueFullError], [lock.PlaceLostError] or one of the errors of this package.
//
// With Wait it may block until it has one of these, or until ctx ends, which means that
// the client has disconnected. The request then has no hold, unless it has a RequestID
// and was never queued; a queued one with a RequestID keeps its place. Without Wait it
// does not end with ctx: see Abandon.
func (s *Service) Acquire(ctx context.Context, r lock.Request) (lock.Grant, error) {
	store, err := admit(s.gate, r)
	if err != nil {
		return lock.Grant{}, err
	}
	if r.TTL == 0 {
		r.TTL = s.gate.limits.DefaultTTL
	}
	c := lock.Acquire{Request: r, Named: r.RequestID != "", Connection: int64(rand.Uint64()>>1) | 1}
	if r.Wait > 0 {
		return s.waiters.acquire(ctx, c)
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.refusals.refuse(ctx, store, c); err != nil {
		return lock.Grant{}, err
	}
	out, err := store.Execute(ctx, c)
	if err != nil {
		s.refusals.note(c.Resource, isHeld(err))
		return lock.Grant{}, err
	}
	return out.Grant(c), nil
}

// Abandon ends a hold whose client disconnected before it got its answer, regardless of
// the hold's minimum. With a RequestID the client can retry: a request that was granted
// the hold at once keeps it, and one that had waited keeps its place for KeepPlace. If
// the database is not available, the hold is ended later.
func (s *Service) Abandon(g lock.Grant) { s.waiters.abandon(context.Background(), g) }

// Release returns the hold that it ended, or [lock.InvalidError], [lock.NotHeldError] or
// one of the errors of this package.
func (s *Service) Release(ctx context.Context, c lock.Release) (lock.Outcome, error) {
	store, err := admit(s.gate, c)
	if err != nil {
		return lock.Outcome{}, err
	}
	out, err := store.Execute(ctx, c)
	return out, explain(ctx, store, err, c.Token)
}

// Renew returns the hold with its new expiry, or [lock.InvalidError], [lock.NotHeldError]
// or one of the errors of this package.
func (s *Service) Renew(ctx context.Context, c lock.Renew) (lock.Outcome, error) {
	store, err := admit(s.gate, c)
	if err != nil {
		return lock.Outcome{}, err
	}
	out, err := store.Execute(ctx, c)
	return out, explain(ctx, store, err, c.Token)
}

// ForceRelease returns the hold that it ended, or [lock.InvalidError],
// [lock.NotLockedError], [lock.OtherHoldError] or one of the errors of this package.
func (s *Service) ForceRelease(ctx context.Context, c lock.ForceRelease) (lock.Outcome, error) {
	store, err := admit(s.gate, c)
	if err != nil {
		return lock.Outcome{}, err
	}
	return store.Execute(ctx, c)
}

// explain adds to a NotHeldError how the hold ended, if the state does not show it and
// the history does. The end of a hold does not change, so it is true whatever happened
// since the refusal. A process that holds the resource with another token learns of an
// earlier hold only that it was released or force-released. An error of the history
// leaves the refusal as it is.
func explain(ctx context.Context, history Reader, err error, token int64) error {
	if err == nil {
		return nil
	}
	var notHeld *lock.NotHeldError
	if !errors.As(err, &notHeld) || notHeld.Reason != lock.ReasonUnknown && notHeld.Reason != lock.ReasonTokenMismatch {
		return err
	}
	end, found, endErr := history.LastEnd(ctx, notHeld.Resource, notHeld.ProcessID, token)
	if endErr != nil || !found || notHeld.Reason == lock.ReasonTokenMismatch && end.Kind == lock.EventExpired {
		return err
	}
	explained := *notHeld
	switch end.Kind {
	case lock.EventForceReleased:
		explained.Reason = lock.ReasonForceReleased
	case lock.EventExpired:
		explained.Reason = lock.ReasonExpired
	default:
		explained.Reason = lock.ReasonReleased
	}
	return &explained
}

// Status returns the state of a resource.
func (s *Service) Status(ctx context.Context, name lock.ResourceName) (Snapshot, error) {
	store, err := admit(s.gate, name)
	if err != nil {
		return Snapshot{}, err
	}
	return store.Find(ctx, string(name))
}

// Queue returns up to limit connected waiters with a ticket after the given one.
func (s *Service) Queue(ctx context.Context, name lock.ResourceName, after int64, limit int) (QueuePage, error) {
	store, err := admit(s.gate, name)
	if err != nil {
		return QueuePage{}, err
	}
	return store.Queue(ctx, string(name), after, limit)
}

// List streams the live holds that match the filter. See [Reader] for begin and each.
func (s *Service) List(
	ctx context.Context, f ListFilter, begin func(total int, now time.Time) error, each func(lock.Resource) error,
) error {
	store, err := admit(s.gate, f)
	if err != nil {
		return err
	}
	return store.Held(ctx, f, begin, each)
}

// History returns the newest events that match the filter, newest first.
func (s *Service) History(ctx context.Context, f HistoryFilter) ([]lock.Event, error) {
	store, err := admit(s.gate, f)
	if err != nil {
		return nil, err
	}
	return store.History(ctx, f)
}
