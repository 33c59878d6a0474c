package api

import (
	"fmt"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// acquire grants a lock.
//
//	@Summary		Acquire a lock
//	@Description	Grants the lock if nobody holds the resource. A lock without `ttl_seconds` never expires. `fencing_token`
//	@Description	grows with every hold of the resource: let what you protect refuse a token lower than one it has seen.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.AcquireRequest	true	"which resource, for whom, for how long"
//	@Success		200		{object}	wire.Success[wire.Acquired]
//	@Failure		409		{object}	wire.Conflict			"somebody holds the resource"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as application/json"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/request [post]
func (a *API) acquire(w http.ResponseWriter, r *http.Request) {
	command, err := a.decodeAcquire(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	out, err := a.locks.Acquire(r.Context(), command)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	succeed(w, fmt.Sprintf("Lock acquired successfully for resource '%s'", command.Resource), wire.Acquired{
		LockID:       out.Changed[0].ID,
		ResourceName: command.Resource,
		ProcessID:    command.ProcessID,
		LockedAt:     wire.Time(out.Hold.LockedAt),
		ExpiresAt:    wire.OptionalTime(out.Hold.ExpiresAt),
		FencingToken: out.Hold.Token,
	})
}

// release ends a lock.
//
//	@Summary		Release a lock
//	@Description	Ends the lock that the process holds. A lock that has expired is not held any more.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource to release"			minlength(1)	maxlength(255)	example(database_backup)
//	@Param			process_id		query		string	true	"ID of the process that owns the lock"	minlength(1)	maxlength(255)	example(process_123)
//	@Success		200				{object}	wire.Success[wire.Released]
//	@Failure		404				{object}	wire.Failure			"the process does not hold the resource"
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/release [delete]
func (a *API) release(w http.ResponseWriter, r *http.Request) {
	values, err := queryOf(r, "resource_name", "process_id")
	if err != nil {
		a.fail(w, r, err)
		return
	}
	command := lock.Release{Resource: values[0], ProcessID: values[1]}
	out, err := a.locks.Release(r.Context(), command)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	succeed(w, fmt.Sprintf("Lock released successfully for resource '%s'", command.Resource), wire.Released{
		ResourceName: command.Resource,
		ProcessID:    command.ProcessID,
		ReleasedAt:   wire.Time(out.Now),
	})
}

// status tells who holds a resource.
//
//	@Summary		Check a lock's status
//	@Description	Tells whether the resource is locked at this moment, by whom, since when and until when.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource to check"	minlength(1)	maxlength(255)	example(database_backup)
//	@Success		200				{object}	wire.Success[wire.Status]
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/status [get]
func (a *API) status(w http.ResponseWriter, r *http.Request) {
	values, err := queryOf(r, "resource_name")
	if err != nil {
		a.fail(w, r, err)
		return
	}
	name := values[0]
	hold, held, err := a.locks.Status(r.Context(), name)
	switch {
	case err != nil:
		a.fail(w, r, err)
	case held:
		succeed(w, fmt.Sprintf("Resource '%s' status retrieved successfully", name), wire.Status{
			ResourceName: name,
			IsLocked:     true,
			LockedBy:     &hold.ProcessID,
			LockedAt:     wire.OptionalTime(hold.LockedAt),
			ExpiresAt:    wire.OptionalTime(hold.ExpiresAt),
		})
	default:
		succeed(w, fmt.Sprintf("Resource '%s' is not locked", name), wire.Status{ResourceName: name})
	}
}

// allLocked lists every locked resource.
//
//	@Summary		List all locked resources
//	@Description	Lists every lock that is held at this moment, ordered by id.
//	@Tags			locks
//	@Produce		json
//	@Success		200	{object}	wire.Success[wire.AllLocked]
//	@Failure		500	{object}	wire.Failure	"a fault of the server"
//	@Failure		503	{object}	wire.Failure	"try again after Retry-After seconds"
//	@Router			/locks/all-locked [get]
func (a *API) allLocked(w http.ResponseWriter, r *http.Request) {
	locked, err := a.locks.AllLocked(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	data := wire.AllLocked{TotalLocks: len(locked), Locks: make([]wire.Lock, len(locked))}
	for i, l := range locked {
		data.Locks[i] = wire.Lock{
			ID:           l.ID,
			ResourceName: l.Resource,
			ProcessID:    l.Hold.ProcessID,
			LockedAt:     wire.Time(l.Hold.LockedAt),
			ExpiresAt:    wire.OptionalTime(l.Hold.ExpiresAt),
		}
	}
	succeed(w, fmt.Sprintf("Retrieved %d active locks", len(locked)), data)
}
