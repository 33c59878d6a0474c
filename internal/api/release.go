package api

import (
	"context"
	"fmt"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// release ends a lock that is named in the query.
//
//	@Summary		Release a lock
//	@Description	Ends the lock that the process holds. If the lock has a minimum hold, the resource stays taken until
//	@Description	`free_at`. A repeated release changes nothing and returns 404 with the code `already_released`. The other
//	@Description	codes of a 404 are `expired`; `force_released`; `token_mismatch`, if the process holds the resource with
//	@Description	another token; and `not_held`, if it never held the resource, or if the history does not reach back that far.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"the name of the resource"			minlength(1)	maxlength(255)
//	@Param			process_id		query		string	true	"the process that holds the lock"	minlength(1)	maxlength(255)
//	@Param			fencing_token	query		integer	false	"release the lock only if this is its token"
//	@Success		200				{object}	wire.Success[wire.Released]
//	@Failure		404				{object}	wire.Failure	"the process does not hold the resource; `code` states why"
//	@Router			/locks/release [delete]
func (a *API) release(w http.ResponseWriter, r *http.Request) error {
	command, err := fromQuery(a, r, func(p *parameters) lock.Release { return releaseFrom(p) })
	if err != nil {
		return err
	}
	return a.releaseOne(w, command)
}

// postRelease ends a lock that is named in the body.
//
//	@Summary		Release a lock, with a JSON body
//	@Description	The same as `DELETE`, for names that would have to be percent-encoded in a query.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ReleaseRequest	true	"the lock"
//	@Success		200		{object}	wire.Success[wire.Released]
//	@Failure		404		{object}	wire.Failure	"the process does not hold the resource; `code` states why"
//	@Router			/locks/release [post]
func (a *API) postRelease(w http.ResponseWriter, r *http.Request) error {
	command, err := fromBody(a, w, r, func(o *object) lock.Release { return releaseFrom(o) })
	if err != nil {
		return err
	}
	return a.releaseOne(w, command)
}

func releaseFrom(s source) lock.Release {
	return lock.Release{
		Resource:  s.text("resource_name"),
		ProcessID: s.text("process_id"),
		Token:     s.token("fencing_token"),
	}
}

func (a *API) releaseOne(w http.ResponseWriter, command lock.Release) error {
	out, err := a.locks.Release(context.Background(), command)
	if err != nil {
		return err
	}
	data := wire.Released{ResourceName: command.Resource, ProcessID: command.ProcessID, ReleasedAt: wire.Time(out.Now)}
	if !out.Hold.ReleasedAt.IsZero() {
		data.FreeAt = wire.OptionalTime(out.Hold.MinHoldUntil)
	}
	succeed(w, "Lock released successfully for resource '"+command.Resource+"'", data)
	return nil
}

// releaseAll ends all locks of a process.
//
//	@Summary		Release all locks of a process
//	@Description	Ends every lock that the process holds, and returns their number. At most 500 locks are released in one
//	@Description	transaction: after a 503 some may have been released, and the call can be repeated.
//	@Tags			locks
//	@Produce		json
//	@Param			process_id	query		string	true	"the process that holds the locks"	minlength(1)	maxlength(255)
//	@Success		200			{object}	wire.Success[wire.ReleasedAll]
//	@Router			/locks/release-all [delete]
func (a *API) releaseAll(w http.ResponseWriter, r *http.Request) error {
	command, err := fromQuery(a, r, func(p *parameters) service.ReleaseAll {
		return service.ReleaseAll{ProcessID: p.text("process_id")}
	})
	if err != nil {
		return err
	}
	return a.releaseMany(w, command)
}

// postReleaseAll ends all locks of a process, or those that the body lists.
//
//	@Summary		Release all or some locks of a process
//	@Description	Without `holds`, the same as `DELETE`. With `holds`, only the listed locks are released, each by its token.
//	@Description	The response names those listed holds that were already `lost`. If the call is repeated, `lost` also names
//	@Description	the holds that the first call released.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ReleaseAllRequest	true	"the locks"
//	@Success		200		{object}	wire.Success[wire.ReleasedAll]
//	@Router			/locks/release-all [post]
func (a *API) postReleaseAll(w http.ResponseWriter, r *http.Request) error {
	command, err := fromBody(a, w, r, func(o *object) service.ReleaseAll {
		return service.ReleaseAll{ProcessID: o.text("process_id"), Holds: o.holds("holds")}
	})
	if err != nil {
		return err
	}
	return a.releaseMany(w, command)
}

func (a *API) releaseMany(w http.ResponseWriter, command service.ReleaseAll) error {
	done, err := a.locks.ReleaseAll(context.Background(), command)
	if err != nil {
		return err
	}
	message := fmt.Sprintf("Released %s of process '%s'", counted(done.Released, "lock"), command.ProcessID)
	succeed(w, message, wire.ReleasedAll{
		ProcessID: command.ProcessID, Released: done.Released, Lost: holdRefsOf(done.Lost),
	})
	return nil
}

// forceRelease ends any hold of a resource that is named in the query.
//
//	@Summary		Force-release a lock
//	@Description	Ends the hold of the resource, whichever process has it, and regardless of its minimum hold. With a
//	@Description	`fencing_token` it ends only the hold with that token. The history records the reason and the caller. The
//	@Description	former holder learns of it from its next renewal. The codes of a 404 are `not_locked`, and `token_mismatch`
//	@Description	if the resource has another hold.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"the name of the resource"							minlength(1)	maxlength(255)
//	@Param			reason			query		string	true	"the reason for the history"						minlength(1)	maxlength(500)
//	@Param			process_id		query		string	false	"the caller, for the history; its address if absent"	maxlength(255)
//	@Param			fencing_token	query		integer	false	"release the lock only if this is its token"
//	@Success		200				{object}	wire.Success[wire.ForceReleased]
//	@Failure		404				{object}	wire.Failure	"the resource is not held, or it has another hold"
//	@Router			/locks/force-release [delete]
func (a *API) forceRelease(w http.ResponseWriter, r *http.Request) error {
	command, err := fromQuery(a, r, func(p *parameters) lock.ForceRelease { return forceReleaseFrom(p) })
	if err != nil {
		return err
	}
	return a.forceReleaseOne(w, r, command)
}

// postForceRelease ends any hold of a resource that is named in the body.
//
//	@Summary		Force-release a lock, with a JSON body
//	@Description	The same as `DELETE`, for names that would have to be percent-encoded in a query.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ForceReleaseRequest	true	"the lock and the reason"
//	@Success		200		{object}	wire.Success[wire.ForceReleased]
//	@Failure		404		{object}	wire.Failure	"the resource is not held, or it has another hold"
//	@Router			/locks/force-release [post]
func (a *API) postForceRelease(w http.ResponseWriter, r *http.Request) error {
	command, err := fromBody(a, w, r, func(o *object) lock.ForceRelease { return forceReleaseFrom(o) })
	if err != nil {
		return err
	}
	return a.forceReleaseOne(w, r, command)
}

func forceReleaseFrom(s source) lock.ForceRelease {
	return lock.ForceRelease{
		Resource: s.text("resource_name"),
		Reason:   s.text("reason"),
		By:       s.optionalText("process_id"),
		Token:    s.token("fencing_token"),
	}
}

func (a *API) forceReleaseOne(w http.ResponseWriter, r *http.Request, command lock.ForceRelease) error {
	if command.By == "" {
		command.By = callerAddress(r)
	}
	out, err := a.locks.ForceRelease(context.Background(), command)
	if err != nil {
		return err
	}
	succeed(w, fmt.Sprintf("Lock force-released for resource '%s'", command.Resource), wire.ForceReleased{
		ResourceName: command.Resource,
		ReleasedAt:   wire.Time(out.Now),
		Reason:       command.Reason,
		By:           command.By,
		Holder:       holdOf(out.Hold, out.Now),
	})
	return nil
}
